//! TLS to Postgres with `sslmode=verify-full`, against a server whose certificate this test
//! created.

use tests::{Authority, DEADLINE, postgres_node::PostgresNode, processes::Process, within};

use crate::processes::Shop;

/// A server for `localhost` that requires TLS, with a database of the role `checkout`; returns the
/// file of the authority's certificate, too.
async fn server(authority: &Authority) -> Option<(PostgresNode, String)> {
    let settings = "ssl = on\nssl_cert_file = '../server.crt'\nssl_key_file = '../server.key'";
    let access = "hostssl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all all reject";
    let mut node = PostgresNode::new(settings, access).await?;
    let (certificate, key) = authority.sign("localhost");
    node.write("server.crt", &certificate);
    node.write("server.key", &key);
    let root = node.write("root.crt", &authority.certificate).display().to_string();
    node.set_query(&format!("sslmode=verify-full&sslrootcert={root}"));
    node.start().await;
    node.sql(&["create role checkout login password 'checkout'", "create database checkout owner checkout"]).await;
    Some((node, root))
}

#[tokio::test]
async fn every_connection_is_encrypted_from_the_first_migration_on() {
    let Some((node, _)) = server(&Authority::new("the test's own")).await else { return };
    let shop = Shop::open().await;
    let url = node.url_of("checkout", "checkout", "checkout");
    let with_tls = |mut variables: Vec<(&'static str, String)>| {
        variables[0].1.clone_from(&url);
        variables
    };
    let mut api = Process::start("api", with_tls(shop.api_variables())).await;
    api.says("api is listening").await;
    let mut worker = Process::start("worker", with_tls(shop.worker_variables())).await;
    worker.says("worker is working").await;
    for _ in 0..5 {
        let id = shop.cart().await;
        let (status, link) = shop.link(&id).await;
        assert_eq!(status, 200, "{link}");
        let page = link["data"]["paymentLink"].as_str().unwrap();
        assert_eq!(shop.http.post(format!("{page}/pay")).send().await.unwrap().status(), 200);
    }
    let pool = node.pool("postgres");
    within(DEADLINE, "both listen, by TLS as everything else", async || {
        let sessions: Vec<(bool, String)> = sqlx::query_as(
            "select ssl and version like 'TLSv1._', query from pg_stat_activity join pg_stat_ssl using (pid)
             where usename = 'checkout'",
        )
        .fetch_all(&pool)
        .await
        .unwrap();
        assert!(sessions.iter().all(|(encrypted, _)| *encrypted), "{sessions:?}");
        sessions.iter().filter(|(_, query)| query.to_lowercase().starts_with("listen")).count() == 2
    })
    .await;
}

#[tokio::test]
async fn an_untrusted_server_is_refused_in_one_line() {
    let authority = Authority::new("the test's own");
    let Some((node, root)) = server(&authority).await else { return };
    let stranger = node.write("stranger.crt", &Authority::new("somebody else").certificate).display().to_string();
    let shop = Shop::open().await;
    let good = node.url_of("checkout", "checkout", "checkout");
    let missing = format!("{root}.none");
    // The server refuses clients without TLS, so the other test did use TLS.
    let cases = [
        (good.replace("localhost", "127.0.0.1"), "not valid for name"),
        (good.replace(&root, &stranger), "UnknownIssuer"),
        (good.replace(&root, &missing), "No such file"),
        (format!("{}?sslmode=verify-full", shop.database.url), "server does not support TLS"),
    ];
    for (url, why) in &cases {
        for binary in ["api", "worker"] {
            let mut variables = if binary == "api" { shop.api_variables() } else { shop.worker_variables() };
            variables[0].1.clone_from(url);
            let mut process = Process::start(binary, variables).await;
            let line = process.says(&format!("{binary}: ")).await;
            assert!(line.starts_with(&format!("{binary}: DATABASE_URL: TLS to Postgres fails: ")), "{line}");
            assert!(line.contains(why) && line.contains("sslrootcert") && !line.contains("checkout@"), "{line}");
            assert_eq!(process.ends().await, Some(1), "{line}");
        }
    }
    let mut variables = shop.api_variables();
    variables[0].1 = good.replace("verify-full", "disable");
    let mut process = Process::start("api", variables).await;
    let line = process.says("api: ").await;
    assert!(line.contains("Postgres refuses it") && line.contains("no encryption"), "{line}");
    assert_eq!(process.ends().await, Some(1));
}
