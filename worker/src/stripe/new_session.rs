//! The request for a Checkout Session.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use common::payment_links::{BillingAddress, CheckoutSettings, SessionSettings, checkout::CheckoutCart};
use stripe_checkout::{
    CheckoutSessionMode,
    checkout_session::{
        CreateCheckoutSession, CreateCheckoutSessionAutomaticTax, CreateCheckoutSessionLineItems,
        CreateCheckoutSessionLineItemsPriceData, CreateCheckoutSessionPaymentIntentData,
        CreateCheckoutSessionPhoneNumberCollection, CreateCheckoutSessionShippingAddressCollection, ProductData,
    },
};
use stripe_shared::CheckoutSessionBillingAddressCollection;

use super::{lines, locale};

/// The parameters of a request for a session, which never change between attempts: a change of the
/// cart's lines or address withdraws the request, and the first attempt stored the rest.
#[derive(Debug)]
pub(crate) struct NewSession<'a> {
    pub(crate) cart_id: &'a str,
    pub(crate) version: i32,
    pub(crate) cart: &'a CheckoutCart,
    pub(crate) settings: &'a SessionSettings,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) idempotency_key: String,
}

impl NewSession<'_> {
    /// # Errors
    /// If Stripe can't charge the total.
    pub(super) fn request(&self) -> Result<CreateCheckoutSession, String> {
        let Self { cart, settings, .. } = self;
        let mut metadata = HashMap::from([
            ("cart_id".to_owned(), self.cart_id.to_owned()),
            ("link_version".to_owned(), self.version.to_string()),
        ]);
        metadata.extend(cart.external_id.clone().map(|id| ("external_id".to_owned(), id)));
        let mut payment_intent = CreateCheckoutSessionPaymentIntentData::new();
        // Shown to the shop beside the payment, in Stripe's dashboard and reports.
        let description = settings.checkout.description(cart.external_id.as_deref().unwrap_or(self.cart_id));
        payment_intent.description = Some(description).filter(|description| !description.is_empty());
        payment_intent.metadata = Some(metadata.clone()); // a session's own metadata does not reach it
        let mut request = with_settings(CreateCheckoutSession::new(), &settings.checkout);
        let locale = cart.locale.as_deref().and_then(|tag| tag.parse().ok());
        if let Some(locale) = locale.as_ref().and_then(locale::checkout_locale) {
            request = request.locale(locale);
        }
        if let Some(email) = cart.sent_email().filter(|_| !settings.without_email) {
            request = request.customer_email(email);
        }
        Ok(request
            .mode(CheckoutSessionMode::Payment)
            .line_items(line_items(cart)?)
            .client_reference_id(self.cart_id)
            .expires_at(self.expires_at.timestamp())
            .metadata(metadata)
            .payment_intent_data(payment_intent)
            .success_url(format!("{}/pay/{}/thanks", settings.public_url, cart.recovery_token)))
    }
}

/// Adds the parameters of settings that differ from Stripe's defaults.
fn with_settings(mut request: CreateCheckoutSession, settings: &CheckoutSettings) -> CreateCheckoutSession {
    if !settings.shipping_countries.is_empty() {
        let countries = settings.shipping_countries.iter().filter_map(|country| country.parse().ok());
        let collection = CreateCheckoutSessionShippingAddressCollection::new(countries.collect::<Vec<_>>());
        request = request.shipping_address_collection(collection);
    }
    if settings.billing_address == BillingAddress::Required {
        request = request.billing_address_collection(CheckoutSessionBillingAddressCollection::Required);
    }
    if settings.phone {
        request = request.phone_number_collection(CreateCheckoutSessionPhoneNumberCollection::new(true));
    }
    if settings.promotion_codes {
        request = request.allow_promotion_codes(true);
    }
    if settings.automatic_tax {
        request = request.automatic_tax(CreateCheckoutSessionAutomaticTax::new(true));
    }
    request
}

fn line_items(cart: &CheckoutCart) -> Result<Vec<CreateCheckoutSessionLineItems>, String> {
    let currency: stripe_types::Currency = cart.currency.code().parse().unwrap_or_default();
    let lines = lines::lines(cart).map_err(|why| format!("the total {why}"))?;
    let line_item = |line: lines::Line| {
        let mut product = ProductData::new(line.name);
        product.description = line.description;
        let mut price = CreateCheckoutSessionLineItemsPriceData::new(currency.clone());
        price.unit_amount = Some(line.unit_amount);
        price.product_data = Some(product);
        let mut item = CreateCheckoutSessionLineItems::new();
        item.price_data = Some(price);
        item.quantity = Some(line.quantity);
        item
    };
    Ok(lines.into_iter().map(line_item).collect())
}

#[cfg(test)]
mod tests {
    use common::config::Env;
    use stripe_checkout::checkout_session::CreateCheckoutSessionShippingAddressCollectionAllowedCountries as Country;

    use super::*;

    /// The settings' countries are those of Stripe's specification, from which the library's are
    /// generated.
    #[test]
    fn all_countries_of_stripe_can_be_set_and_no_others() {
        for (first, second) in ('A'..='Z').flat_map(|first| ('A'..='Z').map(move |second| (first, second))) {
            let code = format!("{first}{second}");
            let known = code.parse::<Country>().is_ok_and(|country| !matches!(country, Country::Unknown(_)));
            let set = Env::of([("CHECKOUT_SHIPPING_COUNTRIES", &code)]).read::<CheckoutSettings>();
            assert_eq!(set.is_ok(), known, "{code}");
        }
    }
}
