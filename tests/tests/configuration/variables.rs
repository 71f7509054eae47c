//! Every variable, and values that it refuses.

/// Invalid as a number, an address, a duration and a list.
pub(super) const NONSENSE: &[&str] = &["\u{1}", "-", "½", "a b", "\u{fffd}"];
/// No header can hold it; any other word may be a fake Stripe's key or secret.
const UNSENDABLE: &[&str] = &["\u{1}", "½", "a b", "\u{fffd}"];
const DURATIONS: &[&str] =
    &["soon", "10", "0s", "1ns", "999us", "-1s", "1d -1s", "101years", "99999999999999999999s", "1.5x"];
const ADDRESSES: &[&str] = &["3000", "localhost:3000", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:-1", "1.2.3:80"];
const WEB_ADDRESSES: &[&str] = &[
    "shop.example",
    "ftp://shop.example",
    "https://",
    "https:///x",
    "https://:80",
    "https://shop.example:99999",
    "https://shop.example?x",
    "https://shop.example/#x",
    "https://user:pass@shop.example",
    "https://shop\\.example",
    "https://[::1",
    "https://shop..example",
    "https://shop'.example",
    "https://shop.example/\"><script>",
    "https://shop.example/{x}",
    "https://user:hush@shop.example",
    "ftp://user:hush@shop.example",
];
const NUMBERS: &[&str] = &["-1", "1.5", "4294967296", "1e3", "0x10", "many", "1,000"];
const DATABASES: &[&str] =
    &["mysql://x", "localhost", "postgres://", "postgres://h:99999/d", "postgres://h/d?sslmode=perhaps"];
const SCHEDULES: &[&str] = &["daily", "* * * * *", "60 * * * * *", "0 0 0 30 2 *", "0 */0 * * * *", "0 0 0 32 * *"];
const ON_OFF: &[&str] = &["yes", "true", "ON", "1", "on,off"];
const PAIRS: &[&str] = &["secret", "=x", "a=b,c"];

type Case = (&'static str, &'static str, &'static [&'static str]);

/// Every variable that can be malformed: the binaries that read it, and refused values besides
/// [`NONSENSE`].
pub(super) const VARIABLES: &[Case] = &[
    ("both", "DATABASE_URL", DATABASES),
    ("both", "DATABASE_LISTEN_URL", DATABASES),
    ("both", "PGPASSWORD", &[]),
    ("both", "DATABASE_MAX_CONNECTIONS", &["0", "2", "-1", "ten", "1001", "10.0"]),
    ("api", "API_KEY", &["a\u{7f}b"]),
    ("api", "BIND_ADDR", ADDRESSES),
    ("both", "PUBLIC_URL", WEB_ADDRESSES),
    (
        "worker",
        "STRIPE_SECRET_KEY",
        &["sk_", "rk_", "sk_test_", "rk_live_", "sk_test_…", "pk_live_1", "whsec_1", "sk_test 1"],
    ),
    ("worker", "STRIPE_SECRET_KEY", UNSENDABLE),
    (
        "api",
        "STRIPE_WEBHOOK_SECRET",
        &["whsec_", "whsec_…", "whsec_ ", "whsec_ab cd", "sk_test_1234", "we_1234", "whsec_good,whsec_", ","],
    ),
    ("api", "STRIPE_WEBHOOK_SECRET", UNSENDABLE),
    ("both", "STRIPE_API_URL", WEB_ADDRESSES),
    (
        "both",
        "CHECKOUT_HOSTS",
        &[
            ",",
            "https://user:hush@pay.example",
            "https://pay.example",
            "pay.example/x",
            "10.0.0.1",
            "*.example",
            "a..b",
        ],
    ),
    ("worker", "CHECKOUT_SHIPPING_COUNTRIES", &["KP", "UK", "USA", "US CA", ",", "US;CA", "US,XX"]),
    ("worker", "CHECKOUT_BILLING_ADDRESS", &["on", "never", "AUTO", "required,auto"]),
    ("worker", "CHECKOUT_PHONE", ON_OFF),
    ("worker", "CHECKOUT_PROMOTION_CODES", ON_OFF),
    ("worker", "CHECKOUT_AUTOMATIC_TAX", ON_OFF),
    ("worker", "CHECKOUT_DESCRIPTION", &["{externalId}", "Order {", "a\u{7f}b", "\u{1}", "\u{fffd}"]),
    (
        "both",
        "HTTPS_PROXY",
        &["proxy", "socks5://hush@proxy:1080", "http://", "http://hush@proxy/path", "http://proxy?x", "ftp://proxy:21"],
    ),
    ("both", "NO_PROXY", &[]),
    ("worker", "STRIPE_RATE", &["10001"]),
    ("worker", "STRIPE_RATE", NUMBERS),
    (
        "api",
        "CURRENCY",
        &["dollars", "us", "xxx", "XTS", "xau", "xag", "xpt", "xpd", "xdr", "che", "clf", "usdd", "u$d"],
    ),
    ("api", "TIME_ZONE", &["Vienna", "europe/vienna", "Europe/Wien", "+01:00", "CEST"]),
    ("api", "SHOP_NAME", &["Tea\u{7f}", "\u{1}", "\u{fffd}"]),
    ("api", "SHOP_URL", WEB_ADDRESSES),
    ("api", "SHOP_URL", &["javascript:alert(1)", "//shop.example", "data:text/html,x"]),
    ("api", "RATE_LIMIT_PER_MINUTE", NUMBERS),
    ("api", "TRUSTED_PROXIES", &[",", "10.0.0.0/33", "10.0.0", "proxy", "10.0.0.1,nonsense", "::/129"]),
    (
        "api",
        "CORS_ORIGINS",
        &["*", "shop.example", "https://shop.example/", "null", ",", "https://x:99999", "https://x..y"],
    ),
    ("api", "CORS_ORIGINS", &["https://user:hush@shop.example"]),
    ("api", "PAYMENT_LINK_TTL", DURATIONS),
    ("api", "PAYMENT_LINK_WAIT", DURATIONS),
    ("worker", "CART_TTL", DURATIONS),
    ("worker", "WORKER_CONCURRENCY", &["0", "1001"]),
    ("worker", "WORKER_CONCURRENCY", NUMBERS),
    ("worker", "WORKER_QUEUES", &["mail", "expiry,mail", "Expiry", ",", " , ,"]),
    ("worker", "EXPIRY_SCHEDULE", SCHEDULES),
    ("worker", "ROLLUP_SCHEDULE", SCHEDULES),
    ("worker", "HEALTH_ADDR", ADDRESSES),
    ("api", "METRICS_ADDR", ADDRESSES),
    ("both", "QUEUE_LISTEN", &["yes", "true", "ON"]),
    ("worker", "RETAIN_DONE_JOBS", DURATIONS),
    ("worker", "RETAIN_DEAD_JOBS", DURATIONS),
    ("worker", "RETAIN_EVENTS", &["2d"]),
    ("worker", "RETAIN_EVENTS", DURATIONS),
    ("worker", "RETAIN_IDEMPOTENCY_KEYS", &["23h"]),
    ("worker", "RETAIN_IDEMPOTENCY_KEYS", DURATIONS),
    ("worker", "RETAIN_SLOTS", DURATIONS),
    ("worker", "RETAIN_AUDIT", DURATIONS),
    ("worker", "RETAIN_PERSONAL_DATA", &["23h"]),
    ("worker", "RETAIN_PERSONAL_DATA", DURATIONS),
    ("both", "SHUTDOWN_TIMEOUT", DURATIONS),
    ("both", "LOG_FORMAT", &["xml", "JSON"]),
    ("both", "RUST_LOG", &["api=loud", "=info"]),
    ("both", "OTEL_EXPORTER_OTLP_ENDPOINT", WEB_ADDRESSES),
    ("both", "OTEL_EXPORTER_OTLP_PROTOCOL", &["grpc"]),
    ("both", "OTEL_EXPORTER_OTLP_HEADERS", PAIRS),
    ("both", "OTEL_RESOURCE_ATTRIBUTES", PAIRS),
    ("both", "OTEL_BSP_SCHEDULE_DELAY", &["0", "3600001"]),
    ("both", "OTEL_BSP_SCHEDULE_DELAY", NUMBERS),
    ("both", "OTEL_TRACES_SAMPLER", &["sometimes"]),
    ("both", "OTEL_TRACES_SAMPLER_ARG", &["2", "-1"]),
];

/// Variables that accept any text, or some of [`NONSENSE`].
pub(super) const FREE: &[&str] = &[
    "API_KEY",
    "CHECKOUT_DESCRIPTION",
    "DATABASE_URL",
    "DATABASE_LISTEN_URL",
    "NO_PROXY",
    "PGPASSWORD",
    "RUST_LOG",
    "SHOP_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "STRIPE_SECRET_KEY",
    "STRIPE_WEBHOOK_SECRET",
];
