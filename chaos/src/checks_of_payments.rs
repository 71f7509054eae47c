//! The checks of payments, refunds and disputes: the books agree with the fake Stripe's.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use crate::{members::CLOCK_OFF, report::Report, stored_cart::StoredCart};
use sandbox::stripe::{PaymentStatus, Session};

pub(crate) async fn all(
    sessions: &[Session],
    carts: &HashMap<&str, &StoredCart>,
    session: &mut PgConnection,
    report: &mut Report,
) -> Result<()> {
    payments(sessions, carts, session, report).await?;
    refunds(sessions, carts, session, report).await
}

/// A stored payment link.
#[derive(Debug, sqlx::FromRow)]
struct Link {
    cart_id: String,
    version: i32,
    status: String,
    paid_minor: Option<i64>,
    paid_at: Option<DateTime<Utc>>,
    /// Whether the cart, if this payment recovered it, has the payment's time.
    cart_has_payment_time: bool,
}

impl Link {
    /// Whether the payment of a session is stored, to the cent and at its own time. Stripe's times
    /// have whole seconds. A payment is never in the future of the process that stores it, whose clock
    /// may be slow.
    fn counts(&self, session: &Session) -> bool {
        let tolerance = TimeDelta::seconds(2);
        let (Some(stored), Some(paid)) = (self.paid_at, session.paid_at) else { return false };
        let at_its_time = stored - paid <= tolerance && paid - stored <= TimeDelta::seconds(CLOCK_OFF) + tolerance;
        at_its_time
            && self.cart_has_payment_time
            && self.status == "paid"
            && self.paid_minor == Some(session.amount_total)
    }
}

async fn payments(
    sessions: &[Session],
    carts: &HashMap<&str, &StoredCart>,
    session: &mut PgConnection,
    report: &mut Report,
) -> Result<()> {
    let paid: Vec<&Session> = sessions.iter().filter(|session| session.payment_status == PaymentStatus::Paid).collect();
    let links: Vec<Link> = sqlx::query_as(
        "select cart_id, version, link.status, link.paid_minor, paid_at,
                coalesce(recovered_at = greatest(paid_at, abandoned_at) or status_reason <> 'payment', true) as cart_has_payment_time
         from payment_links link left join carts on carts.id = cart_id",
    )
    .fetch_all(session)
    .await?;
    let links: HashMap<(&str, String), &Link> =
        links.iter().map(|link| ((link.cart_id.as_str(), link.version.to_string()), link)).collect();
    let (mut found, mut payers, mut of_links) = (Vec::new(), HashSet::new(), HashSet::new());
    for session in &paid {
        let cart = session.client_reference_id.as_deref().unwrap_or_default();
        let version = session.metadata.get("link_version").cloned().unwrap_or_default();
        if !payers.insert(cart) {
            found.push(format!("{cart} was paid twice"));
        }
        if let Some(row) = carts.get(cart).filter(|row| row.status != "recovered") {
            found.push(format!("{} was paid, and its cart is {row:?}", session.id));
        }
        let link = (cart, version);
        if !links.get(&link).is_some_and(|link| link.counts(session)) {
            found.push(format!(
                "{} was paid at {:?}, and its link is {:?}",
                session.id,
                session.paid_at,
                links.get(&link)
            ));
        }
        of_links.insert(link);
    }
    let unpaid = links.iter().filter(|(link, row)| row.status == "paid" && !of_links.contains(*link));
    found.extend(unpaid.map(|(link, _)| format!("{link:?} counts as paid, and Stripe has no money")));
    let by_payment = carts.values().filter(|row| row.status_reason.as_deref() == Some("payment"));
    let never_paid = by_payment.filter(|row| !payers.contains(row.id.as_str()));
    found.extend(never_paid.map(|row| format!("{} counts as recovered by a payment, and Stripe has none", row.id)));
    report.check("every payment counts, once, to the cent and at its time", format!("{} payments", paid.len()), &found);
    Ok(())
}

/// Refunds and lost disputes of the payments that recovered a cart, to the cent.
async fn refunds(
    sessions: &[Session],
    carts: &HashMap<&str, &StoredCart>,
    conn: &mut PgConnection,
    report: &mut Report,
) -> Result<()> {
    let mut returned: HashMap<&str, i64> = HashMap::new();
    for session in sessions {
        *returned.entry(session.client_reference_id.as_deref().unwrap_or_default()).or_default() +=
            session.charge.returned();
    }
    let mut found = Vec::new();
    for (id, row) in carts {
        let by_payment = row.status_reason.as_deref() == Some("payment");
        let expected = returned.get(id).copied().filter(|cents| by_payment && *cents > 0);
        if row.refunded_minor != expected {
            let stored: String = sqlx::query_scalar(
                "select (select string_agg(format('link %s %s %s %s', version, status, payment_intent, refunded_minor), ', ')
                         from payment_links where cart_id = $1)
                     || coalesce((select string_agg(', ' || reversal::text, '') from payment_reversals reversal where cart_id = $1), '')",
            )
            .bind(id)
            .fetch_one(&mut *conn)
            .await?;
            let (has, paid) = (row.refunded_minor, sessions.iter().filter(|session| session.charge.returned() > 0));
            let intents: Vec<_> = paid
                .filter(|session| session.client_reference_id.as_deref() == Some(*id))
                .map(|session| session.payment_intent.clone())
                .collect();
            found.push(format!("{id} has {has:?} cents refunded, and Stripe {expected:?} of {intents:?}: {stored}"));
        }
    }
    let cents: i64 = returned.values().sum();
    report.check("refunds and lost disputes agree with Stripe's", format!("{cents} cents"), &found);
    Ok(())
}
