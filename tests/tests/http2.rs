//! Attacks that only HTTP/2 allows: streams without a window, connections kept alive by pings,
//! requests without a Host header.

use std::{net::SocketAddr, time::Duration};

use axum::body::Body;
use hyper::{Request, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use reqwest::Method;
use tests::{
    Setup,
    http2::{Frame, Http2, kind},
    processes::Process,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    hostile::{AT_ONCE, an_api, exchange, resident_mebibytes},
    processes::Shop,
};

/// The product's limit of 30 s, plus slack.
const STALLED: Duration = Duration::from_secs(30 + 5 + 45);
/// The product's limit of 75 s for an idle connection, plus slack.
const IDLE: Duration = Duration::from_secs(75 + 5 + 60);

/// RFC 9113, 7: the stream was not processed.
const REFUSED_STREAM: u32 = 7;

/// Reads until this many streams have ended; returns how many of them were reset.
async fn ended(client: &mut Http2, streams: usize, bound: Duration) -> usize {
    let deadline = Instant::now() + bound;
    let mut ends = Vec::new();
    while ends.len() < streams {
        let frame = client.next(deadline).await.expect("in time").expect("the connection goes on");
        if frame.ends() {
            ends.push(frame.kind == kind::RST_STREAM);
        }
    }
    ends.into_iter().filter(|reset| *reset).count()
}

async fn no_window(shop: &Shop, api: &Process) {
    let before = resident_mebibytes(api.id());
    let docs = shop.http.get(shop.url("/docs")).send().await.unwrap().text().await.unwrap();
    // 1.5 MB, the largest public file.
    let script = docs.split('"').find(|text| text.starts_with("/assets/swagger-ui-") && text.ends_with(".js")).unwrap();
    let everybody = ["/docs", "/api/openapi.json", "/sign-in", "/assets/none", script];
    let mut clients = Vec::new();
    for path in everybody {
        let mut client = Http2::open(shop.address(), Some(0)).await;
        for _ in 0..100 {
            client.get(path, &[("accept-encoding", "br, gzip")]).await;
        }
        clients.push(client);
    }
    sleep(Duration::from_secs(10)).await;
    let more = resident_mebibytes(api.id()).saturating_sub(before);
    assert!(more < 60, "{more} MiB for 500 streams that nobody reads");
    for (client, path) in clients.iter_mut().zip(everybody) {
        assert_eq!(ended(client, 100, STALLED).await, 100, "{path}");
        // The connection itself still works.
        let stream = client.get("/healthz", &[]).await;
        client.grant(stream, 1000).await;
        assert!(body(&client.answer(stream, AT_ONCE).await.unwrap()).contains("alive"));
    }
}

/// A single byte now and then does not count as progress.
async fn a_window_of_a_byte(shop: &Shop) {
    let mut client = Http2::open(shop.address(), Some(1)).await;
    let stream = client.get("/docs", &[]).await;
    let deadline = Instant::now() + STALLED;
    let mut read = 0;
    loop {
        assert!(Instant::now() < deadline, "it was not reset");
        sleep(Duration::from_millis(500)).await;
        client.grant(stream, 1).await;
        match client.next(Instant::now() + Duration::from_secs(1)).await {
            Ok(Some(frame)) if frame.kind == kind::RST_STREAM => break,
            Ok(Some(frame)) if frame.kind == kind::DATA => read += frame.payload.len(),
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => panic!("the connection ended"),
        }
    }
    assert!(read > 5 && read < 1000, "{read}");
}

/// A slow client that keeps reading gets everything, with the correct length.
async fn a_slow_reader(shop: &Shop) {
    let whole = shop.http.get(shop.url("/api/openapi.json")).send().await.unwrap().bytes().await.unwrap();
    let mut client = Http2::open(shop.address(), Some(20_000)).await;
    let stream = client.get("/api/openapi.json", &[]).await;
    let mut read = Vec::new();
    loop {
        let frame = client.next(Instant::now() + AT_ONCE).await.unwrap().unwrap();
        if frame.kind == kind::DATA {
            read.extend_from_slice(&frame.payload);
            let taken = u32::try_from(frame.payload.len()).unwrap();
            if frame.ends() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
            client.grant(stream, taken).await;
            client.grant(0, taken).await;
        }
        assert_ne!(frame.kind, kind::RST_STREAM);
    }
    assert!(read == whole, "{} of {} bytes", read.len(), whole.len());
}

async fn idle(shop: &Shop) {
    let mut client = Http2::open(shop.address(), None).await;
    let stream = client.get("/healthz", &[]).await;
    client.answer(stream, AT_ONCE).await.unwrap();
    let begun = Instant::now();
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(frame) = client.next(begun + IDLE).await.expect("it is closed in time") {
        frames.push(frame);
    }
    assert!(begun.elapsed() > Duration::from_secs(70), "{:?}", begun.elapsed());
    assert!(frames.iter().any(|frame| frame.kind == kind::GOAWAY), "it ends gracefully: {frames:?}");
}

/// An idle connection with HTTP/1.1.
async fn idle_http1(shop: &Shop) {
    let begun = Instant::now();
    let answer = exchange(shop.address(), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", IDLE).await;
    assert!(answer.contains("alive") && begun.elapsed() > Duration::from_secs(70), "{:?}: {answer}", begun.elapsed());
}

/// A client that does not answer pings is closed before the idle limit.
async fn gone(shop: &Shop) {
    let mut client = Http2::open(shop.address(), None).await;
    let stream = client.get("/healthz", &[]).await;
    client.answer(stream, AT_ONCE).await.unwrap();
    let begun = Instant::now();
    assert!(client.ends_unanswered(begun + Duration::from_secs(70)).await, "pings every 20 s, each for 20 s");
    assert!(begun.elapsed() > Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn streams_that_are_not_read_are_reset_and_idle_connections_are_closed() {
    let (shop, api) = an_api().await;
    tokio::join!(
        no_window(&shop, &api),
        a_window_of_a_byte(&shop),
        a_slow_reader(&shop),
        idle(&shop),
        idle_http1(&shop),
        gone(&shop),
    );
}

/// Connects with a client library.
async fn connect(address: SocketAddr) -> SendRequest<Body> {
    let connection = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), connection).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn header_sizes_and_concurrent_streams_are_bounded() {
    let app = Setup::default().without_worker().start().await;
    for (bytes, status) in [(12_000, 200), (20_000, 431)] {
        let request = Request::get("http://x/healthz").header("x-long", "y".repeat(bytes)).body(Body::empty()).unwrap();
        let answer = timeout(AT_ONCE, connect(app.address).await.send_request(request)).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{bytes} bytes");
    }
    let mut client = Http2::open(app.address, Some(0)).await;
    let mut streams = Vec::new();
    for _ in 0..101 {
        streams.push(client.get("/healthz", &[]).await);
    }
    let refused = loop {
        let frame = client.next(Instant::now() + AT_ONCE).await.unwrap().unwrap();
        if frame.kind == kind::RST_STREAM {
            break frame;
        }
    };
    assert_eq!((refused.stream, refused.payload), (streams[100], REFUSED_STREAM.to_be_bytes().to_vec()));
    for stream in &streams[..100] {
        client.grant(*stream, 1000).await;
    }
    assert_eq!(ended(&mut client, 100, AT_ONCE).await, 0, "the others are answered");
}

fn body(frames: &[Frame]) -> String {
    let data = frames.iter().filter(|frame| frame.kind == kind::DATA);
    String::from_utf8_lossy(&data.flat_map(|frame| frame.payload.clone()).collect::<Vec<_>>()).into_owned()
}

/// A response before the end of the body is complete, without RST_STREAM.
#[tokio::test]
async fn an_early_response_is_complete() {
    let app = Setup::default().without_worker().start().await;
    for micros in [0, 500, 2_000, 20_000, 200_000] {
        for _ in 0..10 {
            let mut client = Http2::open(app.address, None).await;
            let head = [
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "x"),
                (":path", "/api/carts"),
                ("content-type", "application/json"),
                ("content-length", "7"),
            ];
            let stream = client.request(&head, false).await;
            sleep(Duration::from_micros(micros)).await;
            client.body(stream, b"{\"a\":1}").await;
            let frames = client.answer(stream, AT_ONCE).await.unwrap();
            assert!(body(&frames).contains("UNAUTHORIZED"), "after {micros} µs: {frames:?}");
            // An error would follow the response at once.
            let late = client.next(Instant::now() + Duration::from_millis(20)).await;
            assert!(!matches!(&late, Ok(Some(frame)) if frame.kind == kind::RST_STREAM), "after {micros} µs: {late:?}");
        }
    }
}

/// The response to a sign-in form with these header fields.
async fn sign_in(address: SocketAddr, fields: &[(&str, &str)]) -> String {
    let mut client = Http2::open(address, None).await;
    let form = "key=test-key";
    let head = [(":method", "POST"), (":scheme", "http"), (":path", "/sign-in")];
    let further = [("content-type", "application/x-www-form-urlencoded")];
    // An authority must be the first field.
    let stream = client.request(&[&head[..], fields, &further].concat(), false).await;
    client.body(stream, form.as_bytes()).await;
    let frames = client.answer(stream, AT_ONCE).await.unwrap();
    assert_eq!(frames[0].kind, kind::HEADERS, "{frames:?}");
    body(&frames)
}

#[tokio::test]
async fn forms_require_our_own_origin() {
    let app = Setup::default().without_worker().start().await;
    let refused = async |fields: &[(&str, &str)]| sign_in(app.address, fields).await.contains("another site");
    assert!(refused(&[("origin", "null")]).await, "no host and no origin are not the same");
    assert!(refused(&[(":authority", "shop.example"), ("origin", "null")]).await);
    assert!(refused(&[(":authority", "shop.example"), ("origin", "https://evil.example")]).await);
    assert!(refused(&[("origin", "https://shop.example")]).await, "it names no host");
    assert!(
        refused(&[(":authority", "shop.example"), ("host", "evil.example"), ("origin", "https://evil.example")]).await,
        "the authority is the host"
    );
    assert!(!refused(&[(":authority", "shop.example"), ("origin", "https://shop.example")]).await);
    assert!(!refused(&[(":authority", "shop.example")]).await, "not from a browser");
    // The same over HTTP/1.1.
    let form = app.bare_request(Method::POST, "/sign-in").header("origin", "null");
    let form = form.header("content-type", "application/x-www-form-urlencoded").body("key=test-key");
    assert_eq!(app.send(form).await.status, 400);
}

#[tokio::test]
async fn the_cookie_is_secure_where_the_authority_is_https() {
    let app = Setup::default().set("PUBLIC_URL", "https://shop.example").without_worker().start().await;
    for (authority, secure) in [("shop.example", true), ("SHOP.example", true), ("127.0.0.1:3000", false)] {
        let request = Request::post(format!("http://{authority}/sign-in"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from("key=test-key"))
            .unwrap();
        let answer = connect(app.address).await.send_request(request).await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        assert_eq!(cookie.contains("; Secure"), secure, "{authority}: {cookie}");
    }
}

/// Neither h2 nor async-stripe logs request contents, at any `RUST_LOG`.
#[tokio::test]
async fn no_library_logs_request_contents() {
    let shop = Shop::open().await;
    let mut variables = shop.api_variables();
    variables.push(("RUST_LOG", "trace,h2=trace,h2::proto=trace,stripe_shared=trace".to_owned()));
    let mut api = Process::start("api", variables).await;
    api.says("api is listening").await;
    let token = "a-recovery-token-of-somebody";
    let path = format!("/pay/{token}");
    let malformed: [&[(&str, &str)]; 4] = [
        &[(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", &path), ("connection", "close")],
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a b"), (":path", &path)],
        &[(":method", "GET"), (":authority", "x"), (":path", &path), (":path", &path)],
        &[(":method", "G T"), (":scheme", &path), (":authority", "x"), (":path", &path)],
    ];
    for fields in malformed {
        let mut client = Http2::open(shop.address(), None).await;
        client.request(fields, true).await;
        let _ = client.next(Instant::now() + Duration::from_secs(2)).await;
    }
    let event =
        format!("{{\"id\":\"evt_1\",\"type\":\"{}\",\"created\":1,\"data\":{{\"object\":{{}}}}}}", "x".repeat(100_000));
    let now = common::clock::Clock::system().now().timestamp();
    let signature = sandbox::stripe::sign(&event, crate::processes::SECRET, now);
    let request = shop.http.post(shop.url("/api/webhooks/stripe")).header("stripe-signature", signature);
    let _ = request.body(event).send().await.unwrap().bytes().await;
    api.signal(Signal::SIGTERM);
    let mut lines = Vec::new();
    while let Some(line) = api.next_line().await {
        lines.push(line);
    }
    assert!(lines.iter().any(|line| line.contains("/api/webhooks/stripe")), "{} lines", lines.len());
    assert!(lines.iter().any(|line| line.contains("\"TRACE\"")), "{} lines", lines.len());
    for line in &lines {
        assert!(!line.contains(token), "{line}");
        assert!(line.len() < 5_000, "{} bytes: {:.300}", line.len(), line);
    }
}
