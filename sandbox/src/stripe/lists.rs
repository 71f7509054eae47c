//! Pages of lists (<https://docs.stripe.com/api/pagination>).

use axum::http::StatusCode;

use super::{form::Parameters, refusal::Refusal};

/// An object of a list.
pub(super) trait Listed {
    fn id(&self) -> &str;
    /// When it was created, in seconds since 1970.
    fn created(&self) -> i64;
}

/// The page that these parameters ask for (`created[gte]`, `created[lte]`, `limit`,
/// `starting_after`), of the objects that are wanted. `true` if there are more.
pub(super) fn page<'a, T: Listed>(
    parameters: &Parameters,
    newest_first: impl Iterator<Item = &'a T>,
    is_wanted: impl Fn(&T) -> bool,
) -> Result<(Vec<&'a T>, bool), Refusal> {
    let number = |name: &str, otherwise| parameters.get(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let created = number("created[gte]", i64::MIN)..=number("created[lte]", i64::MAX);
    let limit = usize::try_from(number("limit", 10)).unwrap_or(10).clamp(1, 100);
    let mut page = Vec::new();
    let mut after = parameters.get("starting_after");
    for object in newest_first {
        if let Some(last) = after {
            after = after.filter(|_| object.id() != *last);
        } else if created.contains(&object.created()) && is_wanted(object) && page.len() <= limit {
            page.push(object);
        }
    }
    if let Some(unknown) = after {
        return Err(Refusal::missing(StatusCode::BAD_REQUEST, unknown));
    }
    let has_more = page.len() > limit;
    page.truncate(limit);
    Ok((page, has_more))
}
