//! The filters of the list of carts: which date, from when to when, what value, which link, in which order.

use chrono::{DateTime, Days, Utc};
use chrono_tz::Tz;
use common::{
    carts::{
        CartStatus,
        filter::{Filter, LinkFilter, Period},
        list::{Sort, SortKey},
    },
    clock,
    money::Currency,
    time_zone,
};
use maud::{Markup, html};

use super::format;
use crate::{
    http::{base_path::at, error::ApiError, query::Parameters},
    routes::carts::filters,
};

/// The names of all parameters but `page`, in the order of a link.
const NAMES: [&str; 10] = ["q", "status", "currency", "date", "from", "to", "minValue", "maxValue", "link", "sort"];

/// What the list shows: the filter, the order, and the parameters they come from.
pub(crate) struct Choice<'p> {
    pub(crate) filter: Filter,
    pub(crate) sort: Sort,
    /// The date that the list shows.
    pub(crate) date: SortKey,
    parameters: &'p Parameters,
}

/// The dates of a cart to choose from. The list has that date, and is sorted by it.
const DATES: [(&str, SortKey, &str); 3] = [
    ("created", SortKey::CreatedAt, "Created"),
    ("abandoned", SortKey::AbandonedAt, "Abandoned"),
    ("recovered", SortKey::RecoveredAt, "Recovered"),
];

/// The orders to choose from: whether by date, and whether descending.
const ORDERS: [(&str, bool, bool, &str); 4] = [
    ("newest", true, true, "Newest first"),
    ("oldest", true, false, "Oldest first"),
    ("highest", false, true, "Highest value first"),
    ("lowest", false, false, "Lowest value first"),
];

/// The filters in a query string or a form, as pairs of a query string.
pub(crate) fn pairs<'p>(get: impl Fn(&str) -> Option<&'p str>) -> [(&'static str, Option<&'p str>); NAMES.len()] {
    NAMES.map(|name| (name, get(name)))
}

impl<'p> Choice<'p> {
    /// Parses a query as the API does, but for dates and orders: `date` says which date `from` and `to` are about, both
    /// are days of the shop's time zone, and `to` is the last day.
    pub(crate) fn of(parameters: &'p Parameters, zone: Tz) -> Result<Self, ApiError> {
        let mut filter = filters::without_periods(parameters)?;
        let day = |name| parameters.parse(name, "a date such as 2024-01-15", clock::parse_date);
        let (first, last) = (day("from")?, day("to")?);
        if first.zip(last).is_some_and(|(first, last)| first > last) {
            return Err(ApiError::bad_request("The first day must not be after the last"));
        }
        let period = Period {
            from: first.map(|first| time_zone::start_of(first, zone)),
            to: last.and_then(|last| last.checked_add_days(Days::new(1))).map(|end| time_zone::start_of(end, zone)),
        };
        let date = parameters.parse("date", "created, abandoned or recovered", |text| {
            DATES.iter().find(|(name, ..)| *name == text).map(|(_, key, _)| *key)
        })?;
        let order = parameters.parse("sort", "newest, oldest, highest or lowest", |text| {
            ORDERS.iter().find(|(name, ..)| *name == text).map(|(_, by_date, descending, _)| (*by_date, *descending))
        })?;
        let date = date.unwrap_or(SortKey::CreatedAt);
        match date {
            SortKey::AbandonedAt => filter.abandoned = period,
            SortKey::RecoveredAt => {
                filter.recovered = period;
                filter.status = filter.status.or(Some(CartStatus::Recovered)); // the others have no such date
            }
            SortKey::CreatedAt | SortKey::TotalValue => filter.created = period,
        }
        let (by_date, descending) = order.unwrap_or((true, true));
        let sort = Sort { key: if by_date { date } else { SortKey::TotalValue }, descending };
        Ok(Self { filter, sort, date, parameters })
    }

    /// Whether anything but the status and the text is chosen.
    pub(crate) fn has_filters(&self) -> bool {
        let rest = Filter { status: self.filter.status, text: self.filter.text.clone(), ..Filter::default() };
        self.filter != rest || self.sort != Sort::default()
    }

    /// The parameters as pairs of a query string, with another status.
    pub(crate) fn with_status(&self, status: Option<CartStatus>) -> Vec<(&'static str, Option<&str>)> {
        let mut pairs = self.pairs();
        for (name, value) in &mut pairs {
            match *name {
                "status" => *value = status.map(CartStatus::as_str),
                // Only recovered carts have that date.
                "date" if *value == Some("recovered") && status != Some(CartStatus::Recovered) => *value = None,
                _ => {}
            }
        }
        pairs
    }

    /// The parameters as pairs of a query string.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, Option<&str>)> {
        pairs(|name| self.parameters.get(name)).into()
    }

    /// Inputs that keep the parameters in another form; those in `but` are its own.
    pub(crate) fn hidden(&self, but: &[&str]) -> Markup {
        format::kept(&pairs(|name| self.parameters.get(name).filter(|_| !but.contains(&name))))
    }

    /// The form of all filters.
    pub(crate) fn form(&self, currencies: &[Currency]) -> Markup {
        let value = |name| self.parameters.get(name);
        html! {
            details #filters .menu {
                summary class=(if self.has_filters() { "button chosen" } else { "button" }) { "Filter and sort" }
                form.panel.filters method="get" action=(at("/carts")) {
                    (self.hidden(&["date", "from", "to", "minValue", "maxValue", "currency", "link", "sort"]))
                    label { "Date" select name="date" {
                        @for (name, key, label) in DATES { option value=(name) selected[key == self.date] { (label) } }
                    } }
                    div.pair {
                        label { "From" input type="date" name="from" value=[value("from")]; }
                        label { "To" input type="date" name="to" value=[value("to")]; }
                    }
                    div.pair {
                        label { "Lowest value" input type="number" name="minValue" min="0" step="any" inputmode="decimal" value=[value("minValue")]; }
                        label { "Highest value" input type="number" name="maxValue" min="0" step="any" inputmode="decimal" value=[value("maxValue")]; }
                    }
                    @if currencies.len() > 1 || self.filter.currency.is_some() {
                        label { "Currency" select name="currency" {
                            option value="" { "All" }
                            @for currency in currencies {
                                option value=(currency) selected[self.filter.currency == Some(*currency)] { (currency.code().to_ascii_uppercase()) }
                            }
                        } }
                    }
                    label { "Payment link" select name="link" {
                        option value="" { "Any" }
                        @for (link, label) in LINKS {
                            @let name: &str = link.into();
                            option value=(name) selected[self.filter.link == Some(link)] { (label) }
                        }
                    } }
                    label { "Sort by" select name="sort" {
                        @for (name, _, _, label) in ORDERS {
                            option value=(name) selected[value("sort").unwrap_or("newest") == name] { (label) }
                        }
                    } }
                    button.button.primary type="submit" { "Apply" }
                }
            }
        }
    }

    /// What is chosen, in words; empty if nothing is.
    pub(crate) fn words(&self, zone: Tz) -> Vec<String> {
        let filter = &self.filter;
        let mut words = Vec::new();
        for (name, period) in
            [("created", filter.created), ("abandoned", filter.abandoned), ("recovered", filter.recovered)]
        {
            words.extend(days(period, zone).map(|days| format!("{name} {days}")));
        }
        let currency = filter.currency.map(|currency| format!(" {}", currency.code().to_ascii_uppercase()));
        let unit = currency.clone().unwrap_or_default();
        match (filter.min_value, filter.max_value) {
            (Some(min), Some(max)) => words.push(format!("value {min} to {max}{unit}")),
            (Some(min), None) => words.push(format!("value from {min}{unit}")),
            (None, Some(max)) => words.push(format!("value up to {max}{unit}")),
            (None, None) => words.extend(currency.map(|currency| format!("in{currency}"))),
        }
        if let Some(link) = filter.link {
            words.extend(LINKS.iter().find(|(one, _)| *one == link).map(|(_, label)| format!("payment link: {label}")));
        }
        let order = self.parameters.get("sort").filter(|order| *order != "newest");
        words.extend(ORDERS.iter().find(|(name, ..)| order == Some(name)).map(|(.., label)| label.to_lowercase()));
        words
    }
}

const LINKS: [(LinkFilter, &str); 5] = [
    (LinkFilter::None, "none"),
    (LinkFilter::Pending, "being created"),
    (LinkFilter::Ready, "active"),
    (LinkFilter::Processing, "payment in progress"),
    (LinkFilter::Failed, "failed"),
];

/// `1 Nov 2026 – 3 Nov 2026`, both days included, or `1 Nov 2026`.
fn days(period: Period, zone: Tz) -> Option<String> {
    let day = |at: DateTime<Utc>| format::day(time_zone::date(at, zone));
    let last = |end: DateTime<Utc>| day(end - chrono::TimeDelta::seconds(1));
    match (period.from, period.to) {
        (Some(from), Some(to)) if day(from) == last(to) => Some(day(from)),
        (Some(from), Some(to)) => Some(format!("{} – {}", day(from), last(to))),
        (Some(from), None) => Some(format!("from {}", day(from))),
        (None, Some(to)) => Some(format!("until {}", last(to))),
        (None, None) => None,
    }
}
