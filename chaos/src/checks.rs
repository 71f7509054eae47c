//! The checks after everything has settled: one line each.

use std::{
    collections::{HashMap, HashSet},
    fs,
    process::Stdio,
    time::Duration,
};

use anyhow::Result;
use reqwest::StatusCode;
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::{
    API_KEY,
    book::{OwnCart, promises},
    checks_of_payments, checks_of_tables,
    kit::Kit,
    load::Client,
    members::Kind,
    report::Report,
    stage::Scene,
    states::State,
    stored_cart::StoredCart,
};
use sandbox::stripe::{Session, SessionStatus};

/// The number of idempotency keys that are used again.
const REPLAYS: usize = 300;

/// Runs all checks except the one that stops the processes.
pub(crate) async fn all(scene: &Scene, kit: &Kit, clients: &[Client], report: &mut Report) -> Result<()> {
    let mut session = scene.server.session().await?;
    let rows = StoredCart::all(&mut session).await?;
    let carts: HashMap<&str, &StoredCart> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    acknowledged(clients, &carts, report);
    each_once(clients, &rows, report);
    replays(scene, clients, report).await;
    let sessions = scene.stripe.sessions();
    open_sessions(scene, &sessions, &carts, &mut session, report).await?;
    checks_of_payments::all(&sessions, &carts, &mut session, report).await?;
    foreign_events(&sessions, &mut session, report).await?;
    checks_of_tables::all(scene, &mut session, report).await?;
    while_it_went_on(scene, report);
    doctor(scene, kit, report).await?;
    logs(scene, report);
    Ok(session.close().await?)
}

fn acknowledged(clients: &[Client], carts: &HashMap<&str, &StoredCart>, report: &mut Report) {
    let known: Vec<&OwnCart> = clients.iter().flat_map(|client| &client.carts).collect();
    let (mut lost, mut deleted) = (Vec::new(), 0);
    for cart in &known {
        let (row, possible) = (carts.get(cart.id.as_str()), cart.known.possible());
        let state = row.map_or(Some(State::Gone), |row| State::parse(&row.status));
        deleted += u32::from(row.is_none());
        if !state.is_some_and(|state| possible.has(state)) {
            lost.push(format!("{} is {state:?}, and can only be {possible:?}", cart.id));
        }
        if row.is_some_and(|row| row.customer_email != cart.email || row.total != cart.total) {
            lost.push(format!("{} is {row:?}, and was stored as {}, {}", cart.id, cart.email, cart.total));
        }
        if cart.paid && state.is_some_and(|state| !matches!(state, State::Recovered | State::Gone)) {
            lost.push(format!("{} was paid, and is {state:?}", cart.id));
        }
    }
    let imported: u64 = clients.iter().map(|client| client.imported).sum();
    let counted = format!("{} carts, {imported} of them imported, {deleted} of them gone", known.len());
    report.check("what was acknowledged is as it was, or as it became", counted, &lost);
}

/// Checks by address that no cart is stored twice, and that each one was requested by a client.
fn each_once(clients: &[Client], rows: &[StoredCart], report: &mut Report) {
    let acknowledged = clients.iter().flat_map(|client| client.carts.iter().map(|cart| cart.email.as_str()));
    let unanswered: HashSet<&str> = clients.iter().flat_map(|client| &client.unanswered).map(String::as_str).collect();
    let known: HashSet<&str> = acknowledged.chain(unanswered.iter().copied()).collect();
    let mut times: HashMap<&str, u32> = HashMap::new();
    for row in rows {
        *times.entry(row.customer_email.as_str()).or_default() += 1;
    }
    let twice = times.iter().filter(|(_, times)| **times > 1).map(|(email, times)| format!("{email}: {times} carts"));
    let nobodys = times.keys().filter(|email| !known.contains(*email)).map(|email| format!("{email} is nobody's"));
    let found: Vec<String> = twice.chain(nobodys).collect();
    let counted = format!("{} carts, {} requests without an answer", rows.len(), unanswered.len());
    report.check("what was asked for once is there once", counted, &found);
}

async fn replays(scene: &Scene, clients: &[Client], report: &mut Report) {
    let keyed: Vec<(&OwnCart, &(String, String))> = clients
        .iter()
        .flat_map(|client| &client.carts)
        .filter_map(|cart| Some((cart, cart.idempotent.as_ref()?)))
        .collect();
    let mut found = Vec::new();
    let every = keyed.len().div_ceil(REPLAYS).max(1);
    let chosen: Vec<_> = keyed.iter().step_by(every).collect();
    let apis: Vec<_> = scene.members.iter().filter(|member| member.kind == Kind::Api).collect();
    for (turn, (cart, (key, body))) in chosen.iter().enumerate() {
        let url = format!("http://{}/api/carts", apis[turn % apis.len()].address);
        let request = scene.http.post(url).header("x-api-key", API_KEY).header("idempotency-key", key);
        let sent = request.header("content-type", "application/json").body(body.clone()).send().await;
        let Ok(response) = sent else {
            found.push(format!("{key}: no answer"));
            continue;
        };
        let status = response.status();
        let answer: Value = response.json().await.unwrap_or_default();
        let same = status == StatusCode::CREATED && answer["data"]["id"].as_str() == Some(&cart.id);
        let gone = status == StatusCode::NOT_FOUND && cart.known.possible().has(State::Gone);
        if !same && !gone {
            found.push(format!("{key} made {}, and now answers {status} {answer}", cart.id));
        }
    }
    report.check(promises::KEYS, format!("{} of {} asked for again", chosen.len(), keyed.len()), &found);
}

async fn open_sessions(
    scene: &Scene,
    sessions: &[Session],
    carts: &HashMap<&str, &StoredCart>,
    session: &mut PgConnection,
    report: &mut Report,
) -> Result<()> {
    let mut found: Vec<String> = sqlx::query_scalar(
        "select format('%s has %s in the database', cart_id, count(*)) from payment_links
         where status in ('open', 'closing', 'processing') group by cart_id having count(*) > 1",
    )
    .fetch_all(&mut *session)
    .await?;
    let at_once = scene.stripe.carts_with_two_open_sessions();
    found.extend(at_once.into_iter().map(|cart| format!("{cart} had two at Stripe in the same moment")));
    report.check(
        "no cart has two open sessions, at any moment",
        format!("{} sessions at Stripe", sessions.len()),
        &found,
    );

    let open: Vec<&Session> = sessions.iter().filter(|session| session.status == SessionStatus::Open).collect();
    let kept: HashSet<String> = sqlx::query_scalar("select session_id from payment_links where status = 'open'")
        .fetch_all(session)
        .await?
        .into_iter()
        .collect();
    let payable = |session: &&&Session| {
        let cart = session.client_reference_id.as_deref().and_then(|cart| carts.get(cart));
        cart.is_some_and(|cart| cart.status == "abandoned") && kept.contains(&session.id)
    };
    let found: Vec<String> = open
        .iter()
        .filter(|session| !payable(session))
        .map(|session| format!("{} of {:?} is open at Stripe", session.id, session.client_reference_id))
        .collect();
    report.check("nobody can pay for a cart that is done with", format!("{} open sessions", open.len()), &found);
    Ok(())
}

/// Only the product's sessions may change carts and links: every event with an effect must be about
/// a session that the fake Stripe created for the product.
async fn foreign_events(sessions: &[Session], session: &mut PgConnection, report: &mut Report) -> Result<()> {
    let ours: HashSet<&str> =
        sessions.iter().flat_map(|session| [Some(&*session.id), session.payment_intent.as_deref()]).flatten().collect();
    let events: Vec<(String, Option<String>, String)> =
        sqlx::query_as("select id, object_id, effect from stripe_events").fetch_all(session).await?;
    let changes = ["recovered", "already_recovered", "processing", "payment_failed", "closed"];
    let is_ours = |object: &Option<String>| object.as_deref().is_some_and(|object| ours.contains(object));
    // Records of Stripe's responses to the worker are not events; their ids name the link.
    let found: Vec<String> = events
        .iter()
        .filter(|(id, ..)| !id.starts_with("answer:"))
        .filter(|(_, object, effect)| changes.contains(&effect.as_str()) && !is_ours(object))
        .map(|(id, object, effect)| format!("{id} of {object:?} is not of a session of ours, and {effect}"))
        .collect();
    let foreign = events.iter().filter(|(_, object, _)| !is_ours(object)).count();
    report.check("only our own sessions change carts", format!("{foreign} foreign events of {}", events.len()), &found);
    Ok(())
}

/// Reports the violations that the clients found during the run.
fn while_it_went_on(scene: &Scene, report: &mut Report) {
    let of_all = [
        promises::READS,
        promises::IMPORTS,
        promises::EXPORTS,
        promises::ANSWERS,
        promises::DOCUMENTED,
        promises::FAIR_WEATHER,
        promises::PROCESSES,
    ];
    for promise in of_all {
        let violations = scene.book.violations(promise);
        report.check(promise, format!("{} requests", scene.book.requests()), &violations.examples);
    }
}

async fn doctor(scene: &Scene, kit: &Kit, report: &mut Report) -> Result<()> {
    let variables = [
        ("DATABASE_URL", scene.server.url.clone()),
        ("STRIPE_SECRET_KEY", "sk_test_chaos".to_owned()),
        ("STRIPE_API_URL", scene.stripe.url()),
    ];
    let output = tokio::process::Command::new(kit.binary("worker"))
        .arg("doctor")
        .env_clear()
        .envs(variables)
        .current_dir(&kit.folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let problems: Vec<String> = text.lines().filter(|line| line.starts_with("PROBLEM")).map(str::to_owned).collect();
    report.check("`worker doctor` finds nothing wrong", format!("{} looks", text.lines().count()), &problems);
    Ok(())
}

/// Checks the logs for panics.
fn logs(scene: &Scene, report: &mut Report) {
    let mut lines = 0;
    let mut found = Vec::new();
    for member in &scene.members {
        let text = fs::read(member.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        lines += text.lines().count();
        let panics = text.lines().filter(|line| line.contains("panicked"));
        found.extend(panics.map(|line| format!("{}: {line}", member.name())));
    }
    report.check("nothing panicked", format!("{lines} lines of logs"), &found);
}

/// Checks that every process still runs and responds, and stops cleanly.
pub(crate) async fn stop(scene: &Scene, report: &mut Report) -> Result<()> {
    let mut found = Vec::new();
    for member in &scene.members {
        let mut held = member.hold().await;
        if let Some(how) = held.ended()? {
            found.push(format!("{} ended by itself: {how}", member.name()));
            continue;
        }
        if let Err(error) = member.becomes_ready(&scene.http, Duration::from_secs(20)).await {
            found.push(format!("{error:#}"));
        }
        if !held.stop(Duration::from_secs(40)).await? {
            found.push(format!("{} did not end with 0 within 40 s of SIGTERM", member.name()));
        }
    }
    report.check(
        "every process is ready, and ends when it is told to",
        format!("{} processes", scene.members.len()),
        &found,
    );
    Ok(())
}
