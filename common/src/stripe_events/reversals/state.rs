//! Reversals as Stripe reports them: money of a payment that went back, or may.

use chrono::{DateTime, Utc};

use crate::{
    money::Currency,
    payment_links::Mismatch,
    stripe_events::{
        event::{Kind, StripeEvent},
        locking::Link,
    },
    timeline::Note,
};

/// The state of the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(super) enum State {
    /// The amount is the sum of a charge's refunds.
    Refunded,
    /// The amount is that of a refund that failed or was cancelled.
    Failed,
    /// A dispute or inquiry is open.
    Open,
    /// A dispute was closed, and no money is gone.
    Won,
    /// A dispute was lost.
    Lost,
}

impl State {
    /// The state of a dispute with this status
    /// (<https://docs.stripe.com/api/disputes/object#dispute_object-status>). A closed inquiry
    /// withdraws nothing. The refund of a `charge_refunded` one, as old API versions name it, counts
    /// as a refund.
    pub(super) fn of_dispute(status: &str) -> Self {
        match status {
            "lost" => Self::Lost,
            "won" | "warning_closed" | "prevented" | "charge_refunded" => Self::Won,
            _ => Self::Open,
        }
    }
}

/// A row of `payment_reversals`, or what an event says for one.
#[derive(Debug, Clone)]
pub(super) struct Reversal {
    /// `ch_…`, `re_…` or `du_…`
    pub(super) id: String,
    pub(super) payment_intent: String,
    pub(super) state: State,
    /// In minor units of `currency`.
    pub(super) amount_minor: i64,
    pub(super) currency: Currency,
    pub(super) livemode: Option<bool>,
    /// When Stripe created the newest event.
    pub(super) at: DateTime<Utc>,
    /// Whether the row belongs to a payment link.
    pub(super) matched: bool,
}

impl Reversal {
    /// Reads an event of a kind that is a reversal.
    ///
    /// # Errors
    /// The first field that is missing or of no use.
    pub(super) fn read(event: &StripeEvent, kind: Kind) -> Result<Self, Mismatch> {
        let object = &event.object;
        let (object_type, state) = match kind {
            Kind::Disputed => {
                let status = object.status.as_deref().filter(|status| !status.is_empty()).ok_or(Mismatch::Status)?;
                ("dispute", State::of_dispute(status))
            }
            Kind::RefundFailed => ("refund", State::Failed),
            _ => ("charge", State::Refunded),
        };
        let (id, payment_intent) = object
            .id
            .clone()
            .zip(object.payment_intent.clone())
            .filter(|_| object.object.as_deref() == Some(object_type))
            .ok_or(Mismatch::OtherObject)?;
        let currency = object.reported.currency.as_deref().and_then(|code| code.parse::<Currency>().ok());
        let currency = currency.ok_or(Mismatch::OtherCurrency)?;
        let amount_minor = object.reported.amount.and_then(|amount| currency.of_stripe(amount));
        Ok(Self {
            id,
            payment_intent,
            state,
            // No payment is larger than a cart. The bound keeps sums from overflowing.
            amount_minor: amount_minor
                .filter(|minor| (0..=Currency::MAX_MINOR).contains(minor))
                .ok_or(Mismatch::OtherAmount)?,
            currency,
            livemode: object.reported.livemode,
            at: event.created_at,
            matched: false,
        })
    }

    /// Compares it with the link whose PaymentIntent it names. The amount may be any: a dispute may
    /// be about more than the payment
    /// (<https://docs.stripe.com/disputes/how-disputes-work#disputed-amount>).
    pub(super) fn check(&self, link: &Link) -> Result<(), Mismatch> {
        if link.currency.as_deref().is_some_and(|currency| currency != self.currency.code()) {
            return Err(Mismatch::OtherCurrency);
        }
        if link.livemode.is_some() && link.livemode != self.livemode {
            return Err(Mismatch::OtherLivemode);
        }
        Ok(())
    }
}

/// The sum of a payment's refunds, in minor units. The amount that Stripe returns with a charge has
/// no refund that failed before; a failure that came after it is subtracted here
/// (<https://docs.stripe.com/refunds#failed-refunds>).
fn refunds(rows: &[&Reversal]) -> i64 {
    let of = |state| rows.iter().filter(move |row| row.state == state);
    let known_at = of(State::Refunded).map(|row| row.at).max();
    let refunded: i64 = of(State::Refunded).map(|row| row.amount_minor).sum();
    let failed: i64 = of(State::Failed).filter(|row| Some(row.at) >= known_at).map(|row| row.amount_minor).sum();
    (refunded - failed).max(0)
}

/// Refunds and lost disputes in minor units; `None` if there are none.
pub(super) fn returned(rows: &[&Reversal]) -> Option<i64> {
    let lost: i64 = rows.iter().filter(|row| row.state == State::Lost).map(|row| row.amount_minor).sum();
    Some(refunds(rows) + lost).filter(|minor| *minor > 0)
}

/// The timeline's notes of what happened between these states of a payment's rows.
pub(super) fn notes<'a>(before: &[&Reversal], after: &[&'a Reversal]) -> Vec<Note<'a>> {
    let Some(currency) = after.first().map(|row| row.currency) else { return Vec::new() };
    let change = refunds(after) - refunds(before);
    let mut notes = Vec::new();
    if change != 0 {
        let kind = if change > 0 { "refunded" } else { "refund_failed" };
        notes.push(Note { kind, amount: currency.amount(change.abs()), currency, dispute: None });
    }
    for row in after {
        let kind = match row.state {
            State::Open => "dispute_opened",
            State::Won => "dispute_won",
            State::Lost => "dispute_lost",
            State::Refunded | State::Failed => continue,
        };
        if before.iter().any(|known| known.id == row.id && known.state == row.state) {
            continue;
        }
        notes.push(Note { kind, amount: currency.amount(row.amount_minor), currency, dispute: Some(&row.id) });
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, state: State, amount_minor: i64, second: i64) -> Reversal {
        Reversal {
            id: id.to_owned(),
            payment_intent: "pi_1".to_owned(),
            state,
            amount_minor,
            currency: Currency::USD,
            livemode: Some(false),
            at: DateTime::from_timestamp(second, 0).unwrap(),
            matched: true,
        }
    }

    #[test]
    fn a_failed_refund_is_subtracted_once() {
        let charge = row("ch_1", State::Refunded, 5_000, 10);
        assert_eq!(returned(&[&charge]), Some(5_000));
        let sum = |failed_at| refunds(&[&charge, &row("re_1", State::Failed, 2_000, failed_at)]);
        assert_eq!((sum(11), sum(10)), (3_000, 3_000), "after the amount was known");
        assert_eq!(sum(9), 5_000, "the amount is without it");
        let more = row("re_1", State::Failed, 9_000, 11);
        assert_eq!((returned(&[&charge, &more]), returned(&[&more]), returned(&[])), (None, None, None));
    }

    #[test]
    fn lost_disputes_count_beside_refunds() {
        let charge = row("ch_1", State::Refunded, 5_000, 10);
        for (state, sum) in [(State::Open, 5_000), (State::Won, 5_000), (State::Lost, 14_998)] {
            assert_eq!(returned(&[&charge, &row("du_1", state, 9_998, 20)]), Some(sum), "{state:?}");
        }
        let both = [&row("du_1", State::Lost, 5_000, 20), &row("du_2", State::Lost, 1, 20)];
        assert_eq!(returned(&both), Some(5_001));
    }

    #[test]
    fn a_change_is_told_once() {
        let kinds = |before: &[&Reversal], after: &[&Reversal]| {
            let notes = notes(before, after);
            notes.iter().map(|note| format!("{} {}", note.kind, note.amount)).collect::<Vec<_>>()
        };
        let (half, all) = (row("ch_1", State::Refunded, 4_999, 1), row("ch_1", State::Refunded, 9_998, 2));
        let failed = row("re_1", State::Failed, 4_999, 3);
        assert_eq!(kinds(&[], &[&half]), ["refunded 49.99"]);
        assert_eq!(kinds(&[&half], &[&all]), ["refunded 49.99"]);
        assert_eq!(kinds(&[&all], &[&all, &failed]), ["refund_failed 49.99"]);
        assert!(kinds(&[&all, &failed], &[&all, &failed]).is_empty() && kinds(&[], &[]).is_empty());
        let (open, lost) = (row("du_1", State::Open, 9_998, 1), row("du_1", State::Lost, 9_998, 2));
        assert_eq!(kinds(&[], &[&open]), ["dispute_opened 99.98"]);
        assert_eq!(kinds(&[&open], &[&lost]), ["dispute_lost 99.98"]);
        assert_eq!(kinds(&[&lost], &[&row("du_1", State::Won, 9_998, 3)]), ["dispute_won 99.98"]);
    }

    #[test]
    fn unknown_states_of_disputes_are_open() {
        for (status, state) in [
            ("needs_response", State::Open),
            ("warning_under_review", State::Open),
            ("something_new", State::Open),
            ("warning_closed", State::Won),
            ("prevented", State::Won),
            ("won", State::Won),
            ("lost", State::Lost),
        ] {
            assert_eq!(State::of_dispute(status), state, "{status}");
        }
    }
}
