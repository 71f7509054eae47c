//! The payment page for shoppers.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::{DOCTYPE, Markup, html};

use super::{
    Shared,
    currencies::multiple,
    form::parse_form,
    lock,
    sessions::{PaymentStatus, Session, SessionStatus},
};

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().route("/c/pay/{id}", get(show)).route("/c/pay/{id}/{action}", post(act)).with_state(shared)
}

async fn show(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    match lock(&shared.sessions).find(&id) {
        Some(session) => Html(page(session, None).into_string()).into_response(),
        None => (StatusCode::NOT_FOUND, "No such session").into_response(),
    }
}

async fn act(State(shared): State<Arc<Shared>>, Path((id, action)): Path<(String, String)>, form: Bytes) -> Response {
    let done = match action.as_str() {
        "redeem" => {
            let code = parse_form(&form).remove("code").unwrap_or_default();
            shared.redeem(&id, &code).map(|_| Vec::new())
        }
        "pay" => shared.pay(&id).await,
        "pay-later" => shared.pay_later(&id).await,
        "money-arrives" => shared.money_arrives(&id, true).await,
        "money-fails" => shared.money_arrives(&id, false).await,
        "refund" => shared.refund(&id, None).await,
        "refund-half" => shared.refund(&id, Some(half_of(&shared, &id))).await,
        "refund-fails" => shared.fail_refund(&id).await,
        "dispute" => shared.dispute(&id, None).await,
        "dispute-won" => shared.close_dispute(&id, true).await,
        "dispute-lost" => shared.close_dispute(&id, false).await,
        "decline" => Ok(Vec::new()),
        _ => return (StatusCode::NOT_FOUND, "No such action").into_response(),
    };
    let session = lock(&shared.sessions).find(&id).cloned();
    let Some(session) = session else { return (StatusCode::NOT_FOUND, "No such session").into_response() };
    match (action.as_str(), done) {
        ("pay", Ok(_)) => Redirect::to(&session.success_url).into_response(),
        ("decline", _) => Html(page(&session, Some("The card was declined.")).into_string()).into_response(),
        (_, Ok(_)) => Redirect::to(&format!("/c/pay/{id}")).into_response(),
        (_, Err(error)) => {
            (StatusCode::CONFLICT, Html(page(&session, Some(&error.to_string())).into_string())).into_response()
        }
    }
}

/// Half of the session's amount; in currencies whose amounts are multiples of a number, too.
fn half_of(shared: &Shared, id: &str) -> i64 {
    let sessions = lock(&shared.sessions);
    sessions.find(id).map_or(0, |session| {
        let unit = multiple(&session.currency);
        session.amount_total / 2 / unit * unit
    })
}

fn page(session: &Session, notice: Option<&str>) -> Markup {
    let button = |action: &str, text: &str| {
        html! { form method="post" action={ "/c/pay/" (session.id) "/" (action) } { button { (text) } } }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Checkout (fake Stripe)" }
                style { (STYLE) }
            }
            body { main {
                h1 { "Checkout" }
                p { small { "This is a fake Stripe. No money moves." } }
                @if let Some(notice) = notice { p role="alert" { strong { (notice) } } }
                table {
                    @for line in &session.lines {
                        tr { td { (line.quantity) " × " bdi { (line.name) } } td { (line.unit_amount * line.quantity) } }
                    }
                    @if session.amount_discount > 0 { tr { td { "Promotion code" } td { "−" (session.amount_discount) } } }
                    @if session.amount_tax > 0 { tr { td { "Tax" } td { (session.amount_tax) } } }
                    tr { th { "Total in the smallest unit of " (session.currency) } th { (session.amount_total) } }
                }
                @match (session.status, session.payment_status) {
                    (SessionStatus::Open, _) => {
                        @if session.options.promotion_codes && session.amount_discount == 0 {
                            form method="post" action={ "/c/pay/" (session.id) "/redeem" } {
                                input name="code" aria-label="Promotion code" placeholder="TENOFF or FREE"; button { "Apply" }
                            }
                        }
                        (button("pay", "Pay")) (button("decline", "Decline")) (button("pay-later", "Pay by bank debit"))
                    }
                    (SessionStatus::Complete, PaymentStatus::Paid | PaymentStatus::NoPaymentRequired) => {
                        p { "Paid. Thank you!" }
                        (after_payment(session, button))
                    }
                    (SessionStatus::Complete, PaymentStatus::Unpaid) => {
                        p { "The bank debit is in progress." }
                        (button("money-arrives", "The money arrives")) (button("money-fails", "The money fails"))
                    }
                    (SessionStatus::Expired, _) => { p { "This checkout has expired." } }
                }
            } }
        }
    }
}

/// The actions of the shop and of the shopper's bank on a payment.
fn after_payment(session: &Session, button: impl Fn(&str, &str) -> Markup) -> Markup {
    let (charge, rest) = (&session.charge, session.refundable());
    let last_dispute = charge.disputes.last().map(|dispute| dispute.status.as_str());
    html! {
        @if charge.amount_refunded() > 0 { p { "Refunded: " (charge.amount_refunded()) } }
        @for dispute in &charge.disputes { p { "Dispute about " (dispute.amount) ": " (dispute.status) } }
        @if rest > 0 { (button("refund", "Refund")) }
        @if rest >= session.amount_total / 2 && rest > 1 { (button("refund-half", "Refund half")) }
        @if charge.refunds.last().is_some_and(|refund| !refund.failed) { (button("refund-fails", "The refund fails")) }
        @if rest > 0 && !charge.is_disputed() { (button("dispute", "Dispute")) }
        @if last_dispute.is_some_and(|status| status != "won") { (button("dispute-won", "Dispute won")) }
        @if charge.is_disputed() { (button("dispute-lost", "Dispute lost")) }
    }
}

const STYLE: &str = ":root{color-scheme:light dark;font-family:system-ui,sans-serif}main{max-width:30rem;margin:2rem auto;padding:0 1rem}\
table{width:100%}bdi{overflow-wrap:anywhere}td:last-child,th:last-child{text-align:right}th{text-align:left}form{display:inline-block;margin:.5rem .5rem 0 0}\
button{font:inherit;padding:.6rem 1.2rem}";
