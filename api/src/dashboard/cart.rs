//! `/carts/{id}`: one cart and its actions.

use axum::{Router, extract::State, response::Response, routing::get};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use common::{
    carts::{self, Cart, CartId, CartStatus, RecoveredBy},
    db::Connection,
    money::{Currency, Unchargeable},
    operations::{self, JobFilter, JobState, JobSummary},
    payment_links::{self, LinkStatus, PaymentLink, recovery::RecoveryLink},
    timeline,
};
use maud::{Markup, html};

use super::{
    cart_contents, format,
    page::{Page, PageError, Section},
    session::Operator,
    timeline as timeline_section,
};
use crate::{
    http::{base_path::at, error::ApiError},
    routes::carts::CartPath,
    state::AppState,
};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/carts/{id}", get(show))
}

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    path: Result<CartPath, ApiError>,
) -> Result<Response, PageError> {
    let CartPath(id) = path?;
    let mut conn = state.lookups.acquire().await?;
    let cart = carts::find(&mut conn, &id, operator.now).await?.ok_or_else(ApiError::cart_not_found)?;
    let links = Links::read(&mut conn, &id, &cart, operator.now).await?;
    let told = timeline::page(&mut conn, &id, None, timeline_section::LIMIT).await?;
    let told = told.ok_or_else(ApiError::cart_not_found)?;
    drop(conn);
    let of_cart = JobFilter { subject: Some(id.to_string()), ..JobFilter::default() };
    // Not from `lookups`, whose plans would not use the filter's index.
    let jobs = operations::list(&mut state.database.acquire().await?, &of_cart, 0, JOBS).await?;
    let body = html! {
        nav.crumbs aria-label="Breadcrumbs" { a href=(at("/carts")) { "Carts" } }
        div.heading {
            div {
                h1 {
                    @match &cart.customer_name { Some(name) => bdi { (name) }, None => span.muted { "No name" } }
                    " " span data-announce="Cart" { (format::cart_status(cart.status)) }
                }
                p.muted { a href=(format::mailto(&cart.customer_email)) { bdi { (cart.customer_email) } } }
            }
            p.value { (format::money(cart.total_value, cart.currency)) }
        }
        div.columns.uneven {
            div.stack {
                (cart_contents::items(&cart))
                (link_panel(&state, &operator, &cart, &links))
                (jobs_section(&id, &jobs, operator.zone))
            }
            div.stack {
                (actions(&operator, &cart, &links))
                (timeline_section::section(cart.abandoned_at, &told, operator.zone))
                (details(&cart, operator.zone))
                (cart_contents::metadata(&cart))
            }
        }
    };
    // While a link is being created, its progress shows in its job.
    let live = match links.state {
        LinkState::Creating | LinkState::Closing | LinkState::Settling => format!("{id} carts jobs"),
        _ => format!("{id} carts"),
    };
    let title = format::isolated(cart.customer());
    Ok(Page { title: &title, section: Section::Carts, operator: &operator, live: &live }.show(&body))
}

/// Jobs on the page; the list of jobs has the others.
const JOBS: i64 = 10;

/// The newest jobs of the cart, also those that are done or dead.
fn jobs_section(id: &CartId, jobs: &[JobSummary], zone: Tz) -> Markup {
    html! {
        @if !jobs.is_empty() { section.card aria-labelledby="jobs" {
            div.heading {
                h2 #jobs { "Jobs" }
                a.small href={ (at("/jobs?cartId=")) (id) } { "In the list of jobs" }
            }
            table.rows {
                caption.visually-hidden { "The cart's jobs, newest first" }
                thead { tr { th scope="col" { "Job" } th scope="col" { "State" } th.wide-only scope="col" { "Queued" } } }
                tbody { @for job in jobs { tr id={ "job-" (job.id) } {
                    th scope="row" {
                        a.cover href={ (at("/jobs/")) (job.id) } { (format::capital(&job.kind)) }
                        @if let Some(error) = &job.last_error { span.muted.small.ellipsis dir="auto" { (error) } }
                    }
                    td { (format::job_state(job.state)) }
                    td.wide-only { (format::instant(job.created_at, zone)) }
                } } }
            }
        } }
    }
}

/// The state of a cart's payment links, as the page describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// None was requested.
    None,
    /// A payment by any of the links is in progress.
    PaymentInProgress,
    /// A checkout is open.
    Live,
    /// The newest link's job will create the checkout.
    Creating,
    /// The checkout of the newest link ended by itself.
    Expired,
    /// Its checkout is being closed.
    Closing,
    /// It could not be created. Stripe may have created a checkout all the same, which is being closed.
    Settling,
    /// Its checkout is closed.
    Closed,
    /// It could not be created.
    Failed,
    /// Its payment failed.
    PaymentFailed,
    /// It was paid.
    Paid,
}

impl LinkState {
    /// Whether a shopper may be about to pay, so that ending the cart interrupts them.
    pub(crate) fn interrupts_shopper(self) -> bool {
        matches!(self, Self::PaymentInProgress | Self::Live | Self::Creating)
    }
}

/// A cart's payment links.
pub(crate) struct Links {
    pub(crate) state: LinkState,
    /// The newest one.
    latest: Option<PaymentLink>,
    /// Its job, unless it was deleted since.
    job: Option<JobSummary>,
    recovery: Option<RecoveryLink>,
    /// Why the job does not run.
    obstacle: Option<&'static str>,
}

impl Links {
    pub(crate) async fn read(
        conn: &mut Connection,
        id: &CartId,
        cart: &Cart,
        now: DateTime<Utc>,
    ) -> sqlx::Result<Self> {
        let (mut latest, mut job) = newest(conn, id).await?;
        if is_given_up(latest.as_ref(), job.as_ref()) {
            (latest, job) = newest(conn, id).await?; // the job may have ended between the two queries
        }
        let in_progress = payment_links::is_processing(conn, id.as_str()).await?;
        let abandoned = cart.status == CartStatus::Abandoned;
        let state = match &latest {
            None => LinkState::None,
            Some(_) if in_progress => LinkState::PaymentInProgress,
            Some(link) => match link.status {
                LinkStatus::Open if link.is_live(now) && abandoned => LinkState::Live,
                LinkStatus::Open if link.session_expires_at <= now => LinkState::Expired,
                LinkStatus::Pending if is_given_up(latest.as_ref(), job.as_ref()) => LinkState::Failed,
                LinkStatus::Pending => LinkState::Creating,
                LinkStatus::Open | LinkStatus::Closing => LinkState::Closing,
                LinkStatus::Settling => LinkState::Settling,
                LinkStatus::Closed => LinkState::Closed,
                LinkStatus::Failed => LinkState::Failed,
                LinkStatus::Processing => LinkState::PaymentInProgress,
                LinkStatus::PaymentFailed => LinkState::PaymentFailed,
                LinkStatus::Paid => LinkState::Paid,
            },
        };
        let recovery = payment_links::recovery::find(conn, id).await?;
        let obstacle = if state == LinkState::Creating { obstacle(conn).await? } else { None };
        Ok(Self { state, latest, job, recovery, obstacle })
    }

    /// Why there is no link: the message of Stripe, or of the job.
    fn failure(&self) -> Option<&str> {
        let link = self.latest.as_ref()?;
        match link.status {
            LinkStatus::Pending => {
                Some(self.job.as_ref().and_then(|job| job.last_error.as_deref()).unwrap_or("its job was lost"))
            }
            _ => link.refusal(),
        }
    }
}

/// The newest link of the cart and its job.
async fn newest(conn: &mut Connection, id: &CartId) -> sqlx::Result<(Option<PaymentLink>, Option<JobSummary>)> {
    let Some(link) = payment_links::latest(conn, id.as_str()).await? else { return Ok((None, None)) };
    let job = operations::find(conn, link.job_id).await?;
    Ok((Some(link), job))
}

/// Whether nothing will create the link, although it is pending: its job was cancelled, ran out of
/// attempts or was deleted.
fn is_given_up(link: Option<&PaymentLink>, job: Option<&JobSummary>) -> bool {
    link.is_some_and(|link| link.status == LinkStatus::Pending) && !job.is_some_and(JobSummary::is_unfinished)
}

/// Why no job of payment links runs now; `None` if they do.
async fn obstacle(conn: &mut Connection) -> sqlx::Result<Option<&'static str>> {
    let queue = operations::queue_health(conn, &["payment-links"]).await?;
    Ok(if queue.iter().any(|queue| queue.paused) {
        Some("The queue payment-links is paused: the link is created once you resume it.")
    } else if operations::workers(conn).await?.is_empty() {
        Some("No worker is running: the link is created once you start one.")
    } else {
        None
    })
}

fn link_panel(state: &AppState, operator: &Operator, cart: &Cart, links: &Links) -> Markup {
    let (now, zone) = (operator.now, operator.zone);
    let abandoned = cart.status == CartStatus::Abandoned;
    let refusal = cart.currency.check_chargeable(cart.total_value.minor()).err().filter(|_| abandoned);
    let recovery = links.recovery.as_ref().filter(|link| link.expires_at > now && abandoned && refusal.is_none());
    let live = links.latest.as_ref().filter(|_| links.state == LinkState::Live);
    let startable = abandoned && !links.state.interrupts_shopper();
    html! {
        section.card aria-labelledby="link" {
            h2 #link { "Payment link" }
            p data-announce="Payment link" { (link_state(links)) }
            @if links.state == LinkState::Creating { (progress(links, operator)) }
            @if let Some(recovery) = recovery {
                @let url = recovery.url(&state.config.shared.public_url);
                (copyable("recovery-url", "Recovery link – use this one in emails", &url))
                p.muted.small {
                    "Valid until " (format::instant(recovery.expires_at, zone)) ". " (leads_to(links.state)) " "
                    @if links.state != LinkState::PaymentInProgress {
                        a #email-link href=(mail(state, cart, &url)) { "Write an email with it" }
                    }
                }
            }
            @if let Some((live, url)) = live.and_then(|live| Some((live, live.url.as_ref()?))) {
                (copyable("payment-url", "Stripe checkout", url))
                p.muted.small { "Expires " (format::instant(live.session_expires_at, zone)) ". "
                    a #open-checkout href=(url) rel="noreferrer" { "Open checkout" } }
            }
            @match refusal {
                Some(why) => p { (unchargeable(&why, cart.currency)) },
                None => @if startable {
                    @let text = if links.latest.is_none() { "Create payment link" } else { "Create a new link" };
                    (operator.button(&format!("/carts/{}/link", cart.id), "primary", text))
                },
            }
            @if cart.status == CartStatus::Expired && links.state != LinkState::PaymentInProgress {
                p.muted.small { "Reopen the cart to create a payment link." }
            }
            @if let Some(job) = &links.job { p { a #view-job href={ (at("/jobs/")) (job.id) } { "View job" } } }
            // The script reloads the page; without it, the operator does.
            @if links.state == LinkState::Creating { noscript { p { a href="" { "Reload" } } } }
        }
    }
}

/// The state of the newest link, in a sentence.
fn link_state(links: &Links) -> Markup {
    let because = |text: &str| match links.failure() {
        Some(why) => html! { (text) ": " bdi.problem { (why) } },
        None => html! { (text) "." },
    };
    match links.state {
        LinkState::None => html! { span.muted { "No payment link yet." } },
        LinkState::PaymentInProgress => html! { "A payment is in progress." },
        LinkState::Live => html! { span.badge.active { "Active" } },
        LinkState::Creating => html! { "Creating …" },
        LinkState::Expired => html! { "The previous link has expired." },
        LinkState::Closing => because("The previous link is being closed"),
        LinkState::Settling => html! {
            (because("Couldn't be created")) " "
            span.muted { "Stripe may have created a checkout all the same, which is being closed." }
        },
        LinkState::Closed if links.latest.as_ref().is_some_and(|link| link.session_id.is_none()) => {
            because("The request for a link was withdrawn")
        }
        LinkState::Closed => because("The previous link is closed"),
        LinkState::Failed => because("Couldn't be created"),
        LinkState::PaymentFailed => html! { "The payment failed." },
        LinkState::Paid => html! { "Paid." },
    }
}

/// The failed attempts so far, and what holds the next one up.
fn progress(links: &Links, operator: &Operator) -> Markup {
    let failed = links.job.as_ref().filter(|job| job.state == JobState::Retrying);
    html! {
        @if let Some(obstacle) = links.obstacle { p.problem { (obstacle) } }
        @if let Some((job, error)) = failed.and_then(|job| Some((job, job.last_error.as_ref()?))) {
            p.small {
                "Attempt " (job.attempts) " of " (job.max_attempts) " failed: " bdi.problem { (error) } " "
                @if job.run_at > operator.now { "The next one begins " (format::relative(job.run_at, operator.now, operator.zone)) "." }
            }
        }
    }
}

/// What a shopper finds who opens the recovery link.
fn leads_to(state: LinkState) -> &'static str {
    match state {
        LinkState::Live => "Opens a live checkout.",
        LinkState::Creating => "The shopper waits there for up to a minute until the checkout is created.",
        LinkState::PaymentInProgress => "Shows that a payment is in progress, and opens no checkout.",
        LinkState::Failed | LinkState::Settling => {
            "Tries to create a new checkout when the shopper opens it, at most every 30 s."
        }
        _ => "Creates a new checkout when the shopper opens it.",
    }
}

/// An email to the shopper with the recovery link, which the operator completes. Its text is in
/// English, so other languages get the link alone.
fn mail(state: &AppState, cart: &Cart, url: &str) -> String {
    let shop = state.config.shop.name.as_deref();
    let is_english = cart.locale.as_deref().is_none_or(|locale| locale.starts_with("en"));
    let (subject, body) = if is_english {
        let greeting = cart.customer_name.as_deref().map_or("Hello,".to_owned(), |name| format!("Hello {name},"));
        let subject = shop.map_or("Your cart".to_owned(), |shop| format!("Your cart at {shop}"));
        (subject, format!("{greeting}\r\n\r\nyou can complete your order here:\r\n{url}\r\n"))
    } else {
        (shop.unwrap_or_default().to_owned(), format!("{url}\r\n"))
    };
    format::mailto_with(&cart.customer_email, &subject, &body)
}

/// The reason why Stripe can't charge the total.
fn unchargeable(why: &Unchargeable, currency: Currency) -> String {
    let code = currency.code().to_ascii_uppercase();
    match why {
        Unchargeable::Currency(_) => format!("Stripe does not charge {code}: no payment link can be created."),
        Unchargeable::TooLittle(minimum) => {
            format!(
                "The total is below Stripe's minimum of {}: no payment link can be created.",
                currency.format(*minimum)
            )
        }
        Unchargeable::TooMuch(maximum) => {
            format!(
                "The total is above Stripe's maximum of {}: no payment link can be created.",
                currency.format(*maximum)
            )
        }
        Unchargeable::TooFine => {
            format!("Stripe takes two decimals of {code}, and the total has three: no payment link can be created.")
        }
    }
}

/// A read-only field with text to copy; the button needs JavaScript.
fn copyable(id: &str, label: &str, text: &str) -> Markup {
    html! {
        label.field-label for=(id) { (label) }
        div.copyable {
            input id=(id) type="text" readonly value=(text);
            button.button type="button" data-copy=(id) hidden { "Copy" }
        }
    }
}

fn actions(operator: &Operator, cart: &Cart, links: &Links) -> Markup {
    let path = |action: &str| format!("/carts/{}/{action}", cart.id);
    html! {
        @if operator.may_change { section.card aria-labelledby="actions" {
            h2 #actions { "Actions" }
            div.actions {
                @if cart.status != CartStatus::Recovered { a #recover .button href=(at(&path("recover"))) { "Mark recovered" } }
                @match cart.status {
                    CartStatus::Abandoned if links.state.interrupts_shopper() => a #expire .button href=(at(&path("expire"))) { "Expire …" },
                    CartStatus::Abandoned => (operator.button(&path("expire"), "", "Expire")),
                    CartStatus::Expired => (operator.button(&path("reopen"), "", "Reopen")),
                    CartStatus::Recovered => {}
                }
                a #delete .button.danger href=(at(&path("delete"))) { "Delete" }
            }
        } }
    }
}

fn details(cart: &Cart, zone: Tz) -> Markup {
    html! {
        section.card aria-labelledby="details" {
            h2 #details { "Details" }
            dl.details {
                dt { "ID" } dd { (format::copyable("cart-id", "the cart ID", &html! { code { (cart.id) } })) }
                dt { "Shop's ID" } dd {
                    @match &cart.external_id {
                        Some(id) => (format::copyable("external-id", "the shop's ID", &html! { bdi { (id) } })),
                        None => span.muted { "–" },
                    }
                }
                dt { "Language" } dd { (written(cart.locale.as_deref())) }
                dt { "Marketing" } dd { (consent(cart.accepts_marketing)) }
                dt { "Abandoned" } dd { (format::moment(cart.abandoned_at, zone)) }
                dt { "Recovered" } dd {
                    (format::maybe_moment(cart.recovered_at, zone))
                    @if let Some(by) = cart.recovered_by { span.muted.line { (recovered_by(by)) } }
                }
                dt { "Expired" } dd { (format::maybe_moment(cart.expired_at, zone)) }
                dt { "Created" } dd { (format::moment(cart.created_at, zone)) }
                dt { "Updated" } dd { (format::moment(cart.updated_at, zone)) }
            }
        }
    }
}

/// A text of the shop, or a dash.
fn written(text: Option<&str>) -> Markup {
    html! { @match text { Some(text) => bdi { (text) }, None => span.muted { "–" } } }
}

fn consent(accepts_marketing: Option<bool>) -> &'static str {
    match accepts_marketing {
        Some(true) => "Agreed",
        Some(false) => "Not agreed",
        None => "Not known",
    }
}

fn recovered_by(by: RecoveredBy) -> &'static str {
    match by {
        RecoveredBy::Payment => "by payment",
        RecoveredBy::Manual => "manually",
        RecoveredBy::Import => "imported",
    }
}
