//! `/api/erasure`: exports or erases all data of a person.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use common::{
    audit::{self, Action},
    carts::{
        self,
        filter::Filter,
        list::{Cursor, Sort, Start},
        search::EmailToFind,
    },
    db,
    json::{self, Fields},
    personal_data::{self, ERASED_EMAIL, ErasureId, Receipt, Records},
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::routes;

use crate::{
    auth::{keys::By, scoped_router::ScopedRouter},
    http::{
        body::{Data, JsonBody, Success},
        error::ApiError,
        pagination::{NextLink, Page, Pagination, next_link},
        query::{self, Parameters},
    },
    state::AppState,
};

/// Attempts after deadlocks: two erasures that lock the same jobs may wait for each other, and
/// Postgres aborts one of them.
const ATTEMPTS: usize = 5;

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().write(routes!(erase)).read(routes!(export)).operator(routes!(show))
}

/// Erase a shopper
///
/// Erases all data of a person. The carts with this address, in any spelling, are deleted as
/// `DELETE /api/carts/{id}` does. Other records that refer to these carts or contain the address
/// lose that data. The erasure takes effect as a whole or not at all. It covers every cart whose
/// creation was confirmed before the request. A cart that is stored meanwhile may be missed: repeat
/// the request until the receipt says 0.
#[utoipa::path(
    post, path = "/erasure", operation_id = "eraseShopper", tag = "Personal data",
    request_body = Shopper,
    responses((status = 200, description = "The person is not there any more; what was taken out", body = Success<Receipt>)),
)]
async fn erase(State(state): State<AppState>, by: By, JsonBody(body): JsonBody) -> Result<Data<Receipt>, ApiError> {
    let Shopper { email } = Shopper::parse(&body)?;
    let now = state.clock.now();
    let (_permit, database) = state.erasures.begin(&state.database).await?;
    let mut attempt = 1;
    let receipt = loop {
        let mut tx = database.begin().await?;
        match personal_data::erase(&mut tx, &email, now).await {
            Err(error) if db::is_deadlock(&error) && attempt < ATTEMPTS => {
                tx.rollback().await?;
                attempt += 1;
            }
            erased => {
                let receipt = erased?;
                audit::note(&mut tx, &by.0, Action::ShopperErased, &receipt.id, now).await?;
                tx.commit().await?;
                break receipt;
            }
        }
    };
    tracing::info!(receipt = receipt.id, removed = receipt.removed.get(), "erased a person");
    Ok(Data(receipt))
}

/// Body of `POST /api/erasure`.
#[derive(ToSchema)]
#[schema(example = json!({"email": "ada@example.com"}))]
struct Shopper {
    /// The whole address, in any spelling.
    #[schema(schema_with = query::EmailToFind::schema)]
    email: EmailToFind,
}

impl Shopper {
    fn parse(body: &RawValue) -> Result<Self, ApiError> {
        const FIELD: &str = "email";
        let Some(fields) = Fields::of(body) else { return Err(ApiError::invalid("", "must be an object")) };
        let email = match fields.get(FIELD) {
            None => return Err(ApiError::invalid(FIELD, "is required")),
            Some(value) => json::text(value).and_then(|text| text.parse::<EmailToFind>().ok()),
        };
        let email = email.ok_or_else(|| ApiError::invalid(FIELD, "must be an e-mail address"))?;
        // Carts of many people have this address; they are kept so that they still count.
        if email.canonical() == ERASED_EMAIL {
            return Err(ApiError::invalid(FIELD, "is of carts whose shopper was taken out already"));
        }
        Ok(Self { email })
    }
}

/// Get an erasure receipt
///
/// The receipt has the number of affected records, and no personal data.
#[utoipa::path(
    get, path = "/erasure/{id}", operation_id = "showErasure", tag = "Personal data",
    params(("id" = String, Path, pattern = "^erasure_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "Which receipt.")),
    responses((status = 200, description = "The receipt", body = Success<Receipt>)),
)]
async fn show(State(state): State<AppState>, ErasurePath(id): ErasurePath) -> Result<Data<Receipt>, ApiError> {
    let mut conn = state.lookups.acquire().await?;
    let receipt = personal_data::receipt(&mut conn, &id).await?.ok_or_else(not_found)?;
    Ok(Data(receipt))
}

/// The receipt id in a path. Malformed ids return 404.
struct ErasurePath(ErasureId);

impl<S: Send + Sync> FromRequestParts<S> for ErasurePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| not_found())?;
        id.parse().map(Self).map_err(|_| not_found())
    }
}

fn not_found() -> ApiError {
    ApiError::not_found("Receipt not found")
}

/// The stored data of a person.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PersonalData {
    /// The requested address.
    #[schema(example = "ada@example.com")]
    email: String,
    /// Time of the export.
    exported_at: DateTime<Utc>,
    /// `carts`, `timeline`, `paymentLinks`, `recoveryLinks`, `jobs`, `idempotencyKeys`,
    /// `stripeEvents` and `reversals` (refunds and disputes) of the carts on this page, each with
    /// all that is stored of it. More kinds may be added.
    #[schema(value_type = std::collections::BTreeMap<String, Vec<Object>>,
        example = json!({"carts": [{"id": "cart_01m84zjdhtftc9p973qfnt3nn0", "customer_email": "ada@example.com"}]}))]
    records: Records,
    /// Pagination of the carts.
    pagination: Pagination,
}

/// Export a shopper's data
///
/// Everything in the database about the carts with this address, one page of carts at a time,
/// newest first. Working links and tokens are left out, because a reader of the export could act
/// for the shopper with them.
#[utoipa::path(
    get, path = "/erasure/export", operation_id = "exportShopper", tag = "Personal data",
    params(
        ("email" = inline(query::EmailToFind), Query, description = "The whole address, in any spelling."),
        Page,
        ("cursor" = Option<String>, Query, pattern = "^-?[0-9]{1,16}-[A-Za-z0-9_-]{1,200}$", description = "The `nextCursor` of the page before; `page` does not count then."),
    ),
    responses((status = 200, description = "A page of it", body = Success<PersonalData>,
        headers(("Link" = String, description = "The address of the next page, with `rel=\"next\"`; absent on the last one.")))),
)]
async fn export(
    State(state): State<AppState>,
    parameters: Parameters,
) -> Result<(NextLink, Data<PersonalData>), ApiError> {
    let email: Option<EmailToFind> = parameters.parse("email", "an e-mail address", |text| text.parse().ok())?;
    let email = email.ok_or_else(|| ApiError::bad_request("email is required: an e-mail address"))?;
    let page = Page { number: parameters.page()?, limit: parameters.limit_or(100)? };
    let cursor =
        parameters.parse("cursor", "a pagination.nextCursor of this export", |text| text.parse::<Cursor>().ok())?;
    let start = cursor.map_or(Start::Offset(page.offset()), Start::After);

    let now = state.clock.now();
    let (_permit, database) = state.erasures.begin(&state.database).await?;
    let mut conn = carts::filter::begin(&database).await?;
    let of_person = Filter { email: Some(email.clone()), ..Filter::default() };
    let of_person = of_person.read(&mut conn, Sort::default(), now).await?;
    let found = of_person.page(&mut conn, start, page.limit).await?;
    let total = of_person.count(&mut conn).await?;
    let ids: Vec<&str> = found.carts.iter().map(|cart| cart.id.as_str()).collect();
    let records = personal_data::export(&mut conn, &ids).await?;
    conn.commit().await?;
    let next = found.next.map(|cursor| cursor.to_string());
    let link = next_link(&parameters, "/api/erasure/export", "cursor", next.as_deref());
    let pagination = Pagination::new(page, total).with_cursor(next);
    Ok((link, Data(PersonalData { email: email.as_str().to_owned(), exported_at: now, records, pagination })))
}
