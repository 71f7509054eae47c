//! Every place in the database that can hold something of a shopper: the one
//! list that erasures, exports and the retention of personal data go by.
//!
//! A test holds it against the schema: a column that is not in it fails the
//! build, and whoever adds one decides here what it is.

/// The address of a cart whose shopper was taken out: nobody can have it (RFC 2606).
pub const ERASED_EMAIL: &str = "erased@erased.invalid";
/// What stands in place of an erased name.
pub const ERASED: &str = "erased";

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Which rows are about a shopper; `None`: none ever is.
    pub rows: Option<Rows>,
    /// All columns, if rows are about a shopper; else those that could hold a text.
    pub columns: &'static [Column],
}

/// The rows of a table that are about a shopper. All conditions are SQL.
#[derive(Debug)]
pub struct Rows {
    /// What they are called in receipts and exports.
    pub called: &'static str,
    /// Those of the carts `$1`, found by an index wherever something is erased.
    pub of_carts: &'static str,
    /// More of them, if there are any, that only a look at each row finds.
    pub of_carts_by_looking: Option<&'static str>,
    /// Where an export reads them: the table, or what tells more than it.
    pub told_by: &'static str,
    /// Their order in an export.
    pub order: &'static str,
    /// What becomes of them when their cart is deleted.
    pub end: End,
}

/// What becomes of a row whose cart is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It goes.
    Deleted,
    /// It stays, without what is personal; and this is set besides (`$2` is now).
    Kept {
        /// An assignment, or nothing.
        set: &'static str,
    },
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub content: Content,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Something of a shopper, or what may lead to one.
    Personal {
        /// SQL: what is left of it where its row stays.
        becomes: &'static str,
        /// Whether somebody else's words are in it, which might repeat an address.
        words: bool,
        /// Whether its holder can act for the shopper. Secrets are not exported.
        secret: bool,
    },
    /// A number, code or id of a shopper's cart: told in exports, and telling of nobody once the cart is gone.
    About,
    /// The same, and a time.
    Time,
    /// Nothing of a shopper, because of this.
    Other(&'static str),
}

const fn personal(name: &'static str, becomes: &'static str) -> Column {
    Column { name, content: Content::Personal { becomes, words: false, secret: false } }
}

/// A working link, or a token of one: erased like all personal data, and never exported.
const fn secret(name: &'static str, becomes: &'static str) -> Column {
    Column { name, content: Content::Personal { becomes, words: false, secret: true } }
}

const fn words(name: &'static str, becomes: &'static str) -> Column {
    Column { name, content: Content::Personal { becomes, words: true, secret: false } }
}

const fn about(name: &'static str) -> Column {
    Column { name, content: Content::About }
}

const fn time(name: &'static str) -> Column {
    Column { name, content: Content::Time }
}

const fn other(name: &'static str, why: &'static str) -> Column {
    Column { name, content: Content::Other(why) }
}

const fn without_shoppers(name: &'static str, columns: &'static [Column]) -> Table {
    Table { name, rows: None, columns }
}

/// Sums stay what they were: a product's name may be a person's ("Mug for Ada"), its price is none.
const ITEMS_WITHOUT_NAMES: &str = "(select coalesce(json_agg(json_build_object('name', 'erased', \
     'quantity', line.item->'quantity', 'price', line.item->'price') order by line.place), '[]') \
     from json_array_elements(case json_typeof(items) when 'array' then items else '[]' end) with ordinality as line (item, place))";

/// The timeline is told by the rows of a cart and its links, and by `cart_events`.
const TIMELINE: &str = "(select distinct on (cart_id, at, cart_event_place(kind, link)) * from (\
     select cart.id as cart_id, line.* from carts cart, cart_row_events(cart) line \
     union all select asked.cart_id, line.* from payment_links asked, payment_link_row_events(asked) line \
     union all select cart_id, at, kind, link, why, details from cart_events) event \
     order by cart_id, at, cart_event_place(kind, link))";

/// The job that makes a link, which alone is told the address, by the link; and those that are still to close one.
/// (The collation is that of the index; ids of carts have another, and with that no index fits.)
const JOBS_OF_CARTS: &str = "id = any (array(\
     select job_id from payment_links where cart_id = any ($1) \
     union all select closing.id from payment_links link \
     join jobs closing on closing.unique_key = ('close_payment_link:' || link.cart_id || ':v' || link.version) collate \"default\" \
     and closing.state in ('pending', 'running') where link.cart_id = any ($1)))";

/// A key is as old as its cart, and there is an index for that.
const KEYS_OF_CARTS: &str =
    "cart_id = any ($1) and created_at = any (array(select created_at from carts where id = any ($1)))";

/// All tables. Erasures go through them in this order, from top to bottom.
pub const TABLES: &[Table] = &[
    Table {
        name: "carts",
        rows: Some(Rows {
            called: "carts",
            of_carts: "id = any ($1)",
            of_carts_by_looking: None,
            told_by: "carts",
            order: "created_at, id",
            end: End::Deleted,
        }),
        columns: &[
            about("id"),
            personal("external_id", "null"),
            personal("customer_email", "'erased@erased.invalid'"),
            personal("customer_name", "'erased'"),
            personal("items", ITEMS_WITHOUT_NAMES),
            about("total_minor"),
            about("currency"),
            about("status"),
            about("status_reason"),
            about("imported"),
            time("abandoned_at"),
            time("recovered_at"),
            time("expired_at"),
            time("created_at"),
            time("updated_at"),
        ],
    },
    Table {
        name: "cart_events",
        rows: Some(Rows {
            called: "timeline",
            of_carts: "cart_id = any ($1)",
            of_carts_by_looking: None,
            told_by: TIMELINE,
            order: "cart_id, at, cart_event_place(kind, link)",
            end: End::Deleted, // by a trigger, with the cart
        }),
        columns: &[
            about("cart_id"),
            time("at"),
            about("kind"),
            about("link"),
            about("why"),
            about("details"),
            other("place", "where it stands among those of its moment"),
        ],
    },
    Table {
        name: "payment_links",
        rows: Some(Rows {
            called: "paymentLinks",
            of_carts: "cart_id = any ($1)",
            of_carts_by_looking: None,
            told_by: "payment_links",
            order: "cart_id, version",
            end: End::Kept { set: "" },
        }),
        columns: &[
            about("cart_id"),
            about("version"),
            about("status"),
            // Stripe's name of the session, by which it is closed there.
            about("session_id"),
            about("payment_intent"),
            about("amount_minor"),
            about("currency"),
            about("livemode"),
            // Its page shows the address.
            secret("url", "null"),
            words("failure", "null"),
            about("failure_code"),
            about("requested_by"),
            about("replacements"),
            time("session_expires_at"),
            time("attempted_at"),
            time("opened_at"),
            time("ended_at"),
            time("created_at"),
            time("updated_at"),
            time("search_began_at"),
            other("search_after", "a place in Stripe's list of all sessions"),
            other("job_id", "a name of ours"),
        ],
    },
    Table {
        name: "recovery_links",
        rows: Some(Rows {
            called: "recoveryLinks",
            of_carts: "cart_id = any ($1)",
            of_carts_by_looking: None,
            told_by: "recovery_links",
            order: "cart_id",
            end: End::Kept { set: "retired_at = $2" },
        }),
        columns: &[
            personal("cart_id", "null"),
            secret("token", "null"),
            other("token_hash", "of a random number; for 30 days, so that its link answers that it is gone"),
            time("expires_at"),
            time("opened_at"),
            about("openings"),
            other("retired_at", "when it was taken from its cart"),
        ],
    },
    Table {
        name: "jobs",
        rows: Some(Rows {
            called: "jobs",
            of_carts: JOBS_OF_CARTS,
            of_carts_by_looking: Some("payload->>'cartId' = any ($1)"),
            told_by: "jobs",
            order: "id",
            end: End::Kept { set: "" },
        }),
        columns: &[
            about("id"),
            about("queue"),
            about("kind"),
            about("payload"), // ids alone
            about("state"),
            about("attempts"),
            other("max_attempts", "how often such a job may be tried"),
            words("last_error", "case when last_error is not null then 'erased' end"),
            words(
                "attempt_log",
                "(select coalesce(jsonb_agg(attempt || '{\"error\": \"erased\"}' order by place), '[]') \
                  from jsonb_array_elements(attempt_log) with ordinality as told (attempt, place))",
            ),
            time("run_at"),
            time("created_at"),
            time("started_at"),
            time("finished_at"),
            other("unique_key", "its kind, and the ids of its payload"),
            other("slot", "of a schedule"),
            other("lease_token", "a random number"),
            other("lease_until", "until when it is a worker's"),
            other("worker", "a process of ours"),
            other("trace_context", "random numbers of a trace (W3C traceparent)"),
        ],
    },
    Table {
        name: "idempotency_keys",
        rows: Some(Rows {
            called: "idempotencyKeys",
            of_carts: KEYS_OF_CARTS,
            of_carts_by_looking: Some("cart_id = any ($1)"),
            told_by: "idempotency_keys",
            order: "created_at, cart_id",
            end: End::Kept { set: "" },
        }),
        columns: &[
            // Who guesses the body could see that he is right. Two bytes still tell a repeat from another body.
            personal("body_hash", "substr(body_hash, 1, 2)"),
            other(
                "key_hash",
                "of the API key and the client's own word; for a day, so that a repeat does not bring the cart back",
            ),
            about("cart_id"),
            time("created_at"),
        ],
    },
    Table {
        name: "stripe_events",
        rows: Some(Rows {
            called: "stripeEvents",
            of_carts: "cart_id = any ($1)",
            of_carts_by_looking: None,
            told_by: "stripe_events",
            order: "received_at, id",
            end: End::Kept { set: "" },
        }),
        // Bodies are not kept. Stripe's ids lead to what Stripe has, for whoever has its key.
        columns: &[
            about("id"),
            about("kind"),
            about("object_id"),
            about("cart_id"),
            about("effect"),
            about("reason"),
            time("created_at"),
            time("received_at"),
        ],
    },
    without_shoppers("queues", &[other("name", "of a queue")]),
    without_shoppers("schedule_slots", &[other("schedule", "its name")]),
    without_shoppers(
        "schedules",
        &[
            other("name", "of a schedule"),
            other("cron", "when it runs"),
            other("catch_up", "a word of ours"),
            other("queue", "its name"),
        ],
    ),
    without_shoppers("rate_limits", &[other("name", "of a rate")]),
    without_shoppers("workers", &[other("name", "of a process of ours"), other("queues", "those it works on")]),
    without_shoppers("cart_day_counts", &[other("currency", "of sums over many carts")]),
    without_shoppers("cart_list_counts", &[]),
    without_shoppers("cart_status_counts", &[]),
    without_shoppers("refused_webhooks", &[]),
    without_shoppers(
        "api_keys",
        &[
            other("name", "of a program or a person of the shop's"),
            other("key_hash", "of a key"),
            other("scopes", "words of ours"),
        ],
    ),
    without_shoppers("ended_sessions", &[other("session_hash", "of a random number")]),
    without_shoppers("erasures", &[other("id", "of a receipt"), other("removed", "numbers")]),
    without_shoppers(
        "_sqlx_migrations",
        &[other("description", "of a migration"), other("checksum", "of a migration")],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_carts_become_is_recognized() {
        let carts = TABLES.iter().find(|table| table.name == "carts").unwrap();
        let email = carts.columns.iter().find(|column| column.name == "customer_email").unwrap();
        let Content::Personal { becomes, .. } = email.content else { panic!("an address is personal") };
        assert_eq!(becomes, format!("'{ERASED_EMAIL}'"));
    }
}
