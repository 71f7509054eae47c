//! Bodies that are read by hand, so that everything wrong with them is told at
//! once: what they look like to clients. `common::carts::new` and the handlers
//! hold the bounds; `.ci/schemathesis` tries both sides of each.

#![expect(dead_code, reason = "these are described, never made")]

use chrono::{DateTime, Utc};
use common::carts::CartStatus;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema, Type,
        schema::{AnyOfBuilder, Object},
    },
};

/// `{"success":true,"data":…}`
#[derive(ToSchema)]
pub(crate) struct Success<T: ToSchema> {
    #[schema(schema_with = only_true)]
    success: bool,
    data: T,
}

pub(crate) fn only_true() -> Object {
    ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true])).build()
}

/// A text of one of these.
pub(crate) fn one_of(values: impl IntoIterator<Item = &'static str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).build()
}

/// What `POST /api/carts` takes. Fields it does not know are ignored.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({
    "customerEmail": "ada@example.com", "customerName": "Ada Lovelace",
    "items": [{"name": "Teapot", "quantity": 2, "price": 49.99}],
}))]
pub(crate) struct NewCart {
    /// Where the shopper can be reached.
    #[schema(format = Email, max_length = 319, example = "ada@example.com")]
    customer_email: String,
    /// The shopper; white space around it is taken away.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000]*[^\s\u0000\u0085][^\u0000]*$",
        example = "Ada Lovelace"
    )]
    customer_name: String,
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<NewCartItem>,
    /// When the shopper left it, if that was before now: not in the future.
    abandoned_at: Option<DateTime<Utc>>,
}

/// One line of a cart.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct NewCartItem {
    /// White space around it is taken away.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000]*[^\s\u0000\u0085][^\u0000]*$",
        example = "Teapot"
    )]
    name: String,
    #[schema(minimum = 1, maximum = 10_000, example = 2)]
    quantity: u32,
    /// Of one, with at most the decimals of the store's currency (2 for usd). Kept exactly as it is written.
    #[schema(schema_with = price)]
    price: f64,
}

fn price() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some(
            "Of one, with at most the decimals of the store's currency (2 for usd). Kept exactly as it is written.",
        ))
        .minimum(Some(0))
        .maximum(Some(999_999.99))
        .examples([49.99])
        .build()
}

/// What `PATCH /api/carts/{id}` takes.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"status": "recovered"}))]
pub(crate) struct CartChange {
    /// `recovered` is final.
    status: CartStatus,
    /// With the status recovered only: not in the future, not before `abandonedAt`. The default is now.
    recovered_at: Option<DateTime<Utc>>,
}

/// What `DELETE /api/carts/{id}` answers.
#[derive(ToSchema)]
pub(crate) struct DeletedCart {
    #[schema(example = "cart_01m84zjdhtftc9p973qfnt3nn0")]
    id: String,
    #[schema(schema_with = only_true)]
    deleted: bool,
}

/// A line of an import: a cart as `POST /api/carts` takes it, and what is known of its past.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct CartLine {
    #[schema(inline)]
    #[serde(flatten)]
    cart: NewCart,
    /// Your own id of the cart. Of lines with the same one the first makes the cart.
    #[schema(min_length = 1, max_length = 200)]
    external_id: Option<String>,
    /// The default is abandoned.
    status: Option<CartStatus>,
    /// With the status recovered only. The default is `abandonedAt`.
    recovered_at: Option<DateTime<Utc>>,
    /// With the status expired only. The default is `abandonedAt`.
    expired_at: Option<DateTime<Utc>>,
    /// If it is not the store's.
    #[schema(pattern = "^[A-Za-z]{3}$", example = "usd")]
    currency: Option<String>,
}

/// A line of an import's answer: one for each line of the file, then the summary.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum ImportAnswer {
    Line(ImportedLine),
    Summary(ImportSummary),
}

/// What became of a line.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"line": 1, "status": "created", "id": "cart_01m84zjdhtftc9p973qfnt3nn0"}))]
pub(crate) struct ImportedLine {
    #[schema(minimum = 1)]
    line: u64,
    #[schema(schema_with = line_status)]
    status: String,
    #[schema(nullable = false)]
    id: Option<String>,
    #[schema(nullable = false)]
    external_id: Option<String>,
    #[schema(nullable = false)]
    error: Option<crate::http::error::Body<'static>>,
}

fn line_status() -> Object {
    one_of(["created", "exists", "error"])
}

/// What all lines came to.
#[derive(ToSchema)]
pub(crate) struct ImportSummary {
    summary: ImportTotals,
}

/// What all lines came to.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct ImportTotals {
    /// Those that were answered.
    lines: u64,
    created: u64,
    exists: u64,
    errors: u64,
    /// There if we had to stop.
    #[schema(nullable = false)]
    incomplete: Option<bool>,
    /// Where to go on, if we had to stop.
    #[schema(nullable = false)]
    next_line: Option<u64>,
    /// Why we had to stop.
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// An address to search for: not blank, without control characters but tabs, which a quoted local part may hold.
fn email_to_find() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(1_000))
        .pattern(Some(r"^[^\x00-\x08\x0a-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x08\x0a-\x1f\x7f-\x9f]*$"))
        .examples(["ada@example.com"])
        .build()
}

/// [`email_to_find`] as a query parameter.
pub(crate) struct EmailToFind;

impl ToSchema for EmailToFind {}

impl PartialSchema for EmailToFind {
    fn schema() -> RefOr<Schema> {
        email_to_find().into()
    }
}

/// What `POST /api/erasure` takes.
#[derive(ToSchema)]
#[schema(example = json!({"email": "ada@example.com"}))]
pub(crate) struct Shopper {
    /// The whole address, in any spelling.
    #[schema(schema_with = email_to_find)]
    email: String,
}

/// How the newest request for a cart's link stands.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = PaymentLinkStatus)]
pub(crate) enum LinkState {
    Ready(crate::routes::payment_links::Ready),
    Pending(crate::routes::payment_links::Pending),
    Failed(crate::routes::payment_links::Failed),
}

/// What `POST /api/jobs/retry` takes.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"queue": "payment-links", "dryRun": true}))]
pub(crate) struct DeadJobs {
    #[schema(schema_with = queue_name)]
    queue: String,
    /// Only of this kind.
    #[schema(min_length = 1, pattern = r"^[^\u0000]+$")]
    kind: Option<String>,
    /// Only those with this in their last error.
    #[schema(min_length = 1, pattern = r"^[^\u0000]+$")]
    error: Option<String>,
    /// Counts them and changes nothing.
    dry_run: Option<bool>,
}

pub(crate) fn queue_name() -> Object {
    one_of(common::jobs::QUEUES)
}

/// The name of a queue.
pub(crate) struct QueueName;

impl ToSchema for QueueName {}

impl PartialSchema for QueueName {
    fn schema() -> RefOr<Schema> {
        queue_name().into()
    }
}

/// What Stripe sends: an event of any kind and API version. Only a few fields are looked at.
#[derive(ToSchema)]
#[schema(example = json!({"id": "evt_1", "type": "checkout.session.completed", "created": 1_764_000_000,
    "livemode": false, "data": {"object": {"id": "cs_test_1", "object": "checkout.session", "mode": "payment",
    "status": "complete", "payment_status": "paid", "amount_total": 9998, "currency": "usd", "livemode": false,
    "payment_intent": "pi_1", "metadata": {"cart_id": "cart_01m84zjdhtftc9p973qfnt3nn0", "link_version": "1"}}}}))]
pub(crate) struct StripeEvent {
    #[schema(max_length = 255, pattern = r"^[^\u0000]*$")]
    id: String,
    #[schema(max_length = 255, pattern = r"^[^\u0000]*$")]
    r#type: String,
    /// Seconds since 1970.
    #[schema(nullable = false)]
    created: Option<i64>,
    #[schema(nullable = false, value_type = Object)]
    data: Option<()>,
}

/// A date, or an instant whose date in UTC is meant.
pub(crate) struct DateOrInstant;

impl ToSchema for DateOrInstant {}

impl PartialSchema for DateOrInstant {
    fn schema() -> RefOr<Schema> {
        let text = |format: &str, example: &str| {
            ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(utoipa::openapi::SchemaFormat::Custom(format.to_owned())))
                .examples([example])
        };
        AnyOfBuilder::new()
            .description(Some("A date such as 2024-01-15, or an instant such as 2024-01-15T10:30:00Z."))
            .item(text("date", "2024-01-15"))
            .item(text("date-time", "2024-01-15T10:30:00Z"))
            .into()
    }
}

/// How an export is written.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum ExportFormat {
    Ndjson,
    Csv,
}

pub(crate) fn only_ready() -> Object {
    one_of(["ready"])
}

pub(crate) fn only_pending() -> Object {
    one_of(["pending"])
}

pub(crate) fn only_failed() -> Object {
    one_of(["failed"])
}

/// Which page of a list.
pub(crate) struct PageNumber;

impl ToSchema for PageNumber {}

impl PartialSchema for PageNumber {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(isize::MAX)).into()
    }
}
