//! Changes of the total of a session after its creation: promotion codes
//! (<https://docs.stripe.com/payments/checkout/discounts>) and Stripe Tax
//! (<https://docs.stripe.com/tax/checkout>).

use anyhow::{Result, ensure};

use super::{
    FakeStripe, Shared,
    currencies::{minimum, multiple},
    lock,
    sessions::{PaymentStatus, Session, SessionStatus},
};
use crate::postgres::random_word;

/// The promotion codes of the account, and how many percent each takes off.
const PROMOTION_CODES: [(&str, i64); 3] = [("TENOFF", 10), ("ALMOST", 99), ("FREE", 100)];
/// The tax on every address, in percent of the discounted amount. Prices are without tax.
const TAX_PERCENT: i64 = 20;

/// This share of the amount, rounded to what the currency can express.
fn share(amount: i64, percent: i64, currency: &str) -> i64 {
    let step = multiple(currency);
    (amount * percent + 50 * step) / (100 * step) * step
}

impl Session {
    /// The sum of the lines, before discounts and taxes.
    pub fn amount_subtotal(&self) -> i64 {
        self.amount_total + self.amount_discount - self.amount_tax
    }

    /// The discount of a code on this session. A code that leaves less than Stripe's minimum, but not
    /// nothing, is refused: an amount of 0 is no charge
    /// (<https://docs.stripe.com/payments/checkout/no-cost-orders>).
    fn discount(&self, code: &str) -> Result<i64> {
        ensure!(self.options.promotion_codes, "this session has no promotion codes");
        ensure!(self.amount_discount == 0, "a session has one promotion code");
        let percent = PROMOTION_CODES.iter().find_map(|(known, percent)| (*known == code).then_some(*percent));
        let discount = percent.map(|percent| share(self.amount_subtotal(), percent, &self.currency));
        let left = discount.map(|discount| self.amount_total - discount);
        let Some(discount) = discount.filter(|_| left.is_some_and(|left| left == 0 || left >= minimum(&self.currency)))
        else {
            anyhow::bail!("This code is invalid.")
        };
        Ok(discount)
    }

    /// Completes the session by a payment in this state. Adds the tax, because the address is known
    /// now. Nothing is paid for an amount of 0, and there is no PaymentIntent.
    pub(super) fn complete_with(&mut self, payment_status: PaymentStatus) {
        if self.options.automatic_tax {
            self.amount_tax = share(self.amount_total, TAX_PERCENT, &self.currency);
            self.amount_total += self.amount_tax;
        }
        self.status = SessionStatus::Complete;
        if self.amount_total == 0 {
            self.payment_status = PaymentStatus::NoPaymentRequired;
        } else {
            self.payment_status = payment_status;
            self.payment_intent = Some(format!("pi_{}", random_word()));
        }
    }
}

impl Shared {
    pub(super) fn redeem(&self, id: &str, code: &str) -> Result<Session> {
        let mut sessions = lock(&self.sessions);
        let discount = sessions.find(id).map_or(Ok(0), |session| session.discount(code))?;
        let redeemed = sessions.change(
            id,
            |session| session.status == SessionStatus::Open,
            |session| {
                session.amount_discount = discount;
                session.amount_total -= discount;
            },
        )?;
        drop(sessions);
        self.save();
        Ok(redeemed)
    }
}

impl FakeStripe {
    /// Enters a promotion code on the session's page: `TENOFF` takes 10 % off, `FREE` all, and
    /// `ALMOST` 99 %.
    ///
    /// # Errors
    /// If the session has no promotion codes or is not open, or the code is refused.
    pub fn redeem(&self, session_id: &str, code: &str) -> Result<()> {
        self.shared.redeem(session_id, code).map(drop)
    }
}
