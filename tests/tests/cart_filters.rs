//! The list of carts with filters and in other orders, compared with the same done here.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use common::{
    carts::{
        filter::{self, Filter},
        list::Start,
    },
    money::Currency,
};
use serde_json::{Value, json};
use tests::{App, Setup, eventually, transaction};

use crate::dashboard::Operator;

/// Carts of three statuses, two currencies, several totals, times, names and links.
async fn seed(app: &App) {
    app.sql(
        "insert into carts (id, external_id, customer_email, customer_name, items, total_minor, currency, status, abandoned_at,
                            recovered_at, expired_at, created_at)
         select 'cart_' || lpad(n::text, 3, '0'), case when n % 2 = 0 then 'order-' || 1000 + n end,
                (array['ada', 'Zoë.Müller', 'fang'])[1 + n % 3] || '@' || (array['example.com', 'xn--mnchen-3ya.example'])[1 + n % 2],
                (array['Ada Lovelace', 'Zoë Müller', '王芳', null])[1 + n % 4], '[]', (n % 7) * 1000 + n % 2,
                (array['usd', 'kwd', 'jpy'])[1 + n % 3], s.status, t.at,
                case s.status when 'recovered' then t.at + n % 5 * interval '1 hour' end,
                case s.status when 'expired' then t.at + interval '1 day' end, t.at + n % 4 * interval '1 minute'
         from generate_series(1, 120) n
         cross join lateral (select timestamptz '2026-02-01T00:00Z' + n / 2 * interval '6 hours' as at) t
         cross join lateral (select (array['abandoned', 'recovered', 'expired', 'abandoned'])[1 + n % 4] as status) s;
         insert into payment_links (cart_id, version, status, job_id, session_expires_at, session_id, url, created_at, updated_at)
         select id, version, status, gen_random_uuid(), timestamptz '2026-03-09T12:00Z' + n % 3 * interval '1 day', 'cs_' || id || version,
                'https://checkout.stripe.com/x', now(), now()
         from (select id, substr(id, 6)::integer as n from carts) carts
         cross join lateral (values (1, (array['failed', 'closed', 'pending', 'open', 'processing', 'paid', 'settling'])[1 + n % 7])) link (version, status)
         where n % 3 > 0
         union all
         select id, 2, (array['open', 'payment_failed', 'closed'])[1 + substr(id, 6)::integer % 3], gen_random_uuid(), '2026-03-11T12:00Z', 'cs_' || id || 2,
                'https://checkout.stripe.com/x', now(), now()
         from carts where substr(id, 6)::integer % 21 = 7
         union all
         select id, 2, 'pending', gen_random_uuid(), '2026-03-11T12:00Z', 'cs_' || id || 2, null, now(), now()
         from carts where substr(id, 6)::integer % 21 = 4;
         insert into jobs (id, queue, kind, payload, subject, max_attempts, state, finished_at)
         select job_id, 'payment-links', 'create_payment_link', '{}', cart_id, 12, s.state, case s.state when 'dead' then now() end
         from payment_links cross join lateral (select (array['pending', 'dead'])[1 + substr(cart_id, 6)::integer % 2] as state) s
         where status = 'pending' and substr(cart_id, 6)::integer % 5 > 0;",
    )
    .await;
}

/// A cart as the API shows it, and the state of its link as a filter names it.
struct Known {
    cart: Value,
    link: String,
}

async fn all(app: &App) -> Vec<Known> {
    let mut known = Vec::new();
    for page in 1..=2 {
        for cart in app.get(&format!("/api/carts?limit=100&page={page}")).await.data(200)["carts"].as_array().unwrap() {
            let newest: Option<(String, DateTime<Utc>)> = sqlx::query_as(
                "select status, session_expires_at from payment_links where cart_id = $1 order by version desc limit 1",
            )
            .bind(cart["id"].as_str())
            .fetch_optional(&app.pool)
            .await
            .unwrap();
            let link = match newest.as_ref().map(|(status, expires)| (status.as_str(), *expires)) {
                Some(("failed" | "payment_failed" | "settling", _)) => "failed",
                Some(("open", expires)) if expires > app.now() && cart["status"] == "abandoned" => "ready",
                Some(("pending", _)) => {
                    let state = app.get(&format!("/api/carts/{}/payment-link", cart["id"].as_str().unwrap())).await;
                    if state.data(200)["status"] == "pending" { "pending" } else { "failed" }
                }
                Some(("processing", _)) => "processing",
                _ => "none",
            };
            known.push(Known { cart: cart.clone(), link: link.to_owned() });
        }
    }
    assert_eq!(known.len(), 120);
    known
}

fn text(cart: &Value, field: &str) -> String {
    cart[field].as_str().unwrap_or_default().to_owned()
}

/// Whether the cart matches one parameter.
fn matches(known: &Known, name: &str, value: &str) -> bool {
    let cart = &known.cart;
    // All times and dates are of one length up to the day.
    let at_least = |field: &str| !text(cart, field).is_empty() && text(cart, field).as_str() >= value;
    let before = |field: &str| !text(cart, field).is_empty() && text(cart, field).as_str() < value;
    match name {
        "status" | "currency" | "externalId" => text(cart, name) == value,
        "from" => at_least("createdAt"),
        "to" => before("createdAt"),
        "abandonedFrom" => at_least("abandonedAt"),
        "abandonedTo" => before("abandonedAt"),
        "recoveredFrom" => at_least("recoveredAt"),
        "recoveredTo" => before("recoveredAt"),
        "minValue" => cart["totalValue"].as_f64().unwrap() >= value.parse().unwrap(),
        "maxValue" => cart["totalValue"].as_f64().unwrap() <= value.parse().unwrap(),
        "link" => known.link == value,
        "email" => text(cart, "customerEmail").eq_ignore_ascii_case(value),
        "q" => {
            let plain = |text: String| {
                text.to_lowercase().replace('ë', "e").replace('ü', "u").replace("xn--mnchen-3ya", "munchen")
            };
            let parts = ["customerName", "customerEmail", "externalId"].map(|field| plain(text(cart, field)));
            parts.iter().any(|part| part.contains(&plain(value.to_owned())))
        }
        _ => unreachable!("{name}"),
    }
}

/// The order that `sort` asks for.
fn compare(one: &Value, other: &Value, sort: &str) -> Ordering {
    let (key, descending) = sort.strip_prefix('-').map_or((sort, false), |key| (key, true));
    let total = |cart: &Value| cart["totalValue"].as_f64().unwrap();
    let order = match key {
        "totalValue" => total(one).total_cmp(&total(other)),
        key => text(one, key).cmp(&text(other, key)),
    };
    let order = order.then_with(|| text(one, "id").cmp(&text(other, "id")));
    if descending { order.reverse() } else { order }
}

fn ids(carts: &[Value]) -> Vec<String> {
    carts.iter().map(|cart| text(cart, "id")).collect()
}

const SORTS: [&str; 8] = [
    "-createdAt",
    "createdAt",
    "-abandonedAt",
    "abandonedAt",
    "-recoveredAt",
    "recoveredAt",
    "-totalValue",
    "totalValue",
];

const FILTERS: [&str; 46] = [
    "",
    "status=abandoned",
    "status=recovered",
    "status=expired",
    "currency=jpy",
    "from=2026-02-03",
    "to=2026-02-05",
    "from=2026-02-03&to=2026-02-05",
    "abandonedFrom=2026-02-07",
    "abandonedTo=2026-02-04",
    "recoveredFrom=2026-02-06",
    "recoveredTo=2026-02-06",
    "minValue=30",
    "maxValue=30",
    "minValue=20.01&maxValue=40",
    "minValue=1000&currency=jpy",
    "minValue=2.001&maxValue=4&currency=kwd",
    "minValue=30.01&currency=usd",
    "link=none",
    "link=pending",
    "link=ready",
    "link=failed",
    "link=processing",
    "link=ready&currency=usd",
    "link=ready&status=recovered",
    "link=failed&status=expired",
    "link=failed&status=recovered",
    "link=failed&q=example.com&minValue=10",
    "status=recovered&q=zoe&currency=usd",
    "status=expired&q=example.com",
    "link=failed&currency=jpy&status=abandoned",
    "link=pending&q=example",
    "q=ada",
    "q=LOVE",
    "q=zoe",
    "q=müller",
    "q=王芳",
    "q=münchen",
    "q=1004",
    "q=nobody",
    "q=ada&status=abandoned&link=failed",
    "link=none&minValue=10&status=expired",
    "q=example.com&currency=usd&from=2026-02-02",
    "email=ada@example.com&link=none",
    "externalId=order-1004&status=abandoned",
    "externalId=order-1004&q=zo",
];

/// The filters, in each order, by pages and by cursor.
async fn compare_all(app: &App, filters: impl IntoIterator<Item = &str>) {
    let known = all(app).await;
    for filter in filters {
        let pairs: Vec<(&str, &str)> = filter.split('&').filter_map(|pair| pair.split_once('=')).collect();
        for sort in SORTS {
            let matching = known.iter().filter(|one| pairs.iter().all(|(name, value)| matches(one, name, value)));
            let mut expected: Vec<Value> = matching.map(|one| one.cart.clone()).collect();
            expected.sort_by(|one, other| compare(one, other, sort));
            let query = format!("/api/carts?sort={sort}&{filter}");
            let first = app.get(&format!("{query}&limit=100")).await.data(200);
            let what = format!("{filter} {sort}");
            assert_eq!(first["pagination"]["total"], json!(expected.len()), "{what}");
            let shown = first["carts"].as_array().unwrap();
            assert_eq!(ids(shown), ids(&expected[..expected.len().min(100)]), "{what}");
            assert_eq!(shown.as_slice(), &expected[..expected.len().min(100)], "{what}");
            let second = app.get(&format!("{query}&limit=7&page=2")).await.data(200);
            let page: Vec<Value> = expected.iter().skip(7).take(7).cloned().collect();
            assert_eq!(ids(second["carts"].as_array().unwrap()), ids(&page), "page 2 of {what}");
            walk(app, &pairs, sort, &ids(&expected)).await;
            if sort == "-totalValue" || (filter.is_empty() && sort.starts_with('-')) {
                assert_eq!(by_cursor(app, &query).await, ids(&expected), "by cursor, {what}");
            }
        }
    }
}

/// Reads the list in its order and counts it, as if too many carts matched to be sorted.
async fn walk(app: &App, pairs: &[(&str, &str)], sort: &str, expected: &[String]) {
    let mut filter = Filter::default();
    for (name, value) in pairs {
        let time = || Some(format!("{value}T00:00:00Z").parse().unwrap());
        match *name {
            "status" => filter.status = Some(value.parse().unwrap()),
            "currency" => filter.currency = Some(value.parse().unwrap()),
            "externalId" => filter.external_id = Some((*value).to_owned()),
            "from" => filter.created.from = time(),
            "to" => filter.created.to = time(),
            "abandonedFrom" => filter.abandoned.from = time(),
            "abandonedTo" => filter.abandoned.to = time(),
            "recoveredFrom" => filter.recovered.from = time(),
            "recoveredTo" => filter.recovered.to = time(),
            "minValue" => filter.min_value = Some(value.parse().unwrap()),
            "maxValue" => filter.max_value = Some(value.parse().unwrap()),
            "link" => filter.link = Some(value.parse().unwrap()),
            "email" => filter.email = Some(value.parse().unwrap()),
            "q" => filter.text = Some(value.parse().unwrap()),
            _ => unreachable!("{name}"),
        }
    }
    let mut tx = filter::begin(&app.pool.clone().into()).await.unwrap();
    let query = filter.read(&mut tx, sort.parse().unwrap(), app.now()).await.unwrap();
    let (mut walked, mut start) = (Vec::new(), Start::Offset(0));
    loop {
        let page = query.page(&mut tx, start, 50).await.unwrap();
        walked.extend(page.carts.into_iter().map(|cart| cart.id));
        match page.next {
            Some(next) => start = Start::After(next),
            None => break,
        }
    }
    assert_eq!(walked, expected, "{pairs:?} {sort}");
    assert_eq!(usize::try_from(query.count(&mut tx).await.unwrap()), Ok(expected.len()), "{pairs:?} {sort}");
}

async fn by_cursor(app: &App, query: &str) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("{query}&limit=23&cursor={cursor}")).await.data(200);
        all.extend(ids(page["carts"].as_array().unwrap()));
        match page["pagination"]["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return all,
        }
    }
}

async fn unindexed(app: &App) -> i64 {
    sqlx::query_scalar("select count(*) from cart_search_changes").fetch_one(&app.pool).await.unwrap()
}

#[tokio::test]
async fn filters_find_what_they_name_before_and_after_indexing() {
    let app = Setup::default().without_worker().at("2026-03-10T12:00:00Z").start().await;
    seed(&app).await;
    assert!(unindexed(&app).await > 0);
    compare_all(&app, FILTERS).await;
    index(&app).await;
    // A text is looked up by its rarest pairs of characters.
    sqlx::raw_sql("analyze cart_search").execute(&app.pool).await.unwrap();
    compare_all(&app, FILTERS).await;
}

async fn index(app: &App) {
    let worker = app.start_worker();
    eventually("all carts are indexed", async || unindexed(app).await == 0).await;
    worker.stop().await;
}

#[tokio::test]
async fn statuses_and_links_that_change_are_found_before_and_after_indexing() {
    let app = Setup::default().without_worker().at("2026-03-10T12:00:00Z").start().await;
    seed(&app).await;
    index(&app).await;
    app.sql(
        "update carts set status = (array['recovered', 'expired', 'abandoned'])[1 + substr(id, 6)::integer % 3];
         update payment_links set status = 'failed' where status = 'open' and substr(cart_id, 6)::integer % 2 = 0;
         update payment_links set status = 'closed' where status = 'settling' and substr(cart_id, 6)::integer % 2 = 0;
         insert into payment_links (cart_id, version, status, job_id, session_expires_at, session_id, created_at, updated_at)
         select cart_id, 3, (array['closed', 'failed', 'settling'])[1 + substr(cart_id, 6)::integer % 3], gen_random_uuid(),
                '2026-03-11T12:00Z', null, now(), now()
         from payment_links where version = 1 and substr(cart_id, 6)::integer % 5 = 1;
         insert into payment_links (cart_id, version, status, job_id, session_expires_at, session_id, created_at, updated_at)
         select id, 1, 'failed', gen_random_uuid(), '2026-03-11T12:00Z', null, now(), now()
         from carts where substr(id, 6)::integer % 30 = 0;
         delete from payment_links where status = 'payment_failed' or (version = 3 and substr(cart_id, 6)::integer % 4 = 2);
         update payment_links set version = 9 where version = 1 and substr(cart_id, 6)::integer % 7 = 0;
         update jobs set state = 'dead', finished_at = now() where state = 'pending' and subject < 'cart_060';",
    )
    .await;
    assert!(unindexed(&app).await > 0);
    let changed = || FILTERS.into_iter().filter(|filter| filter.contains("status") || filter.contains("link"));
    compare_all(&app, changed()).await;
    index(&app).await;
    compare_all(&app, changed()).await;
}

#[tokio::test]
async fn a_change_is_found_at_once_and_old_text_is_not() {
    let app = Setup::default().start().await;
    let found =
        async |text: &str| app.get(&format!("/api/carts?q={text}")).await.data(200)["pagination"]["total"].clone();
    let (changed, erased) = (app.cart().await, app.cart().await);
    assert_eq!(found("lovelace").await, json!(2));
    eventually("both are indexed", async || unindexed(&app).await == 0).await;
    assert_eq!(found("lovelace").await, json!(2));
    app.patch(&format!("/api/carts/{changed}"), &json!({"customerName": "Grace Hopper"})).await.data(200);
    assert_eq!((found("lovelace").await, found("hopper").await), (json!(1), json!(1)));
    app.delete(&format!("/api/carts/{erased}")).await.data(200);
    assert_eq!(found("lovelace").await, json!(0));
    let kept: i64 = sqlx::query_scalar("select count(*) from cart_search where text like '%lovelace%'")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(kept, 0, "the text is personal data");
    eventually("the change is indexed", async || unindexed(&app).await == 0).await;
    assert_eq!((found("lovelace").await, found("hopper").await), (json!(0), json!(1)));
    assert_eq!(found(&changed).await, json!(1), "by the whole id");
    assert_eq!(found(&changed[..20]).await, json!(0), "not by a part of it");
    app.sql("update carts set customer_name = 'erased', customer_email = 'erased@erased.invalid'").await;
    let kept: i64 = sqlx::query_scalar("select count(*) from cart_search").fetch_one(&app.pool).await.unwrap();
    assert_eq!(kept, 0, "nor the text of an anonymized cart");
}

/// Rows that were written without triggers are found after the command that corrects counts, too.
#[tokio::test]
async fn carts_restored_without_triggers_are_indexed_again() {
    let app = Setup::default().without_worker().start().await;
    app.sql(
        "set session_replication_role = replica;
         insert into carts (id, customer_email, customer_name, items, total_minor, currency)
         values ('cart_restored', 'ada@example.com', 'Ada', '[]', 1, 'usd');
         insert into cart_search values ('cart_gone', 'grace', '{}', 'usd', false, false, 1, now(), now());
         set session_replication_role = origin;",
    )
    .await;
    let total = async || app.get("/api/carts?q=ada").await.data(200)["pagination"]["total"].clone();
    assert_eq!(total().await, json!(0));
    let mut tx = transaction(&app.pool).await;
    assert_eq!(common::carts::search::index::index_all_again(&mut tx).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert_eq!(total().await, json!(1));
    let worker = app.start_worker();
    eventually("it is indexed", async || unindexed(&app).await == 0).await;
    worker.stop().await;
    let rows: Vec<String> = sqlx::query_scalar("select cart_id from cart_search").fetch_all(&app.pool).await.unwrap();
    assert_eq!(rows, ["cart_restored"]);
}

/// One list of currencies is in Rust, the other in SQL.
#[tokio::test]
async fn totals_of_all_currencies_compare_as_they_are_written() {
    let app = Setup::default().without_worker().start().await;
    for code in Currency::NO_DECIMALS.iter().chain(&Currency::THREE_DECIMALS).chain(&["usd", "eur"]) {
        let currency: Currency = code.parse().unwrap();
        let value: i64 =
            sqlx::query_scalar("select cart_value(12345, $1)").bind(code).fetch_one(&app.pool).await.unwrap();
        assert_eq!(value, 12345 * 10_i64.pow(3 - currency.decimals()), "{code}");
    }
}

#[tokio::test]
async fn bad_filters_are_refused_by_name() {
    let app = Setup::default().without_worker().start().await;
    for (bad, says) in [
        ("q=a", "q must be 2 to 254 characters"),
        ("from=yesterday", "from must be a date"),
        ("from=2026-02-03&to=2026-02-02", "from must not be after to"),
        ("minValue=-1", "minValue must be a number"),
        ("minValue=abc", "minValue must be a number"),
        ("minValue=2&maxValue=1", "minValue must not be higher than maxValue"),
        ("link=open", "link must be none, pending, ready, failed or processing"),
        ("sort=price", "sort must be createdAt"),
        ("currency=xyz", "currency must be"),
        ("sort=totalValue&cursor=1-cart_1", "cursor must be"),
        ("cursor=v1-cart_1", "cursor must be"),
    ] {
        let answer = app.get(&format!("/api/carts?{bad}")).await;
        let message = answer.is_error(400, "BAD_REQUEST")["message"].as_str().unwrap().to_owned();
        assert!(message.contains(says), "{bad}: {message}");
    }
}

/// The dashboard has days of the shop's zone, of which the last one counts, and sorts by the date it filters.
#[tokio::test]
async fn the_dashboard_filters_sorts_and_exports() {
    let app =
        Setup::default().without_worker().at("2026-03-10T12:00:00Z").set("TIME_ZONE", "Europe/Vienna").start().await;
    seed(&app).await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let shown = |page: &str| -> Vec<String> {
        page.match_indices("id=\"row-cart_").map(|(at, _)| page[at + 8..at + 16].to_owned()).collect()
    };
    for (form, query) in [
        ("date=created&from=2026-02-03&to=2026-02-04", "from=2026-02-02T23:00:00Z&to=2026-02-04T23:00:00Z"),
        ("date=abandoned&from=2026-02-03&sort=oldest", "abandonedFrom=2026-02-02T23:00:00Z&sort=abandonedAt"),
        ("date=recovered&to=2026-02-09", "recoveredTo=2026-02-09T23:00:00Z&status=recovered&sort=-recoveredAt"),
        ("date=recovered", "status=recovered&sort=-recoveredAt"),
        ("q=ada&sort=highest&minValue=10&currency=usd", "q=ada&sort=-totalValue&minValue=10&currency=usd"),
        ("link=failed&sort=lowest&status=abandoned", "link=failed&sort=totalValue&status=abandoned"),
    ] {
        let expected = app.get(&format!("/api/carts?limit=25&{query}")).await.data(200);
        let page = operator.get(&format!("/carts?{form}")).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let total = expected["pagination"]["total"].as_i64().unwrap();
        assert!(total > 0 && page.text.contains(&format!("{total} cart")), "{form}: {total} in {}", page.text);
        assert_eq!(shown(&page.text), ids(expected["carts"].as_array().unwrap()), "{form}");
        let file = operator.get(&format!("/carts/export?{form}")).await;
        assert_eq!(file.header("content-type"), "text/csv; charset=utf-8");
        assert_eq!(i64::try_from(file.text.lines().count()).unwrap(), total + 1, "{form}");
        assert!(page.text.contains("href=\"/carts/export?"), "{form}");
    }
    let page = operator.get("/carts?q=zoe&date=abandoned&from=2026-02-03&minValue=10").await.text;
    for words in ["for “<bdi>zoe</bdi>”", "abandoned from 3 Feb 2026", "value from 10", ">Clear</a>"] {
        assert!(page.contains(words), "{words} is not in {page}");
    }
    let past = operator.get("/carts?q=ada&page=9").await.text;
    assert!(past.contains("No such page.") && !past.contains("page=10"), "{past}");
    assert_eq!(operator.get("/carts?q=ada&page=9223372036854775807").await.status, 200);
    for bad in ["date=paid", "sort=price", "from=2026-02-03&to=2026-02-02", "minValue=x", "q=a"] {
        assert_eq!(operator.get(&format!("/carts?{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn an_export_takes_the_same_filters() {
    let app = Setup::default().without_worker().at("2026-03-10T12:00:00Z").start().await;
    seed(&app).await;
    for filter in FILTERS {
        let expected = by_cursor(&app, &format!("/api/carts?sort=createdAt&{filter}")).await;
        let file = app.request(reqwest::Method::GET, &format!("/api/carts/export?{filter}")).send().await.unwrap();
        let lines = file.text().await.unwrap();
        let exported: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(ids(&exported), expected, "{filter}");
    }
}
