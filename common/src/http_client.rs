//! The HTTP client of calls to other services: Stripe and the trace collector.

use std::{fmt, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Client, Proxy, redirect::Policy};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use url::Url;

use crate::config::{has_plain_host, redacted, value};

/// The proxy of outgoing https calls. Plain http never uses one: it is for services nearby, such as
/// a fake Stripe.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ProxyConfig {
    /// Proxy for https calls to Stripe and to the trace collector
    #[arg(
        long,
        env = "HTTPS_PROXY",
        value_name = "an address such as http://proxy.example:3128; https_proxy and ALL_PROXY count as well"
    )]
    #[arg(value_parser = redacted(value(ProxyAddress::parse)))]
    https_proxy: Option<ProxyAddress>,
    /// Hosts that are called without the proxy, and their subdomains
    #[arg(long, env = "NO_PROXY", value_name = "hosts and networks such as shop.example,10.0.0.0/8, or `*`")]
    no_proxy: Option<String>,
}

impl ProxyConfig {
    /// The proxy of calls to `base`; `None` if they are direct.
    fn of(&self, base: &str) -> Option<&ProxyAddress> {
        let proxy = self.https_proxy.as_ref()?;
        let no_proxy = self.no_proxy.clone().unwrap_or_default();
        let uses = Matcher::builder().https(proxy.0.as_str()).no(no_proxy).build();
        uses.intercept(&base.parse::<Uri>().ok()?).map(|_| proxy)
    }
}

/// The address of a proxy. It is shown without its user and password.
#[derive(Clone, PartialEq, Eq)]
struct ProxyAddress(Url);

impl ProxyAddress {
    /// Reads an `http://` or `https://` address, or a host with its port, which is taken for
    /// `http://`, as curl does.
    fn parse(text: &str) -> Option<Self> {
        let has_port = |text: &str| text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let url = match text.contains("://") {
            true => Url::parse(text).ok()?,
            false if has_port(text) => Url::parse(&format!("http://{text}")).ok()?,
            false => return None,
        };
        let is_address = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let is_known = matches!(url.scheme(), "http" | "https") && url.has_host() && has_plain_host(&url);
        (is_address && is_known).then_some(Self(url))
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.0.port().map(|port| format!(":{port}")).unwrap_or_default();
        write!(f, "{}://{}{port}", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
}

impl fmt::Debug for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A client for one service. It never follows redirects.
///
/// HTTPS trusts Mozilla's root certificates and those of the operating system, which are in the
/// files of `SSL_CERT_FILE` or `SSL_CERT_DIR` if one of these is set.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: Client,
    /// The proxy of its calls, as text without a password.
    proxy: Option<String>,
}

impl HttpClient {
    /// Creates a client for the service at `base`. `timeout` limits a whole call, including the
    /// response's body.
    ///
    /// # Panics
    /// Never: the configuration of TLS is fixed, and ring supports it.
    pub fn new(base: &str, timeout: Duration, proxy: &ProxyConfig) -> Self {
        let is_https = base.starts_with("https:");
        let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if is_https {
            let found = rustls_native_certs::load_native_certs(); // reads files
            for error in found.errors {
                tracing::warn!(%error, "could not read certificates of the system (or of SSL_CERT_FILE, SSL_CERT_DIR)");
            }
            roots.add_parsable_certificates(found.certs);
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports these versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .no_proxy() // reqwest's own reading of the environment
            .redirect(Policy::none())
            .pool_idle_timeout(Duration::from_secs(30))
            .timeout(timeout)
            .user_agent(concat!("quick-checkout-tracker/", env!("CARGO_PKG_VERSION")));
        let proxy = proxy.of(base);
        if let Some(proxy) = proxy {
            client = client.proxy(Proxy::https(proxy.0.clone()).expect("a parsed address"));
        }
        let client = client.build().expect("reqwest supports this configuration of TLS");
        Self { client, proxy: proxy.map(ToString::to_string) }
    }

    /// The client that makes the calls.
    pub fn inner(&self) -> &Client {
        &self.client
    }

    /// Adds the proxy, if there is one, to the reason why a call got no response: the fault may be
    /// the proxy's.
    pub fn name_proxy(&self, why: String) -> String {
        match &self.proxy {
            Some(proxy) => format!("{why}, through the proxy {proxy} (HTTPS_PROXY)"),
            None => why,
        }
    }
}

/// The error's message with its causes, without the URL of the request.
pub fn message(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(proxy: &str, no_proxy: &str) -> ProxyConfig {
        ProxyConfig { https_proxy: ProxyAddress::parse(proxy), no_proxy: Some(no_proxy.to_owned()) }
    }

    #[test]
    fn addresses_of_proxies() {
        let shown = |text: &str| ProxyAddress::parse(text).map(|proxy| format!("{proxy} {proxy:?}"));
        for (text, address) in [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("http://shop:hush@proxy.example:3128/", "http://proxy.example:3128"),
            ("http://shop:hu@sh@proxy.example:3128", "http://proxy.example:3128"),
            ("https://proxy.example", "https://proxy.example"),
            ("proxy:3128", "http://proxy:3128"),
            ("shop:hush@10.0.0.1:3128", "http://10.0.0.1:3128"),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
        ] {
            assert_eq!(shown(text), Some(format!("{address} {address}")), "{text}");
        }
        let others = ["", "proxy", "socks5://proxy:1080", "http://", "http://proxy/path", "http://proxy?x", "a b:1"];
        for other in others {
            assert_eq!(shown(other), None, "{other}");
        }
    }

    #[test]
    fn a_service_is_called_through_the_proxy_unless_it_is_named() {
        let (stripe, proxy) = ("https://api.stripe.com", "http://proxy:3128");
        let uses = |no_proxy: &str, base: &str| config(proxy, no_proxy).of(base).is_some();
        assert!(uses("", stripe) && uses("localhost,shop.example", stripe));
        for no_proxy in ["api.stripe.com", "stripe.com", ".stripe.com", "localhost, .STRIPE.com", "*"] {
            assert!(!uses(no_proxy, stripe), "{no_proxy}");
        }
        assert!(uses("10.0.0.0/8", "https://11.0.0.1:4318/v1/traces"));
        assert!(!uses("10.0.0.0/8", "https://10.1.2.3:4318/v1/traces"));
        assert!(!uses("", "http://api.stripe.com"), "plain http is direct");
        assert_eq!(ProxyConfig::default().of(stripe), None);
    }
}
