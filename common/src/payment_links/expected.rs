//! Compares the data that Stripe reports of a session with its payment link.

use std::fmt;
use strum::{EnumString, IntoStaticStr};

use crate::{db::Connection, money::Currency};

/// The amount, currency and mode that a session and its PaymentIntent must have. `None` is not
/// compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The cart's total in minor units.
    pub amount_minor: Option<i64>,
    /// The cart's currency.
    pub currency: Option<String>,
    /// Stripe's `livemode`: whether real money moves.
    pub livemode: Option<bool>,
    /// Whether Stripe may charge another total than `amount_minor`, because the session has promotion
    /// codes or automatic tax. Then the subtotal must be `amount_minor`
    /// (<https://docs.stripe.com/api/checkout/sessions/object#checkout_session_object-amount_subtotal>).
    pub total_may_differ: bool,
}

/// The data that Stripe reports of a Checkout Session or PaymentIntent, in an event or a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    /// `payment`, `setup` or `subscription`; a PaymentIntent has none.
    pub mode: Option<String>,
    /// `paid`, `unpaid` or `no_payment_required`; a PaymentIntent has none.
    pub payment_status: Option<String>,
    /// The amount in Stripe's smallest unit: `amount_total` of a session, `amount_received` of a
    /// PaymentIntent.
    pub amount: Option<i64>,
    /// The session's amount before discounts and taxes; a PaymentIntent has none.
    pub subtotal: Option<i64>,
    /// The currency code in lower case.
    pub currency: Option<String>,
    /// Whether real money moves.
    pub livemode: Option<bool>,
}

/// The payment state of a completed session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payment {
    /// The money arrived.
    Paid,
    /// The payment is in progress.
    Processing,
}

/// Why an event or response of Stripe has no effect, or needs attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Mismatch {
    /// No payment link has a session with this id.
    UnknownSession,
    /// No payment link has a session with this id, but its metadata names the cart. Only the
    /// account itself can write metadata.
    OtherSession,
    /// The object's type does not match the event's type.
    OtherObject,
    /// `mode` is not `payment`.
    OtherMode,
    /// The amount differs.
    OtherAmount,
    /// The currency differs.
    OtherCurrency,
    /// One is in test mode and the other in live mode.
    OtherLivemode,
    /// The session has another PaymentIntent.
    OtherPaymentIntent,
    /// `status` contradicts the event.
    Status,
    /// `payment_status` is missing or contradicts the event.
    PaymentStatus,
    /// The event is of another account, connected to this one.
    OtherAccount,
    /// Stripe does not know the session of the link.
    SessionMissing,
    /// The payment is the session's own, but its cart was deleted.
    CartDeleted,
    /// The payment is the session's own, but its cart was recovered before.
    PaidTwice,
    /// The payment is the session's own and recovered the cart, whose total or currency has changed
    /// since the session was made.
    CartChanged,
}

impl Mismatch {
    /// The stored value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownSession => "it is about no session of this cart",
            Self::OtherSession => "its metadata names this cart, but no link of the cart has this session",
            Self::OtherObject => "its object has another type",
            Self::OtherMode => "its mode is not payment",
            Self::OtherAmount => "its amount is not the cart's total",
            Self::OtherCurrency => "its currency is not the cart's",
            Self::OtherLivemode => "its livemode differs (test or live)",
            Self::OtherPaymentIntent => "its PaymentIntent is another one",
            Self::Status => "its status does not fit",
            Self::PaymentStatus => "its payment_status does not fit",
            Self::OtherAccount => "it is of a connected account",
            Self::SessionMissing => "Stripe does not know it; was it made with a key of another account?",
            Self::CartDeleted => "its cart was deleted",
            Self::CartChanged => "it recovered its cart, whose total or currency has changed since",
            Self::PaidTwice => "its cart was recovered before, by another payment or by hand",
        })
    }
}

impl Reported {
    /// The amount in minor units of its currency; `None` if either is unknown.
    pub fn amount_minor(&self) -> Option<i64> {
        self.currency.as_deref()?.parse::<Currency>().ok()?.of_stripe(self.amount?)
    }
}

impl Expected {
    /// Compares the amount, currency and mode (test or live) of a PaymentIntent. It has no subtotal,
    /// so its amount is not compared if the total may differ.
    ///
    /// # Errors
    /// The first field that differs from the expected value.
    pub fn check_intent(&self, reported: &Reported) -> Result<(), Mismatch> {
        let amount = if self.total_may_differ { self.stripe_amount() } else { reported.amount };
        self.check(reported, amount)
    }

    /// Compares the amount, currency and mode of a session; its `mode` must be `payment`.
    ///
    /// # Errors
    /// The first field that differs from the expected value.
    pub fn check_session(&self, reported: &Reported) -> Result<(), Mismatch> {
        if reported.mode.as_deref() != Some("payment") {
            return Err(Mismatch::OtherMode);
        }
        self.check(reported, reported.subtotal.filter(|_| self.total_may_differ).or(reported.amount))
    }

    fn check(&self, reported: &Reported, amount: Option<i64>) -> Result<(), Mismatch> {
        if self.currency.is_some() && self.currency != reported.currency {
            return Err(Mismatch::OtherCurrency);
        }
        if self.amount_minor.is_some() && (amount.is_none() || self.stripe_amount() != amount) {
            return Err(Mismatch::OtherAmount);
        }
        if self.livemode.is_some() && self.livemode != reported.livemode {
            return Err(Mismatch::OtherLivemode);
        }
        Ok(())
    }

    /// The payment state of a completed session that passed [`Self::check_session`].
    ///
    /// # Errors
    /// Unless Stripe reports `paid` or `unpaid`, or `no_payment_required` for an amount of 0.
    pub fn payment(&self, reported: &Reported) -> Result<Payment, Mismatch> {
        match reported.payment_status.as_deref() {
            Some("paid") => Ok(Payment::Paid),
            Some("unpaid") => Ok(Payment::Processing),
            Some("no_payment_required") if self.is_free(reported) => Ok(Payment::Paid),
            _ => Err(Mismatch::PaymentStatus),
        }
    }

    /// Whether the cart costs nothing, or a promotion code made its session free.
    fn is_free(&self, reported: &Reported) -> bool {
        self.amount_minor == Some(0) || (self.total_may_differ && reported.amount == Some(0))
    }

    /// The amount in Stripe's smallest unit; `None` if it is unknown or Stripe can't charge it.
    pub fn stripe_amount(&self) -> Option<i64> {
        let currency: Currency = self.currency.as_deref()?.parse().ok()?;
        currency.stripe_amount(self.amount_minor?).ok()
    }
}

/// The expected amount, currency and mode of a request's session. For a request that an earlier
/// release stored without amount and currency, those of the cart apply.
pub async fn expected(conn: &mut Connection, cart_id: &str, version: i32) -> sqlx::Result<Expected> {
    let row = sqlx::query_as!(
        Expected,
        r#"
        select coalesce(link.amount_minor, carts.total_minor) as amount_minor,
               coalesce(link.currency, carts.currency) as currency, link.livemode,
               coalesce(link.settings @> '{"promotionCodes": true}' or link.settings @> '{"automaticTax": true}', false)
                   as "total_may_differ!"
        from payment_links link left join carts on carts.id = link.cart_id
        where link.cart_id = $1 and link.version = $2
        "#,
        cart_id,
        version,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_must_fit_in_everything() {
        let expected = Expected {
            amount_minor: Some(700),
            currency: Some("isk".to_owned()),
            livemode: Some(false),
            total_may_differ: false,
        };
        let good = Reported {
            mode: Some("payment".to_owned()),
            payment_status: Some("paid".to_owned()),
            amount: Some(70_000), // Stripe counts hundredths of a króna
            subtotal: Some(70_000),
            currency: Some("isk".to_owned()),
            livemode: Some(false),
        };
        assert_eq!(expected.check_session(&good), Ok(()));
        assert_eq!(expected.payment(&good), Ok(Payment::Paid));
        let other = |change: fn(&mut Reported)| {
            let mut reported = good.clone();
            change(&mut reported);
            expected.check_session(&reported).and_then(|()| expected.payment(&reported).map(drop))
        };
        assert_eq!(other(|it| it.mode = Some("setup".to_owned())), Err(Mismatch::OtherMode));
        assert_eq!(other(|it| it.mode = None), Err(Mismatch::OtherMode));
        assert_eq!(other(|it| it.amount = Some(700)), Err(Mismatch::OtherAmount));
        assert_eq!(other(|it| it.amount = None), Err(Mismatch::OtherAmount));
        assert_eq!(other(|it| it.currency = Some("ISK".to_owned())), Err(Mismatch::OtherCurrency));
        assert_eq!(other(|it| it.currency = None), Err(Mismatch::OtherCurrency));
        assert_eq!(other(|it| it.livemode = Some(true)), Err(Mismatch::OtherLivemode));
        assert_eq!(other(|it| it.payment_status = None), Err(Mismatch::PaymentStatus));
        assert_eq!(
            other(|it| it.payment_status = Some("no_payment_required".to_owned())),
            Err(Mismatch::PaymentStatus)
        );
        // An amount that Stripe can't charge matches nothing.
        let kwd = Expected { amount_minor: Some(1_005), currency: Some("kwd".to_owned()), ..Expected::default() };
        let reported = Reported { currency: Some("kwd".to_owned()), amount: None, ..good.clone() };
        assert_eq!(kwd.check_session(&reported), Err(Mismatch::OtherAmount));
        assert_eq!(kwd.check_intent(&reported), Err(Mismatch::OtherAmount));
    }

    #[test]
    fn a_total_with_discounts_or_taxes_differs_from_the_request() {
        let fixed = Expected { amount_minor: Some(9_998), currency: Some("usd".to_owned()), ..Expected::default() };
        let variable = Expected { total_may_differ: true, ..fixed.clone() };
        let reported = |amount, subtotal| Reported {
            mode: Some("payment".to_owned()),
            payment_status: Some("paid".to_owned()),
            amount,
            subtotal,
            currency: Some("usd".to_owned()),
            livemode: None,
        };
        let discounted = reported(Some(8_998), Some(9_998));
        assert_eq!(discounted.amount_minor(), Some(8_998));
        assert_eq!(variable.check_session(&discounted), Ok(()));
        assert_eq!(fixed.check_session(&discounted), Err(Mismatch::OtherAmount));
        assert_eq!(variable.check_session(&reported(Some(9_998), Some(8_998))), Err(Mismatch::OtherAmount));
        // Without a subtotal the total must be the amount.
        assert_eq!(variable.check_session(&reported(Some(9_998), None)), Ok(()));
        assert_eq!(variable.check_session(&reported(Some(8_998), None)), Err(Mismatch::OtherAmount));
        // A PaymentIntent has no subtotal.
        let intent = Reported { mode: None, subtotal: None, ..discounted };
        assert_eq!((variable.check_intent(&intent), fixed.check_intent(&intent)), (Ok(()), Err(Mismatch::OtherAmount)));
        let free = |amount| Reported {
            payment_status: Some("no_payment_required".to_owned()),
            ..reported(amount, Some(9_998))
        };
        assert_eq!(variable.payment(&free(Some(0))), Ok(Payment::Paid));
        assert_eq!(variable.payment(&free(Some(1))), Err(Mismatch::PaymentStatus));
        assert_eq!(fixed.payment(&free(Some(0))), Err(Mismatch::PaymentStatus));
    }
}
