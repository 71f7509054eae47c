//! Attacks on the real api: every request gets a response or a closed connection, in bounded time
//! and memory, while other clients are served.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tests::{eventually, processes::Process, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::processes::Shop;

/// A new connection has 15 s for its first request, a body 30 s, and 5 s more after its response; a
/// busy machine needs longer.
const FIRST_HEAD: Duration = Duration::from_secs(15 + 45);
const BODY: Duration = Duration::from_secs(30 + 5 + 45);
/// For immediate responses on a busy machine: less than the 15 s after which an idle connection is
/// closed.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(14);

/// An api in its own process, without a rate limit.
pub(crate) async fn an_api() -> (Shop, Process) {
    let shop = Shop::open().await;
    let mut variables = shop.api_variables();
    variables.push(("RATE_LIMIT_PER_MINUTE", "0".to_owned()));
    let mut api = Process::start("api", variables).await;
    api.says("api is listening").await;
    (shop, api)
}

/// Sends the bytes, then reads until the api closes the connection or `bound` has passed.
pub(crate) async fn exchange(address: SocketAddr, sent: &[u8], bound: Duration) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = connection.split();
    let mut answer = Vec::new();
    let both = async {
        let write = async {
            let _ = writer.write_all(sent).await; // the api may have stopped reading
        };
        let read = async {
            let _ = reader.read_to_end(&mut answer).await; // or have reset the connection
        };
        tokio::join!(write, read);
    };
    assert!(timeout(bound, both).await.is_ok(), "it was not let go of, but told {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends `head`, then a byte of `rest` now and then, until the api stops reading. Returns the
/// duration and the response.
async fn trickle(address: SocketAddr, head: &str, rest: &str, bound: Duration) -> (Duration, String) {
    let begun = Instant::now();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = connection.split();
    let mut answer = Vec::new();
    let listened = timeout(bound, async {
        let drops = async {
            for byte in rest.bytes().cycle() {
                sleep(Duration::from_millis(500)).await;
                if writer.write_all(&[byte]).await.is_err() {
                    break; // the api has stopped reading
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = reader.read_to_end(&mut answer) => {}
            () = drops => {}
        }
    });
    assert!(listened.await.is_ok(), "{head:?} was not let go of within {bound:?}");
    (begun.elapsed(), String::from_utf8_lossy(&answer).into_owned())
}

pub(crate) fn post(path: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: key\r\n{headers}\r\n")
}

#[tokio::test]
async fn slow_senders_are_disconnected() {
    let (shop, _api) = an_api().await;
    let at = shop.address();
    let silent = async |what: &str, head: &str, rest: &str| {
        let (took, _) = trickle(at, head, rest, FIRST_HEAD).await;
        assert!(took >= Duration::from_secs(14), "{what}: {took:?}");
    };
    let silent = futures_util::future::join_all([
        silent("nothing at all", "", ""),
        silent("a head that never ends", "GET /healthz HTTP/1.1\r\nhost: x\r\n", "x-a: b\r\n"),
        silent("half of what HTTP/2 begins with", "PRI * HTTP", ""),
        silent("HTTP/2 without a request", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", ""),
    ]);
    let json = "content-type: application/json\r\ncontent-length: 500\r\n";
    let slow_body = async |path: &str, headers: &str, rest: &str, seconds: u64| {
        let (_, answer) = trickle(at, &post(path, headers), rest, BODY).await;
        let said = format!("Request body not received within {seconds} s");
        assert!(answer.contains(&said), "{path}: {answer}");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{path}: {answer}");
        answer
    };
    let others = async {
        // Other clients are served promptly meanwhile.
        let mut slowest = Duration::ZERO;
        for _ in 0..30 {
            let asked = Instant::now();
            assert_eq!(shop.http.get(shop.url("/healthz")).send().await.unwrap().status(), 200);
            slowest = slowest.max(asked.elapsed());
            sleep(Duration::from_millis(500)).await;
        }
        assert!(slowest < AT_ONCE, "{slowest:?}");
    };
    let form = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 500\r\n";
    let chunked = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
    let (cart, event, chunks, sign_in, _, ()) = tokio::join!(
        slow_body("/api/carts", json, " ", 30),
        slow_body("/api/webhooks/stripe", json, " ", 10),
        slow_body("/api/carts", chunked, "1\r\n \r\n", 30),
        slow_body("/sign-in", form, "x", 10),
        silent,
        others,
    );
    for answer in [cart, event, chunks] {
        assert!(answer.contains("\"code\":\"REQUEST_TIMEOUT\""), "{answer}");
    }
    assert!(sign_in.contains("<!DOCTYPE html>"), "{sign_in}");
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let (shop, _api) = an_api().await;
    let head = |line: &str, headers: &str| {
        format!("{line} HTTP/1.1\r\nhost: x\r\nx-api-key: key\r\nconnection: close\r\n{headers}\r\n")
    };
    let headers: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let many = format!("GET /api/carts?{}", "a=1&".repeat(1_000_000));
    for (what, head, allowed) in [
        ("many headers", head("GET /healthz", &headers), vec!["431"]),
        ("a long header", head("GET /healthz", &format!("x-a: {}\r\n", "y".repeat(100_000))), vec!["431"]),
        ("megabytes of headers", head("GET /healthz", &"x-a: y\r\n".repeat(1_000_000)), vec!["431", ""]),
        ("a long address", head(&format!("GET /{}", "a".repeat(65_535)), ""), vec!["414", "431"]),
        ("a million parameters", head(&many, ""), vec!["414", "431", ""]),
        // As many as fit are read.
        ("nine thousand parameters", head(&format!("GET /api/carts?{}", "page=1&".repeat(9_000)), ""), vec!["200"]),
        ("one parameter, often", head(&format!("GET /api/carts?{}", "page=x&".repeat(9_000)), ""), vec!["400"]),
    ] {
        let begun = Instant::now();
        let answer = exchange(shop.address(), head.as_bytes(), AT_ONCE).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        // Closing a connection with unread data may lose the response.
        assert!(allowed.contains(&status), "{what}: {answer:.300}");
        assert!(begun.elapsed() < AT_ONCE, "{what}");
    }
    assert_eq!(shop.http.get(shop.url("/healthz")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn bodies_that_are_too_large_deep_or_packed_are_refused() {
    let (shop, api) = an_api().await;
    let before = resident_mebibytes(api.id());
    let json = "content-type: application/json\r\nconnection: close\r\n";
    let endless = format!("{json}transfer-encoding: chunked\r\n");
    let chunks = format!("10000\r\n{}\r\n", " ".repeat(0x10000)).repeat(40);
    let bomb = format!("{json}content-encoding: gzip\r\ncontent-length: 4\r\n");
    let lines =
        "content-type: application/x-ndjson\r\ncontent-encoding: br\r\nconnection: close\r\ncontent-length: 4\r\n";
    let sized = |body: &str| format!("{json}content-length: {}\r\n", body.len());
    let deep = format!("{{\"items\":{}1{}}}", "[".repeat(400_000), "]".repeat(400_000));
    let wide = format!("{{{}\"x\":1}}", "\"a\":1,".repeat(150_000));
    let price = |price: &str| {
        format!(
            r#"{{"customerEmail":"a@example.com","customerName":"A","items":[{{"name":"T","quantity":1,"price":{price}}}]}}"#
        )
    };
    let (long, huge, tiny) = (price(&"9".repeat(900_000)), price("1e999999999"), price("1e-999999999"));
    for (what, path, headers, body, status, code) in [
        ("a cart without end", "/api/carts", endless.clone(), chunks.as_str(), "413", "PAYLOAD_TOO_LARGE"),
        ("an event without end", "/api/webhooks/stripe", endless, chunks.as_str(), "413", "PAYLOAD_TOO_LARGE"),
        ("a large cart", "/api/carts", format!("{json}content-length: 9999999\r\n"), "", "413", "PAYLOAD_TOO_LARGE"),
        (
            "a large event",
            "/api/webhooks/stripe",
            format!("{json}content-length: 9999999\r\n"),
            "",
            "413",
            "PAYLOAD_TOO_LARGE",
        ),
        ("a packed cart", "/api/carts", bomb.clone(), "\x1f\0\0\0", "415", "UNSUPPORTED_MEDIA_TYPE"),
        ("a packed event", "/api/webhooks/stripe", bomb, "\x1f\0\0\0", "415", "UNSUPPORTED_MEDIA_TYPE"),
        ("a packed import", "/api/carts/import", lines.to_owned(), "\x1f\0\0\0", "415", "UNSUPPORTED_MEDIA_TYPE"),
        ("a deep cart", "/api/carts", sized(&deep), &deep, "400", "BAD_REQUEST"),
        ("a deep event", "/api/webhooks/stripe", sized(&deep), &deep, "400", "BAD_REQUEST"),
        ("a cart of many fields", "/api/carts", sized(&wide), &wide, "422", "VALIDATION_ERROR"),
        ("a price of many digits", "/api/carts", sized(&long), &long, "422", "VALIDATION_ERROR"),
        ("a price of many zeros", "/api/carts", sized(&huge), &huge, "422", "VALIDATION_ERROR"),
        ("a price of nearly nothing", "/api/carts", sized(&tiny), &tiny, "422", "VALIDATION_ERROR"),
    ] {
        let begun = Instant::now();
        let answer = exchange(shop.address(), format!("{}{body}", post(path, &headers)).as_bytes(), AT_ONCE).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code), "{what}: {answer:.300}");
        assert!(begun.elapsed() < AT_ONCE, "{what}");
    }
    let more = resident_mebibytes(api.id()).saturating_sub(before);
    assert!(more < 100, "{more} MiB more than before");
}

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let (shop, _api) = an_api().await;
    let second = "GET /api/jobs HTTP/1.1\r\nhost: x\r\nx-api-key: key\r\nconnection: close\r\n\r\n";
    let with = |headers: &str, body: &str| {
        format!("{}{body}", post("/api/carts", &format!("content-type: application/json\r\n{headers}")))
    };
    let both = format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", 5 + second.len());
    let turned = format!("transfer-encoding: chunked\r\ncontent-length: {}\r\n", 5 + second.len());
    let smuggled = format!("0\r\n\r\n{second}");
    for (what, request, status) in [
        // Read as RFC 9112, 6.3, requires; nothing else is read from that connection.
        ("a length and chunks", with(&both, &smuggled), "400"),
        ("chunks and a length", with(&turned, &smuggled), "400"),
        ("no host", with("content-length: 2\r\n", "{}").replace("host: x\r\n", "connection: close\r\n"), "400"),
        ("two hosts", with("host: y\r\nconnection: close\r\ncontent-length: 2\r\n", "{}"), "400"),
        ("two lengths", with("content-length: 2\r\ncontent-length: 3\r\n", "{}x"), "400"),
        ("a list of lengths", with("content-length: 2, 3\r\n", "{}x"), "400"),
        ("a length with a sign", with("content-length: +2\r\n", "{}"), "400"),
        ("a coding that is none", with("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"), "400"),
        ("a hidden coding", with("transfer-encoding : chunked\r\n", "0\r\n\r\n"), "400"),
        ("a folded header", with("x-a: b\r\n content-length: 2\r\n", "{}"), "400"),
        (
            "a chunk of more than there are numbers for",
            with("transfer-encoding: chunked\r\n", "fffffffffffffffff\r\n{}"),
            "400",
        ),
        (
            "an old version with chunks",
            with("transfer-encoding: chunked\r\n", "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0"),
            "400",
        ),
    ] {
        let answer = exchange(shop.address(), request.as_bytes(), AT_ONCE).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) || answer.starts_with(&format!("HTTP/1.0 {status} ")),
            "{what}: {answer}"
        );
        assert!(!answer.contains("\"jobs\""), "{what}: the second request was read: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
    }
    // Legitimate requests may be pipelined.
    let one = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = exchange(shop.address(), format!("{}{second}", one.repeat(50)).as_bytes(), AT_ONCE).await;
    assert_eq!((answer.matches("alive").count(), answer.matches("\"jobs\"").count()), (50, 1));
    assert!(answer.rfind("alive") < answer.find("\"jobs\""), "in their order");
}

/// The resident memory of a process, in MiB.
pub(crate) fn resident_mebibytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// The number of established connections to `address`, according to the kernel.
fn established(address: SocketAddr) -> usize {
    let local = format!(" 0100007F:{:04X} ", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table
        .lines()
        .filter(|line| {
            line.split_once(": ")
                .is_some_and(|(_, rest)| format!(" {rest}").starts_with(&local) && rest.split(' ').nth(2) == Some("01"))
        })
        .count()
}

#[tokio::test]
async fn a_thousand_idle_connections_cost_little_and_are_closed() {
    api::raise_file_limit();
    let (shop, api) = an_api().await;
    let before = resident_mebibytes(api.id());
    let mut connections = Vec::new();
    for n in 0..1_000 {
        let mut connection = TcpStream::connect(shop.address()).await.unwrap();
        // A third are silent, a third begin a head, a third begin an event.
        match n % 3 {
            1 => {
                connection.write_all(format!("GET / HTTP/1.1\r\nx-a: {}", "y".repeat(30_000)).as_bytes()).await.unwrap()
            }
            2 => {
                let head = post("/api/webhooks/stripe", "content-length: 1000000\r\n");
                connection.write_all(format!("{head}{}", " ".repeat(12_000)).as_bytes()).await.unwrap();
            }
            _ => {}
        }
        connections.push(connection);
    }
    eventually("all are there", async || established(shop.address()) >= 1_000).await;
    let asked = Instant::now();
    assert_eq!(shop.call(shop.http.get(shop.url("/api/carts"))).await.0, 200);
    assert!(asked.elapsed() < AT_ONCE);
    let more = resident_mebibytes(api.id()).saturating_sub(before);
    assert!(more < 150, "{more} MiB more than before");
    within(BODY + FIRST_HEAD, "they are let go", async || established(shop.address()) < 10).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_export_is_disconnected() {
    let (shop, _api) = an_api().await;
    let pool = shop.database.pool(2);
    let store = "insert into carts (id, customer_email, customer_name, items, total_minor, currency, status, abandoned_at, created_at, updated_at)
        select 'cart_' || i, 'a@example.com', 'A', jsonb_build_array(jsonb_build_object('name', repeat('x', 5000), 'quantity', 1, 'price', 1)),
            100, 'usd', 'abandoned', now(), now(), now() from generate_series(1, 6000) i";
    sqlx::query(store).execute(&pool).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut connection = socket.connect(shop.address()).await.unwrap();
    let request = "GET /api/carts/export HTTP/1.1\r\nhost: x\r\nx-api-key: key\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut beginning = [0; 15];
    connection.read_exact(&mut beginning).await.unwrap();
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    let port = connection.local_addr().unwrap().port();
    let held = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let pair = format!(" 0100007F:{:04X} 0100007F:{port:04X} 01 ", shop.address().port());
        table.contains(&pair)
    };
    assert!(held());
    // The api holds no Postgres connection while it waits for its client.
    let busy = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'";
    eventually("Postgres has nothing to do", async || {
        sqlx::query_scalar::<_, i64>(busy).fetch_one(&pool).await.unwrap() == 0
    })
    .await;
    within(BODY, "it is let go", async || !held()).await;
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest).await;
    assert!(
        rest.len() < 25_000_000 && !rest.ends_with(b"0\r\n\r\n"),
        "{} bytes: half a file does not look whole",
        rest.len()
    );
}
