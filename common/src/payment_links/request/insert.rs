//! Stores requests and their jobs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use queue::EnqueueOptions;

use super::{LinkStatus, PaymentLink, RequestedBy};
use crate::{
    audit::KeyName,
    clock::Clock,
    db::Connection,
    jobs::CreatePaymentLink,
    payment_links::recovery::{self, RecoveryLink},
};

/// The longest session, in minutes. Stripe ends a session after 24 hours at the latest
/// (<https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at>);
/// five minutes less, so that neither clocks nor a slow first attempt exceed the limit.
pub(in crate::payment_links) const LONGEST_SESSION: i32 = 24 * 60 - 5;
/// The shortest session, in minutes. Stripe's minimum is 30; five more for retries.
pub(in crate::payment_links) const SHORTEST_SESSION: i32 = 35;

/// A request to be stored.
pub(super) struct NewRequest {
    pub(super) cart_id: String,
    /// One more than the version of the cart's newest request.
    pub(super) version: i32,
    /// The number of consecutive requests that it replaces.
    pub(super) replacements: i16,
    pub(super) requested_by: RequestedBy,
    /// The API key of the request; `None` if there was none.
    pub(super) key: Option<KeyName>,
    /// When the recovery link stops working from now on; `None` keeps its end.
    pub(super) recovery_end: Option<DateTime<Utc>>,
    /// Whether Stripe has just refused the cart's address.
    pub(super) without_email: bool,
    /// The trace that the job continues.
    pub(super) trace: Option<String>,
}

/// Stores requests of different carts, each with its cart's current amount and currency and the end of the
/// session by Postgres' clock, and their jobs. With [`NewRequest::recovery_end`], makes or extends the
/// recovery link. Returns the requests in their order, with their carts' recovery links.
///
/// An address that Stripe refused for the previous request is left out as long as the cart keeps it.
pub(super) async fn insert(
    conn: &mut Connection,
    new: &[NewRequest],
    delay: Duration,
    clock: &Clock,
) -> sqlx::Result<Vec<(PaymentLink, Option<RecoveryLink>)>> {
    let now = clock.now();
    let jobs: Vec<CreatePaymentLink> =
        new.iter().map(|new| CreatePaymentLink { cart_id: new.cart_id.clone(), version: new.version }).collect();
    let traces: Vec<Option<String>> = new.iter().map(|new| new.trace.clone()).collect();
    let options = EnqueueOptions { delay, ..EnqueueOptions::default() };
    let job_ids = queue::enqueue_traced(conn, &jobs, &traces, options).await?;
    if job_ids.len() < new.len() {
        return Err(sqlx::Error::RowNotFound); // the jobs' unique keys contain the new versions, so no others have them
    }
    let carts: Vec<&str> = new.iter().map(|new| new.cart_id.as_str()).collect();
    let versions: Vec<i32> = new.iter().map(|new| new.version).collect();
    let replacements: Vec<i16> = new.iter().map(|new| new.replacements).collect();
    let requested_by: Vec<&str> = new.iter().map(|new| new.requested_by.as_str()).collect();
    let keys: Vec<Option<&str>> = new.iter().map(|new| new.key.as_ref().map(KeyName::as_str)).collect();
    let without_email: Vec<bool> = new.iter().map(|new| new.without_email).collect();
    let recovery_ends: Vec<Option<DateTime<Utc>>> = new.iter().map(|new| new.recovery_end).collect();
    let (tokens, token_hashes): (Vec<String>, Vec<Vec<u8>>) = new.iter().map(|_| recovery::new_token()).unzip();
    let rows = sqlx::query!(
        r#"
        with new as materialized (
            select *, coalesce($12::timestamptz, now()) as now
            from unnest($1::text[], $2::integer[], $3::uuid[], $4::smallint[], $5::text[], $6::boolean[],
                        $7::timestamptz[], $8::text[], $9::bytea[], $14::text[]) with ordinality
                as new (cart_id, version, job_id, replacements, requested_by, without_email,
                        recovery_end, token, token_hash, key, place)
        ), extended as (
            insert into recovery_links (token_hash, token, cart_id, expires_at)
            select token_hash, token, cart_id, recovery_end from new where recovery_end is not null
            on conflict (cart_id) do update set expires_at = excluded.expires_at
            returning cart_id, token, expires_at
        ), inserted as (
            insert into payment_links
                (cart_id, version, status, job_id, session_expires_at, replacements, requested_by, requested_key, created_at, updated_at,
                 amount_minor, currency, settings)
            select cart_id, version, 'pending', job_id,
                   (select least(greatest(coalesce(new.recovery_end, max(recovery.expires_at)),
                                          now + make_interval(mins => $10)),
                                 now + make_interval(mins => $11))
                    from recovery_links recovery where recovery.cart_id = new.cart_id),
                   replacements, requested_by, key, $13, $13, total_minor, currency,
                   case when without_email or exists (
                       select from payment_links refused
                       where refused.cart_id = new.cart_id and refused.version = new.version - 1
                         and refused.settings @> '{"withoutEmail": true}'
                         and not exists (select from cart_events changed
                                         where changed.cart_id = new.cart_id and changed.kind = 'changed'
                                           and changed.at >= refused.created_at
                                           and changed.details->'fields' ? 'customerEmail'))
                   then '{"withoutEmail": true}'::jsonb end
            from new join carts on carts.id = new.cart_id
            returning cart_id, session_expires_at
        ), noted as (
            insert into audit_log (at, id, key, action, subject)
            select $13, gen_random_uuid(), key, 'payment_link.requested', array[cart_id] from new where key is not null
        )
        select session_expires_at, coalesce(extended.token, recovery.token) as token,
               coalesce(extended.expires_at, recovery.expires_at) as recovery_end
        from new join inserted using (cart_id) left join extended using (cart_id)
        left join recovery_links recovery on recovery.cart_id = new.cart_id
        order by place
        "#,
        &carts as &[&str],
        &versions,
        &job_ids,
        &replacements,
        &requested_by as &[&str],
        &without_email,
        &recovery_ends as &[Option<DateTime<Utc>>],
        &tokens,
        &token_hashes,
        SHORTEST_SESSION,
        LONGEST_SESSION,
        clock.stopped(),
        now,
        &keys as &[Option<&str>],
    )
    .fetch_all(&mut *conn)
    .await?;
    let stored = new.iter().zip(job_ids).zip(rows).map(|((new, job_id), row)| {
        let recovery = row.token.zip(row.recovery_end).map(|(token, expires_at)| RecoveryLink { token, expires_at });
        let link = PaymentLink {
            cart_id: new.cart_id.clone(),
            version: new.version,
            status: LinkStatus::Pending,
            job_id,
            session_expires_at: row.session_expires_at,
            replacements: new.replacements,
            attempted_at: None,
            session_id: None,
            url: None,
            failure: None,
            updated_at: now,
        };
        (link, recovery)
    });
    Ok(stored.collect())
}
