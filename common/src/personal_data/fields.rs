//! All columns that can hold personal data of shoppers. Erasure, export and retention are based on
//! this list.
//!
//! A test compares the list with the schema: a new column fails the test until it is classified
//! here.

use super::treatment::{OnErase, Rows, Table, free_text, other, personal, related, secret, time, without_shoppers};

/// The address of an erased cart. Nobody can have it (RFC 2606).
pub const ERASED_EMAIL: &str = "erased@erased.invalid";
/// The replacement for an erased name.
pub const ERASED: &str = "erased";

/// Keeps the prices, but not the product names, which may name a person ("Mug for Ada").
const ITEMS_WITHOUT_NAMES: &str = "(select coalesce(json_agg(json_strip_nulls(json_build_object('name', 'erased', \
     'quantity', line.item->'quantity', 'price', line.item->'price', 'total', line.item->'total')) order by line.place), '[]') \
     from json_array_elements(case json_typeof(items) when 'array' then items else '[]' end) with ordinality as line (item, place))";

/// Keeps the amounts, but not the names, such as a coupon for one person.
const ADJUSTMENTS_WITHOUT_NAMES: &str = "(select coalesce(json_agg(json_strip_nulls(json_build_object('name', 'erased', \
     'amount', line.adjustment->'amount')) order by line.place), '[]') \
     from json_array_elements(case json_typeof(adjustments) when 'array' then adjustments else '[]' end) \
     with ordinality as line (adjustment, place))";

/// The timeline: events derived from the rows of carts and their links, and those in `cart_events`.
/// Without the names of keys, which may be those of the shop's staff.
const TIMELINE: &str = "(select distinct on (cart_id, at, cart_event_place(kind, link)) \
     cart_id, at, kind, link, why, nullif(details - 'key', '{}') as details from (\
     select cart.id as cart_id, line.* from carts cart, cart_row_events(cart) line \
     union all select asked.cart_id, line.* from payment_links asked, payment_link_row_events(asked) line \
     union all select cart_id, at, kind, link, why, details from cart_events) event \
     order by cart_id, at, cart_event_place(kind, link))";

/// All tables, in the order in which erasures process them.
pub const TABLES: &[Table] = &[
    Table {
        name: "carts",
        rows: Some(Rows {
            label: "carts",
            of_carts: "id = any ($1)",
            of_carts_by_scan: None,
            export_from: "carts",
            order: "created_at, id",
            on_erase: OnErase::Delete,
        }),
        columns: &[
            related("id"),
            personal("external_id", "null"),
            personal("customer_email", "'erased@erased.invalid'"),
            personal("customer_name", "'erased'"),
            personal("items", ITEMS_WITHOUT_NAMES),
            personal("adjustments", ADJUSTMENTS_WITHOUT_NAMES),
            related("total_minor"),
            related("paid_minor"),
            related("refunded_minor"),
            personal("locale", "null"),
            personal("accepts_marketing", "null"),
            personal("metadata", "'{}'"),
            related("currency"),
            related("status"),
            time("status_changed_at"),
            related("status_reason"),
            other("status_key", "the name of a key"),
            related("imported"),
            other("created_key", "the name of a key"),
            time("abandoned_at"),
            time("recovered_at"),
            time("expired_at"),
            time("anonymized_at"),
            time("created_at"),
            time("updated_at"),
        ],
    },
    Table {
        name: "cart_events",
        rows: Some(Rows {
            label: "timeline",
            of_carts: "cart_id = any ($1)",
            of_carts_by_scan: None,
            export_from: TIMELINE,
            order: "cart_id, at, cart_event_place(kind, link)",
            on_erase: OnErase::Delete, // by a trigger, with the cart
        }),
        columns: &[
            related("cart_id"),
            time("at"),
            related("kind"),
            related("link"),
            related("why"),
            related("details"),
            other("place", "where it stands among those of its moment"),
        ],
    },
    Table {
        name: "payment_links",
        rows: Some(Rows {
            label: "paymentLinks",
            of_carts: "cart_id = any ($1)",
            of_carts_by_scan: None,
            export_from: "payment_links",
            order: "cart_id, version",
            on_erase: OnErase::Redact { set: "" },
        }),
        columns: &[
            related("cart_id"),
            related("version"),
            related("status"),
            // Stripe's id of the session, needed to close it.
            related("session_id"),
            related("payment_intent"),
            related("refunded_minor"),
            related("amount_minor"),
            related("paid_minor"),
            related("currency"),
            related("livemode"),
            // The page shows the e-mail address.
            secret("url", "null"),
            free_text("failure", "null"),
            related("failure_code"),
            related("requested_by"),
            other("requested_key", "the name of a key"),
            related("replacements"),
            related("settings"),
            time("session_expires_at"),
            time("attempted_at"),
            time("opened_at"),
            time("ended_at"),
            time("paid_at"),
            time("asked_at"),
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
            label: "recoveryLinks",
            of_carts: "cart_id = any ($1)",
            of_carts_by_scan: None,
            export_from: "recovery_links",
            order: "cart_id",
            on_erase: OnErase::Redact { set: "retired_at = $2" },
        }),
        columns: &[
            personal("cart_id", "null"),
            secret("token", "null"),
            other("token_hash", "of a random number; for 30 days, so that its link is reported as gone"),
            time("expires_at"),
            time("opened_at"),
            related("openings"),
            other("retired_at", "when it was taken from its cart"),
        ],
    },
    Table {
        name: "jobs",
        rows: Some(Rows {
            label: "jobs",
            of_carts: "subject = any ($1)",
            of_carts_by_scan: None,
            export_from: "jobs",
            order: "id",
            on_erase: OnErase::Redact { set: "" },
        }),
        columns: &[
            related("id"),
            related("queue"),
            related("kind"),
            related("payload"), // ids alone
            related("subject"),
            related("state"),
            related("attempts"),
            other("max_attempts", "how often such a job may be tried"),
            other("interruptions", "how often its worker was lost"),
            free_text("last_error", "case when last_error is not null then 'erased' end"),
            free_text(
                "attempt_log",
                "(select coalesce(jsonb_agg(attempt || '{\"error\": \"erased\"}' order by place), '[]') \
                  from jsonb_array_elements(attempt_log) with ordinality as entry (attempt, place))",
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
            label: "idempotencyKeys",
            of_carts: "cart_id = any ($1)",
            of_carts_by_scan: None,
            export_from: "idempotency_keys",
            order: "created_at, cart_id",
            on_erase: OnErase::Redact { set: "" },
        }),
        columns: &[
            // A full hash would confirm a guess of the body. Two bytes are enough to distinguish a
            // repeated request from another body.
            personal("body_hash", "substr(body_hash, 1, 2)"),
            other(
                "key_hash",
                "of the API key and the client's own value; for a day, so that a repeat does not bring the cart back",
            ),
            related("cart_id"),
            time("created_at"),
        ],
    },
    Table {
        name: "stripe_events",
        rows: Some(Rows {
            label: "stripeEvents",
            of_carts: "cart_id = any ($1)",
            of_carts_by_scan: None,
            export_from: "stripe_events",
            order: "received_at, id",
            on_erase: OnErase::Redact { set: "" },
        }),
        // The bodies of events are not stored. With the secret key, Stripe's ids lead to its data.
        columns: &[
            related("id"),
            related("kind"),
            related("object_id"),
            related("cart_id"),
            related("effect"),
            related("reason"),
            time("created_at"),
            time("received_at"),
        ],
    },
    Table {
        name: "payment_reversals",
        rows: Some(Rows {
            label: "reversals",
            of_carts: "cart_id = any ($1)",
            of_carts_by_scan: None,
            export_from: "payment_reversals",
            order: "at, id",
            on_erase: OnErase::Redact { set: "" },
        }),
        columns: &[
            related("id"),
            related("payment_intent"),
            related("cart_id"),
            related("link"),
            related("state"),
            related("amount_minor"),
            related("currency"),
            related("livemode"),
            time("at"),
            time("received_at"),
        ],
    },
    // Copies of values in `carts`. Triggers delete them when a value changes and when the cart is deleted.
    without_shoppers(
        "cart_search",
        &[
            other("cart_id", "the cart's"),
            other("text", "copied from carts, without case and accents"),
            other("grams", "numbers computed from text, currency, recovered and link_failed"),
            other("currency", "copied from carts"),
        ],
    ),
    without_shoppers("cart_search_changes", &[other("cart_ids", "the ids of carts")]),
    without_shoppers("queues", &[other("name", "of a queue")]),
    without_shoppers("schedule_slots", &[other("schedule", "its name")]),
    without_shoppers(
        "schedules",
        &[
            other("name", "of a schedule"),
            other("cron", "when it runs"),
            other("catch_up", "a word of ours"),
            other("queue", "its name"),
            other("job", "a job without a cart"),
        ],
    ),
    without_shoppers("rate_limits", &[other("name", "of a rate")]),
    without_shoppers("workers", &[other("name", "of a process of ours"), other("queues", "those it works on")]),
    without_shoppers("cart_counts", &[other("currency", "of sums over many carts")]),
    without_shoppers(
        "cart_count_deltas",
        &[other("currency", "of sums over many carts"), other("xid", "a transaction")],
    ),
    without_shoppers(
        "cart_day_counts",
        &[other("zone", "a time zone of the shop's"), other("currency", "of sums over many carts")],
    ),
    without_shoppers("cart_totals", &[other("currency", "of sums over many carts")]),
    without_shoppers(
        "cart_count_progress",
        &[
            other("horizon", "a transaction"),
            other("written_by", "a transaction"),
            other("zones", "time zones of the shop's"),
        ],
    ),
    without_shoppers("refused_webhooks", &[]),
    without_shoppers(
        "api_keys",
        &[
            other("name", "of a program or a person of the shop's"),
            other("key_hash", "of a key"),
            other("scopes", "names from a fixed list"),
        ],
    ),
    without_shoppers(
        "audit_log",
        &[
            other("key", "the name of a key"),
            other("action", "a word of ours"),
            other("subject", "ids; that of a deleted cart leads to nobody"),
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
    use super::{super::treatment::Content, *};

    #[test]
    fn anonymized_carts_are_recognized() {
        let carts = TABLES.iter().find(|table| table.name == "carts").unwrap();
        let email = carts.columns.iter().find(|column| column.name == "customer_email").unwrap();
        let Content::Personal { becomes, .. } = email.content else { panic!("an address is personal") };
        assert_eq!(becomes, format!("'{ERASED_EMAIL}'"));
    }
}
