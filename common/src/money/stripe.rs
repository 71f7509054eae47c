//! The amounts that Stripe charges.

use super::{Amount, Currency};

/// The currencies that Stripe charges in some country, by
/// <https://docs.stripe.com/currencies#presentment-currencies>.
const CHARGED: &str = "aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd \
    cad cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg \
    huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur \
    mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd \
    shp sle sos srd szl thb tjs tnd top try ttd twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer \
    zar zmw";

const EIGHT_DIGITS: i64 = 99_999_999;
const TEN_DIGITS: i64 = 9_999_999_999;
const TWELVE_DIGITS: i64 = 999_999_999_999;

/// The minimum and the maximum of a charge, in Stripe's smallest unit, by
/// <https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>.
///
/// Stripe compares the minimum after conversion into the account's settlement currency, so that it
/// may still reject an amount in another currency. The higher maxima are those of card payments. The
/// page gives ten digits for COP, HUF and JPY beside larger examples; the digits count here. The
/// maximum of LBP is that of a cart, which is lower.
const BOUNDS: [(&str, i64, i64); 27] = [
    ("aed", 200, EIGHT_DIGITS),
    ("aud", 50, EIGHT_DIGITS),
    ("bgn", 100, EIGHT_DIGITS),
    ("brl", 50, EIGHT_DIGITS),
    ("cad", 50, EIGHT_DIGITS),
    ("chf", 50, EIGHT_DIGITS),
    ("cop", 1, TEN_DIGITS),
    ("czk", 1_500, EIGHT_DIGITS),
    ("dkk", 250, EIGHT_DIGITS),
    ("eur", 50, EIGHT_DIGITS),
    ("gbp", 30, EIGHT_DIGITS),
    ("hkd", 400, EIGHT_DIGITS),
    ("huf", 17_500, TEN_DIGITS),
    ("idr", 1, TWELVE_DIGITS),
    ("inr", 50, 999_999_999),
    ("jpy", 50, TEN_DIGITS),
    ("lbp", 1, TWELVE_DIGITS),
    ("mxn", 1_000, EIGHT_DIGITS),
    ("myr", 200, EIGHT_DIGITS),
    ("nok", 300, EIGHT_DIGITS),
    ("nzd", 50, EIGHT_DIGITS),
    ("pln", 200, EIGHT_DIGITS),
    ("ron", 200, EIGHT_DIGITS),
    ("sek", 300, EIGHT_DIGITS),
    ("sgd", 50, EIGHT_DIGITS),
    ("thb", 1_000, EIGHT_DIGITS),
    ("usd", 50, EIGHT_DIGITS),
];

/// An amount that Stripe would reject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unchargeable {
    /// Stripe does not charge the currency.
    #[error("is in {0}, which Stripe does not charge")]
    Currency(Currency),
    /// The amount is below Stripe's minimum; this is the minimum.
    #[error("is below the minimum of {0} that Stripe charges")]
    TooLittle(Amount),
    /// The amount is above Stripe's maximum; this is the maximum.
    #[error("is above the maximum of {0} that Stripe charges")]
    TooMuch(Amount),
    /// The amount has a third decimal that is not 0.
    #[error("must end in 0: Stripe takes two decimals of this currency")]
    TooFine,
}

impl Currency {
    /// `minor` units in Stripe's smallest unit. ISK and UGX are multiplied by 100. In three-decimal
    /// currencies the last digit must be 0
    /// (<https://docs.stripe.com/currencies#special-cases>, `#three-decimal`).
    ///
    /// # Errors
    /// If a three-decimal amount does not end in 0, or the result overflows.
    pub fn stripe_amount(self, minor: i64) -> Result<i64, Unchargeable> {
        if self.decimals() == 3 && minor % 10 != 0 {
            return Err(Unchargeable::TooFine);
        }
        minor.checked_mul(self.stripe_units()).ok_or_else(|| self.too_much())
    }

    /// The minor units of an amount that Stripe reports; `None` if it has a fraction of the minor
    /// unit, which Stripe does not charge.
    pub fn of_stripe(self, amount: i64) -> Option<i64> {
        (amount % self.stripe_units() == 0).then(|| amount / self.stripe_units())
    }

    /// Checks that Stripe accepts a payment of `minor` units.
    ///
    /// # Errors
    /// If Stripe does not charge the currency, or the amount is too low, too high or too fine.
    pub fn check_chargeable(self, minor: i64) -> Result<(), Unchargeable> {
        if !CHARGED.split(' ').any(|code| code == self.code()) {
            return Err(Unchargeable::Currency(self));
        }
        let amount = self.stripe_amount(minor)?;
        let (minimum, maximum) = self.stripe_bounds();
        match amount {
            _ if amount < minimum => Err(Unchargeable::TooLittle(self.amount(minimum / self.stripe_units()))),
            _ if amount > maximum => Err(self.too_much()),
            _ => Ok(()),
        }
    }

    /// Stripe's smallest units in a minor unit.
    fn stripe_units(self) -> i64 {
        if matches!(self.code(), "isk" | "ugx") { 100 } else { 1 }
    }

    /// The minimum and the maximum of a charge, in Stripe's smallest unit. The minimum is one minor
    /// unit if Stripe publishes none.
    fn stripe_bounds(self) -> (i64, i64) {
        let found = BOUNDS.iter().find(|(code, ..)| *code == self.code());
        found.map_or((self.stripe_units(), EIGHT_DIGITS), |&(_, minimum, maximum)| (minimum, maximum))
    }

    fn too_much(self) -> Unchargeable {
        Unchargeable::TooMuch(self.amount(self.stripe_bounds().1 / self.stripe_units()))
    }
}
