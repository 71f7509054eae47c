//! Starts everything that a run needs.

use std::{sync::OnceLock, time::Duration};

use anyhow::{Context, Result};
use common::clock::Clock;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::Connection;

use crate::{
    API_KEY, Options,
    book::Book,
    kit::Kit,
    members::{CLOCK_OFF, Kind, Member},
    server::Server,
    stage::{Scene, Tally},
    weather::Weather,
};
use sandbox::{
    postgres::random_word,
    proxy::Proxy,
    stripe::{FakeStripe, FakeStripeConfig},
};

/// The maximum age of a cart. Some carts of the load are older, and the others never get that old.
const CART_TTL: &str = "1d";

/// Starts everything and waits until it is ready.
pub(crate) async fn set(kit: &Kit, options: &Options, seed: u64) -> Result<Scene> {
    let home = kit.disk.as_ref().ok().cloned().unwrap_or_else(|| kit.folder.join("postgres"));
    let server = Server::start(&home.join("data")).await?;
    let webhook_secret = format!("whsec_{}", random_word());
    let stripe = FakeStripe::start(FakeStripeConfig {
        bind_addr: "127.0.0.1:0".parse()?,
        public_url: None,
        webhook_url: None,
        webhook_secret: webhook_secret.clone(),
        file: None,
        clock: Clock::system(),
    })
    .await?;
    let mut members = Vec::new();
    for number in 0..(options.apis + options.workers) as usize {
        let kind = if (number as u64) < options.apis { Kind::Api } else { Kind::Worker };
        let proxy = Proxy::start(vec![([127, 0, 0, 1], server.port).into()]).await?;
        let url = server.url_by_way_of(proxy.address.port());
        let variables = variables(kind, url, &webhook_secret, &stripe);
        members.push(Member::new(kit, number, kind, proxy, variables)?);
    }
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
    let scene = Scene {
        server,
        members,
        stripe,
        http,
        weather: Weather::default(),
        book: Book::default(),
        tally: Tally::default(),
        disk: kit.disk.as_ref().ok().cloned(),
        clocks_move: kit.faketime.is_ok(),
        door: OnceLock::new(),
    };
    start_all(&scene, seed).await?;
    Ok(scene)
}

/// Starts the processes; the first one migrates the database before the triggers are added.
async fn start_all(scene: &Scene, seed: u64) -> Result<()> {
    let mut dice = StdRng::seed_from_u64(seed);
    for (place, member) in scene.members.iter().enumerate() {
        if scene.clocks_move && place > 0 && dice.random_bool(0.5) {
            member.set_clock(dice.random_range(-CLOCK_OFF..=CLOCK_OFF))?;
        }
        member.hold().await.start()?;
        if place == 0 {
            member.becomes_ready(&scene.http, Duration::from_secs(60)).await?;
            let mut session = scene.server.session().await?;
            sqlx::raw_sql(include_str!("watch.sql")).execute(&mut session).await.context("watch.sql")?;
            session.close().await?;
        }
    }
    for member in &scene.members {
        member.becomes_ready(&scene.http, Duration::from_secs(60)).await?;
    }
    // Events are spread over the apis, as behind a load balancer.
    let apis = scene.members.iter().filter(|member| member.kind == Kind::Api).map(|member| member.address);
    let door = Proxy::start(apis.collect()).await?;
    scene.stripe.send_webhooks_to(Some(format!("http://{}/api/webhooks/stripe", door.address)));
    scene.stripe.deliver_unreliably(seed);
    scene.door.set(door).ok().context("it is set once")?;
    Ok(())
}

fn variables(kind: Kind, url: String, webhook_secret: &str, stripe: &FakeStripe) -> Vec<(String, String)> {
    let public = ("PUBLIC_URL", "http://localhost:3000".to_owned());
    let common = [("DATABASE_URL", url), public, ("RUST_LOG", "info,sqlx=warn".to_owned())];
    let own = match kind {
        Kind::Api => vec![
            ("API_KEY", API_KEY.to_owned()),
            ("STRIPE_WEBHOOK_SECRET", webhook_secret.to_owned()),
            ("RATE_LIMIT_PER_MINUTE", "0".to_owned()),
            // The wait for links and the statement timeout are shorter than the promised response
            // time.
            ("PAYMENT_LINK_WAIT", "3s".to_owned()),
        ],
        Kind::Worker => vec![
            ("STRIPE_SECRET_KEY", "sk_test_chaos".to_owned()),
            ("STRIPE_API_URL", stripe.url()),
            ("CART_TTL", CART_TTL.to_owned()),
            ("EXPIRY_SCHEDULE", "*/10 * * * * *".to_owned()),
            ("ROLLUP_SCHEDULE", "*/15 * * * * *".to_owned()),
        ],
    };
    common.into_iter().chain(own).map(|(name, value)| (name.to_owned(), value)).collect()
}
