//! Requests to the api, as clients, shoppers and Stripe send them.

use reqwest::{Method, header::HeaderMap};
use sandbox::stripe::sign;
use serde_json::{Value, json};

use super::{App, KEY, WEBHOOK_SECRET};
use crate::{Contract, a_cart};

/// A response of the api.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body, if it is JSON; otherwise `null`.
    pub body: Value,
}

impl Answer {
    /// The `data` of a successful response.
    ///
    /// # Panics
    /// If it is an error, or has another status.
    pub fn data(self, status: u16) -> Value {
        assert_eq!((self.status, &self.body["success"]), (status, &json!(true)), "{}", self.text);
        self.body["data"].clone()
    }

    /// Checks an error response and returns it.
    ///
    /// # Panics
    /// If the status or code differs.
    pub fn is_error(&self, status: u16, code: &str) -> &Value {
        assert_eq!((self.status, &self.body["error"]["code"]), (status, &json!(code)), "{}", self.text);
        assert_eq!(self.body["success"], json!(false));
        assert!(self.body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
        assert!(self.headers.contains_key("x-request-id"));
        &self.body["error"]
    }

    /// A header's text, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl App {
    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Builds a request with the API key.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path)).header("x-api-key", KEY)
    }

    /// Builds a request without headers.
    pub fn bare_request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path))
    }

    /// Sends a request and checks the response against the OpenAPI document.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn execute(&self, request: reqwest::Request) -> reqwest::Result<reqwest::Response> {
        self.http.execute(request).await
    }

    /// Sends a request.
    ///
    /// # Panics
    /// If there is no response, or it does not match the OpenAPI document.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let request = request.build().expect("a good request");
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.http.execute(request).await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a whole answer");
        Contract::get().hold(&method, &path, status, &headers, &text);
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, text, body }
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST` with a body of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `PATCH` with a body of JSON.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Creates a cart; returns its id.
    pub async fn cart(&self) -> String {
        self.cart_of(&a_cart()).await
    }

    /// Creates a cart with this body; returns its id.
    ///
    /// # Panics
    /// If the request is refused.
    pub async fn cart_of(&self, body: &Value) -> String {
        let cart = self.post("/api/carts", body).await.data(201);
        cart["id"].as_str().expect("an id").to_owned()
    }

    /// The current state of the cart.
    pub async fn show(&self, id: &str) -> Value {
        self.get(&format!("/api/carts/{id}")).await.data(200)
    }

    /// Requests a payment link.
    pub async fn ask(&self, id: &str) -> Answer {
        self.send(self.request(Method::POST, &format!("/api/carts/{id}/payment-link"))).await
    }

    /// Requests a payment link without waiting for it; returns the pending request.
    ///
    /// # Panics
    /// If it is refused, or the cart has a link.
    pub async fn ask_later(&self, id: &str) -> Value {
        let request = self.request(Method::POST, &format!("/api/carts/{id}/payment-link"));
        self.send(request.header("prefer", "respond-async")).await.data(202)
    }

    /// Requests the recovery link alone.
    pub async fn extend(&self, id: &str) -> Answer {
        self.send(self.request(Method::POST, &format!("/api/carts/{id}/recovery-link"))).await
    }

    /// Requests a payment link; returns the id of its session.
    ///
    /// # Panics
    /// If there is no link.
    pub async fn session(&self, id: &str) -> String {
        let link = self.ask(id).await.data(200);
        let url = link["paymentLink"].as_str().expect("a link");
        url.rsplit('/').next().expect("a path").to_owned()
    }

    /// Pays on the fake Stripe's page at `url`.
    ///
    /// # Panics
    /// If the page refuses the payment.
    pub async fn pay(&self, url: &str) {
        let paid = self.http.post(format!("{url}/pay")).send().await.expect("the fake Stripe responds");
        assert!(paid.status().is_success() || paid.status().is_redirection(), "{}", paid.status());
    }

    /// Presses a button on the fake Stripe's page of a session; returns the status of the response.
    ///
    /// # Panics
    /// If there is no response.
    pub async fn press(&self, session: &str, action: &str) -> u16 {
        let url = format!("{}/c/pay/{session}/{action}", self.stripe.url());
        self.http.post(url).send().await.expect("the fake Stripe responds").status().as_u16()
    }

    /// Sends an event, signed like Stripe's.
    pub async fn webhook(&self, event: &Value) -> Answer {
        let body = event.to_string();
        let signature = sign(&body, WEBHOOK_SECRET, self.now().timestamp());
        self.signed_webhook(&body, &signature).await
    }

    /// Sends an event with this signature.
    pub async fn signed_webhook(&self, body: &str, signature: &str) -> Answer {
        let request = self.bare_request(Method::POST, "/api/webhooks/stripe");
        self.send(request.header("stripe-signature", signature).body(body.to_owned())).await
    }

    /// The names of all schedules that workers have registered, sorted.
    ///
    /// # Panics
    /// If the request fails.
    pub async fn schedules(&self) -> Vec<String> {
        let data = self.get("/api/schedules").await.data(200);
        let schedules = data["schedules"].as_array().expect("schedules");
        let mut names: Vec<String> =
            schedules.iter().map(|schedule| schedule["name"].as_str().expect("a name").to_owned()).collect();
        names.sort_unstable();
        names
    }
}
