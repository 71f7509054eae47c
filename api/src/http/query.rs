//! Query strings: malformed values are rejected by name. `declared` rejects unknown names.

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use chrono::{DateTime, NaiveTime, Utc};
use common::clock;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, SchemaFormat, Type, schema::AnyOfBuilder},
};

use super::error::ApiError;

/// The parameters of a request. The last value of a repeated parameter counts; an empty value
/// counts as absent.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs): Query<Vec<(String, String)>> = Query::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::bad_request("The query string can't be read"))?;
        // Postgres can't store NUL in text.
        if pairs.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
            return Err(ApiError::bad_request("The query string must not contain NUL"));
        }
        Ok(Self(pairs))
    }
}

impl Parameters {
    /// All names and values, in the order of the request.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// All values of a repeated parameter.
    pub(crate) fn all<'p>(&'p self, name: &'p str) -> impl Iterator<Item = &'p str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn parse<T>(
        &self,
        name: &str,
        takes: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let refuse = || ApiError::bad_request(format!("{name} must be {takes}"));
        self.get(name).map(|text| parse(text).ok_or_else(refuse)).transpose()
    }

    pub(crate) fn page(&self) -> Result<i64, ApiError> {
        let page = self.parse("page", "a whole number from 1", |text| text.parse().ok().filter(|page| *page >= 1))?;
        Ok(page.unwrap_or(1))
    }

    pub(crate) fn limit(&self) -> Result<i64, ApiError> {
        self.limit_or(10)
    }

    pub(crate) fn limit_or(&self, default: i64) -> Result<i64, ApiError> {
        let limit = self.parse("limit", "a whole number from 1 to 100", |text| {
            text.parse().ok().filter(|n| (1..=100).contains(n))
        })?;
        Ok(limit.unwrap_or(default))
    }
}

/// Describes what [`date_or_instant`] accepts, for error messages.
pub(crate) const DATE_OR_INSTANT: &str = "a date such as 2024-01-15 or an instant such as 2024-01-15T10:30:00Z";

/// The values that [`date_or_instant`] accepts, for the OpenAPI document.
pub(crate) struct DateOrInstant;

impl ToSchema for DateOrInstant {}

impl PartialSchema for DateOrInstant {
    fn schema() -> RefOr<Schema> {
        let text = |format: &str, example: &str| {
            let format = SchemaFormat::Custom(format.to_owned());
            ObjectBuilder::new().schema_type(Type::String).format(Some(format)).examples([example])
        };
        AnyOfBuilder::new()
            .description(Some("A date such as 2024-01-15, or an instant such as 2024-01-15T10:30:00Z."))
            .item(text("date", "2024-01-15"))
            .item(text("date-time", "2024-01-15T10:30:00Z"))
            .into()
    }
}

/// The values that [`common::carts::search::EmailToFind`] accepts, for the OpenAPI document: not
/// blank, and without control characters except tabs, which a quoted local part may contain.
pub(crate) struct EmailToFind;

impl ToSchema for EmailToFind {}

impl PartialSchema for EmailToFind {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .max_length(Some(1_000))
            .pattern(Some(r"^[^\x00-\x08\x0a-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x08\x0a-\x1f\x7f-\x9f]*$"))
            .examples(["ada@example.com"])
            .into()
    }
}

/// Parses an instant, or a date as its beginning in UTC. A space is read as a `+` that the client
/// did not escape.
pub(crate) fn date_or_instant(text: &str) -> Option<DateTime<Utc>> {
    let day = clock::parse_date(text).map(|day| day.and_time(NaiveTime::MIN).and_utc());
    day.or_else(|| clock::parse_instant(&text.replace(' ', "+")))
}

#[cfg(test)]
mod properties;
