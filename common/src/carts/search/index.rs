//! The table by which lists find carts (`migrations/20261129000008_cart_search.sql`).

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::text::{LINK_FAILED, RECOVERED, TextToFind, currency_gram, grams, of_cart};
use crate::db::Connection;

/// Carts in a batch. Changes of these carts wait for it.
const BATCH: i64 = 2_000;

/// The maximum number of carts that are read one by one.
pub(crate) const MAX_UNINDEXED: i64 = 20_000;

/// The ids of the carts that are not in the index, or as they were; at most one more than [`MAX_UNINDEXED`].
pub(crate) async fn unindexed(conn: &mut Connection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select distinct unnest(cart_ids) as "id!" from cart_search_changes limit $1"#,
        MAX_UNINDEXED + 1,
    )
    .fetch_all(conn)
    .await
}

/// Grams by which a text is looked up. More take longer to look up than the few carts that they leave out.
const LOOKED_UP: i32 = 3;

/// How a text is looked up.
#[derive(Debug, Default)]
pub(crate) struct TextLookup {
    /// Its rarest grams, by Postgres' statistics. Of a frequent text only one: Postgres takes grams for independent, and
    /// would expect too few carts with three of them.
    pub grams: Vec<i32>,
    /// Whether more than a tenth of the carts on 20 pages have the text.
    pub is_frequent: bool,
}

/// How the text is looked up now.
pub(crate) async fn look_up(conn: &mut Connection, text: &TextToFind) -> sqlx::Result<TextLookup> {
    sqlx::query_as!(
        TextLookup,
        r#"
        select (array_agg(gram order by coalesce(share, 0), gram))[1:case when is_frequent then 1 else $2::integer end] as "grams!",
               is_frequent as "is_frequent!"
        from unnest($1::integer[]) as gram
        left join (
            select unnest(most_common_elems::text::integer[]) as common, unnest(most_common_elem_freqs) as share
            from pg_stats
            where tablename = 'cart_search' and attname = 'grams'
              and schemaname = (select relnamespace::regnamespace::text from pg_class where oid = 'cart_search'::regclass)
        ) statistics on common = gram
        cross join (select count(*) filter (where strpos(text, $3) > 0) * 10 > count(*) as is_frequent
                    from cart_search tablesample system (least(100, 2000 * 8192.0 / greatest(pg_relation_size('cart_search'), 1)))) sample
        group by is_frequent
        "#,
        &text.grams(),
        LOOKED_UP,
        text.folded(),
    )
    .fetch_one(conn)
    .await
}

/// The ids of those among these carts that have the text.
pub(crate) async fn with_text(conn: &mut Connection, ids: &[String], text: &TextToFind) -> sqlx::Result<Vec<String>> {
    let carts = read(conn, ids).await?;
    Ok(carts.into_iter().filter(|cart| text.is_in(&cart.text)).map(|cart| cart.id).collect())
}

/// Indexes a batch of the carts that were stored or changed; returns their number, which is 0 when the index has
/// all, or when another session is at it. Must run in a transaction.
pub async fn index_changes(conn: &mut Connection) -> sqlx::Result<usize> {
    // Two at once could store an old text after a new one.
    let alone = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock(hashtext('cart_search')) as "alone!""#);
    if !alone.fetch_one(&mut *conn).await? {
        return Ok(0);
    }
    // A change that is committed meanwhile leaves a row of its own. Rows have at most 100 ids.
    let ids = sqlx::query_scalar!(
        r#"
        with done as (
            delete from cart_search_changes where ctid = any (array(
                select ctid
                from (select ctid, sum(cardinality(cart_ids)) over (order by ctid) as carts
                      from (select ctid, cart_ids from cart_search_changes limit $1) first) first
                where carts <= $1))
            returning cart_ids
        )
        select distinct unnest(cart_ids) as "id!" from done order by 1
        "#,
        BATCH,
    )
    .fetch_all(&mut *conn)
    .await?;
    if ids.is_empty() {
        return Ok(0);
    }
    let carts = lock_and_read(conn, &ids).await?;
    // Another transaction that changes a cart may hold its row, and wait for another row of this batch.
    sqlx::query!(
        r#"
        delete from cart_search where cart_id in (
            select cart_id from cart_search where cart_id = any ($1) order by cart_id for update skip locked)
        "#,
        &ids,
    )
    .execute(&mut *conn)
    .await?;
    let left = sqlx::query_scalar!("select cart_id from cart_search where cart_id = any ($1)", &ids);
    let left: HashSet<String> = left.fetch_all(&mut *conn).await?.into_iter().collect();
    let locked: HashSet<&str> = carts.iter().map(|cart| cart.id.as_str()).collect();
    let there = sqlx::query_scalar!("select id from carts where id = any ($1)", &ids).fetch_all(&mut *conn).await?;
    let again: Vec<String> =
        there.into_iter().filter(|id| left.contains(id) || !locked.contains(id.as_str())).collect();
    // Such a cart is left for later, also if that transaction is rolled back.
    if !again.is_empty() {
        sqlx::query!("insert into cart_search_changes (cart_ids) values ($1)", &again).execute(&mut *conn).await?;
    }
    let carts: Vec<Indexed> = carts.into_iter().filter(|cart| !left.contains(&cart.id)).collect();
    fn column<T>(carts: &[Indexed], value: impl Fn(&Indexed) -> T) -> Vec<T> {
        carts.iter().map(value).collect()
    }
    sqlx::query!(
        r#"
        insert into cart_search (cart_id, text, grams, currency, recovered, link_failed, value, created_at, abandoned_at)
        select id, text, grams::integer[], currency, recovered, link_failed, value, created_at, abandoned_at
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::boolean[], $7::bigint[],
                    $8::timestamptz[], $9::timestamptz[])
            as new (id, text, grams, currency, recovered, link_failed, value, created_at, abandoned_at)
        "#,
        &column(&carts, |cart| cart.id.clone()),
        &column(&carts, |cart| cart.text.clone()),
        // Arrays of arrays must be of one length, so each is sent as text.
        &column(&carts, |cart| {
            let mut grams = grams(&cart.text);
            grams.push(currency_gram(&cart.currency));
            grams.extend(cart.recovered.then_some(RECOVERED));
            grams.extend(cart.link_failed.then_some(LINK_FAILED));
            array(&grams)
        }),
        &column(&carts, |cart| cart.currency.clone()),
        &column(&carts, |cart| cart.recovered),
        &column(&carts, |cart| cart.link_failed),
        &column(&carts, |cart| cart.value),
        &column(&carts, |cart| cart.created_at),
        &column(&carts, |cart| cart.abandoned_at),
    )
    .execute(conn)
    .await?;
    Ok(ids.len() - again.len())
}

/// An array in Postgres' text form.
fn array(numbers: &[i32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

/// What the index has of a cart.
struct Indexed {
    id: String,
    text: String,
    currency: String,
    recovered: bool,
    link_failed: bool,
    value: i64,
    created_at: DateTime<Utc>,
    abandoned_at: DateTime<Utc>,
}

/// Reads the carts that exist, and keeps them from being deleted. Those that are locked already are left out.
async fn lock_and_read(conn: &mut Connection, ids: &[String]) -> sqlx::Result<Vec<Indexed>> {
    let free =
        sqlx::query_scalar!("select id from carts where id = any ($1) order by id for key share skip locked", ids);
    let free = free.fetch_all(&mut *conn).await?;
    read(conn, &free).await
}

/// Has all carts indexed again, and deletes the rows of carts that are gone, for example after a restore without
/// triggers. Returns the number of carts.
pub async fn index_all_again(conn: &mut Connection) -> sqlx::Result<i64> {
    sqlx::query!("delete from cart_search where not exists (select from carts where id = cart_id)")
        .execute(&mut *conn)
        .await?;
    sqlx::query_scalar!(
        r#"
        with stored as (
            insert into cart_search_changes (cart_ids)
            select array_agg(id) from (select id, (row_number() over () - 1) / 100 as part from carts) carts group by part
            returning cardinality(cart_ids) as carts
        )
        select coalesce(sum(carts), 0)::bigint as "carts!" from stored
        "#
    )
    .fetch_one(conn)
    .await
}

/// Reads the carts that exist.
async fn read(conn: &mut Connection, ids: &[String]) -> sqlx::Result<Vec<Indexed>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let carts = sqlx::query!(
        r#"
        select id, customer_name, customer_email, external_id, currency, cart_value(total_minor, currency) as "value!",
               status = 'recovered' as "recovered!", created_at, abandoned_at,
               coalesce((select link.status in ('failed', 'payment_failed', 'settling') from payment_links link
                         where link.cart_id = id order by link.version desc limit 1), false) as "link_failed!"
        from carts where id = any ($1)
        "#,
        ids,
    );
    let carts = carts.fetch_all(conn).await?.into_iter().map(|cart| Indexed {
        text: of_cart(cart.customer_name.as_deref(), &cart.customer_email, cart.external_id.as_deref()),
        id: cart.id,
        currency: cart.currency,
        recovered: cart.recovered,
        link_failed: cart.link_failed,
        value: cart.value,
        created_at: cart.created_at,
        abandoned_at: cart.abandoned_at,
    });
    Ok(carts.collect())
}
