//! OpenAPI schemas of bodies that handlers parse by hand in order to report all errors at once.
//! `common::carts::new` and the handlers enforce the bounds; `.ci/schemathesis` tries both sides of
//! each.

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

/// A string with one of these values.
pub(crate) fn one_of(values: impl IntoIterator<Item = &'static str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).build()
}

/// Body of `POST /api/carts`. Unknown fields are ignored.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({
    "customerEmail": "ada@example.com", "customerName": "Ada Lovelace",
    "items": [{"name": "Teapot", "quantity": 2, "price": 49.99}],
}))]
pub(crate) struct NewCart {
    /// The shopper's e-mail address.
    #[schema(format = Email, max_length = 319, example = "ada@example.com")]
    customer_email: String,
    /// The shopper's name; surrounding white space is removed.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000]*[^\s\u0000\u0085][^\u0000]*$",
        example = "Ada Lovelace"
    )]
    customer_name: String,
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<NewCartItem>,
    /// When the shopper left the cart; not in the future. The default is now.
    abandoned_at: Option<DateTime<Utc>>,
}

/// One line of a cart.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct NewCartItem {
    /// Surrounding white space is removed.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000]*[^\s\u0000\u0085][^\u0000]*$",
        example = "Teapot"
    )]
    name: String,
    #[schema(minimum = 1, maximum = 10_000, example = 2)]
    quantity: u32,
    /// Price of one, with at most the decimals of the store's currency (2 for usd). Stored exactly
    /// as it is written.
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

/// Body of `PATCH /api/carts/{id}`.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"status": "recovered"}))]
pub(crate) struct CartChange {
    /// `recovered` is final.
    status: CartStatus,
    /// Allowed with the status recovered only; not in the future, not before `abandonedAt`. The
    /// default is now.
    recovered_at: Option<DateTime<Utc>>,
}

/// `data` of the response to `DELETE /api/carts/{id}`.
#[derive(ToSchema)]
pub(crate) struct DeletedCart {
    #[schema(example = "cart_01m84zjdhtftc9p973qfnt3nn0")]
    id: String,
    #[schema(schema_with = only_true)]
    deleted: bool,
}

/// A line of an import: a cart as in `POST /api/carts`, and what is known of its past.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct CartLine {
    #[schema(inline)]
    #[serde(flatten)]
    cart: NewCart,
    /// Your own id of the cart. Of several lines with the same id, the first creates the cart.
    #[schema(min_length = 1, max_length = 200)]
    external_id: Option<String>,
    /// The default is abandoned.
    status: Option<CartStatus>,
    /// Allowed with the status recovered only. The default is `abandonedAt`.
    recovered_at: Option<DateTime<Utc>>,
    /// Allowed with the status expired only. The default is `abandonedAt`.
    expired_at: Option<DateTime<Utc>>,
    /// Currency of the cart. The default is the store's.
    #[schema(pattern = "^[A-Za-z]{3}$", example = "usd")]
    currency: Option<String>,
}

/// A line of an import's response: one for each line of the file, then the summary.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum ImportAnswer {
    Line(ImportedLine),
    Summary(ImportSummary),
}

/// The result of a line.
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

/// Totals of an import.
#[derive(ToSchema)]
pub(crate) struct ImportSummary {
    summary: ImportTotals,
}

/// Totals of an import.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct ImportTotals {
    /// Lines that have a result.
    lines: u64,
    created: u64,
    exists: u64,
    errors: u64,
    /// Present if the import stopped early.
    #[schema(nullable = false)]
    incomplete: Option<bool>,
    /// The line to resume from, if the import stopped early.
    #[schema(nullable = false)]
    next_line: Option<u64>,
    /// Why the import stopped early.
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// An e-mail address to search for: not blank, without control characters except tabs, which a
/// quoted local part may contain.
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

/// Body of `POST /api/erasure`.
#[derive(ToSchema)]
#[schema(example = json!({"email": "ada@example.com"}))]
pub(crate) struct Shopper {
    /// The whole address, in any spelling.
    #[schema(schema_with = email_to_find)]
    email: String,
}

/// State of the newest request for a cart's payment link.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = PaymentLinkStatus)]
pub(crate) enum LinkState {
    Ready(crate::routes::payment_links::Ready),
    Pending(crate::routes::payment_links::Pending),
    Failed(crate::routes::payment_links::Failed),
}

/// Body of `POST /api/jobs/retry`.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"queue": "payment-links", "dryRun": true}))]
pub(crate) struct DeadJobs {
    #[schema(schema_with = queue_name)]
    queue: String,
    /// Only jobs of this kind.
    #[schema(min_length = 1, pattern = r"^[^\u0000]+$")]
    kind: Option<String>,
    /// Only jobs whose last error contains this text.
    #[schema(min_length = 1, pattern = r"^[^\u0000]+$")]
    error: Option<String>,
    /// Counts the jobs and changes nothing.
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

/// An event from Stripe, of any type and API version. Only a few fields are read.
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
    /// Unix time in seconds.
    #[schema(nullable = false)]
    created: Option<i64>,
    #[schema(nullable = false, value_type = Object)]
    data: Option<()>,
}

/// A date or an instant.
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

/// Format of an export.
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

/// Page number of a list, from 1.
pub(crate) struct PageNumber;

impl ToSchema for PageNumber {}

impl PartialSchema for PageNumber {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(isize::MAX)).into()
    }
}
