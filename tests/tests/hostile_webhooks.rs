//! Unsigned requests can't keep Stripe's webhooks out, and one client can't take all connections.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sandbox::stripe::sign;
use serde_json::json;
use tests::{eventually, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::{
    hostile::{an_api, post, resident_mebibytes},
    processes::Shop,
};

/// An attacker's pause before repeating a refused request.
const AGAIN: Duration = Duration::from_millis(500);
const GENUINE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends bodies that never end, and repeats each that is refused. Ends when dropped.
struct Attack {
    begun: Arc<AtomicUsize>,
    _streams: JoinSet<()>,
}

impl Attack {
    async fn start(shop: &Shop, from: Ipv4Addr, connections: usize, streams: usize, bytes: usize) -> Self {
        let mut attack = Self { begun: Arc::default(), _streams: JoinSet::new() };
        for _ in 0..connections {
            let connection = TokioIo::new(connect(from, shop.address()).await);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), connection).await.unwrap();
            attack._streams.spawn(async move {
                let _ = connection.await;
            });
            for _ in 0..streams {
                let (mut sender, begun) = (sender.clone(), attack.begun.clone());
                let url = shop.url("/api/webhooks/stripe");
                attack._streams.spawn(async move {
                    while sender.ready().await.is_ok() {
                        let begun = begun.clone();
                        let first = stream::once(async move {
                            begun.fetch_add(1, Ordering::Relaxed);
                            Ok::<_, std::io::Error>(Bytes::from(vec![b' '; bytes]))
                        });
                        let request = Request::post(&url).header("stripe-signature", "t=1,v1=00");
                        let body = Body::from_stream(first.chain(stream::pending()));
                        let _ = sender.send_request(request.body(body).unwrap()).await;
                        sleep(AGAIN).await;
                    }
                });
            }
        }
        let all = connections * streams;
        eventually("all of them have begun", async || attack.begun.load(Ordering::Relaxed) >= all).await;
        attack
    }
}

/// Sends signed events of this size, one after another; each must be accepted.
async fn all_are_taken(shop: &Shop, what: &str, events: usize, bytes: usize) {
    let http = reqwest::Client::builder().no_proxy().local_address(IpAddr::from(GENUINE)).build().unwrap();
    for n in 0..events {
        let filler = " ".repeat(bytes);
        let event = json!({"id": format!("evt_{what}_{bytes}_{n}"), "type": "ping", "created": 1, "data": {"object": {"filler": filler}}});
        let body = event.to_string();
        let now = common::clock::Clock::system().now().timestamp();
        let signature = sign(&body, "whsec_processes", now);
        let request = http.post(shop.url("/api/webhooks/stripe")).header("stripe-signature", signature).body(body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{what}, {n} of {bytes} bytes: {}", answer.text().await.unwrap());
    }
}

#[tokio::test]
async fn endless_unsigned_bodies_block_no_webhook() {
    let (shop, api) = an_api().await;
    let before = resident_mebibytes(api.id());
    // The second attacker has Stripe's address, as behind a proxy that is not in TRUSTED_PROXIES.
    for from in [ATTACKER, GENUINE] {
        let many = Attack::start(&shop, from, 42, 100, 1).await;
        all_are_taken(&shop, &format!("many_{from}"), 100, 2_000).await;
        drop(many);
        let large = Attack::start(&shop, from, 1, 70, 17_000).await;
        all_are_taken(&shop, &format!("large_{from}"), 20, 20_000).await;
        all_are_taken(&shop, &format!("small_{from}"), 20, 2_000).await;
        drop(large);
    }
    let more = resident_mebibytes(api.id()).saturating_sub(before);
    assert!(more < 150, "{more} MiB more than before");
}

/// The bodies are larger than the memory budget.
#[tokio::test]
async fn unsigned_bodies_that_fill_the_memory_block_no_webhook() {
    let (shop, api) = an_api().await;
    let before = resident_mebibytes(api.id());
    for from in [ATTACKER, GENUINE] {
        let mut connections = Vec::new();
        let begun = format!("{}{}", post("/api/webhooks/stripe", "content-length: 1000000\r\n"), " ".repeat(900_000));
        for _ in 0..80 {
            let mut connection = connect(from, shop.address()).await;
            let _ = connection.write_all(begun.as_bytes()).await; // it may have been refused meanwhile
            connections.push(connection);
        }
        all_are_taken(&shop, &format!("full_{from}"), 20, 2_000).await;
        all_are_taken(&shop, &format!("full_{from}"), 5, 300_000).await;
        let mut refused = 0;
        for connection in &mut connections {
            let mut answer = [0; 12];
            let waiting = Duration::from_millis(50);
            if let Ok(Ok(_)) = tokio::time::timeout(waiting, connection.read_exact(&mut answer)).await {
                refused += usize::from(&answer == b"HTTP/1.1 503" || &answer == b"HTTP/1.1 408");
            }
        }
        assert!(refused >= 40, "{refused} of 80 were refused, which is what 32 MiB leave no room for");
    }
    let more = resident_mebibytes(api.id()).saturating_sub(before);
    assert!(more < 150, "{more} MiB more than before");
}

#[tokio::test]
async fn one_client_leaves_connections_to_others() {
    api::raise_file_limit();
    let (shop, _api) = an_api().await;
    let mut connections = Vec::new();
    for _ in 0..4_200 {
        // Each connection sends one request and then stays open.
        let mut connection = connect(ATTACKER, shop.address()).await;
        let _ = connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        connections.push(connection);
    }
    let http = reqwest::Client::builder().no_proxy().local_address(IpAddr::from(GENUINE));
    let http = http.timeout(Duration::from_secs(20)).build().unwrap();
    let answer = http.get(shop.url("/healthz")).send().await.expect("another client gets in");
    assert_eq!(answer.status(), 200);
    let open = || {
        let port = format!(" 0100007F:{:04X} 0200007F:", shop.address().port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().filter(|line| line.contains(&port) && line.split_whitespace().nth(3) == Some("01")).count()
    };
    within(Duration::from_secs(20), "those beyond half of all are closed", async || open() <= 2_048).await;
    drop(connections);
}
