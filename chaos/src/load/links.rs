//! The clients' requests for payment links, and the shoppers at Stripe.

use rand::RngExt;
use reqwest::{Method, StatusCode};

use super::{Answer, Client};
use sandbox::stripe::Foreign;

use crate::states::State;

impl Client {
    pub(super) async fn ask_for_link(&mut self) {
        let Some(place) = self.pick() else { return };
        let path = format!("/api/carts/{}/payment-link", self.carts[place].id);
        let prefer = ["respond-async", "wait=1", "wait=2", "wait=3"][self.dice.random_range(0..4)];
        let answer =
            self.ask("POST payment-link", Method::POST, &path, |request| request.header("prefer", prefer)).await;
        match answer {
            Answer::Said(StatusCode::OK, answer) => {
                let last = |field: &str| answer["data"][field].as_str()?.rsplit('/').next().map(str::to_owned);
                let cart = &mut self.carts[place];
                cart.session = last("paymentLink");
                cart.token = last("recoveryUrl").or(cart.token.take());
            }
            Answer::Said(StatusCode::NOT_FOUND, _) => self.said(place, "POST payment-link", Some(State::Gone)),
            // Pending, refused by Stripe, or not payable.
            Answer::Said(..) | Answer::Unknown => {}
        }
    }

    pub(super) async fn show_link(&mut self) {
        let Some(place) = self.pick() else { return };
        let path = format!("/api/carts/{}/payment-link", self.carts[place].id);
        let answer = self.ask("GET payment-link", Method::GET, &path, |request| request).await;
        if let Answer::Said(StatusCode::OK, answer) = answer
            && let Some(session) = answer["data"]["paymentLink"].as_str().and_then(|url| url.rsplit('/').next())
        {
            self.carts[place].session = Some(session.to_owned());
        }
    }

    /// A shopper opens a recovery link, presses the button if no checkout is open, and may pay.
    pub(super) async fn open_recovery_link(&mut self) {
        let Some(place) = self.pick() else { return };
        let Some(token) = self.carts[place].token.clone() else { return };
        let (api, path) = (self.api(), format!("/pay/{token}"));
        let url = format!("http://{}{path}", self.scene.members[api].address);
        // The response is a redirect, which `ask` does not check.
        let send = |method| self.scene.http.request(method, &url).timeout(super::GIVE_UP).send();
        let opened = match send(Method::GET).await {
            Ok(page) if page.status() == StatusCode::OK => send(Method::POST).await,
            opened => opened,
        };
        let session = opened.ok().and_then(|response| {
            let location = response.headers().get("location")?.to_str().ok()?.to_owned();
            location.rsplit('/').next().map(str::to_owned)
        });
        self.scene.book.ended("/pay", if session.is_some() { "done" } else { "refused" });
        if session.is_some() {
            self.carts[place].session = session;
            if self.dice.random_bool(0.5) {
                self.pay_at(place).await;
            }
        }
    }

    pub(super) async fn pay(&mut self) {
        let from = self.carts.len().saturating_sub(super::IN_HAND);
        let payable = |place: &usize| self.carts[*place].session.is_some() || self.carts[*place].processing.is_some();
        let places: Vec<usize> = (from..self.carts.len()).filter(payable).collect();
        if places.is_empty() {
            return;
        }
        let place = places[self.dice.random_range(0..places.len())];
        self.pay_at(place).await;
    }

    /// Sends an event of a foreign session that names one of the carts. The event must have no
    /// effect.
    pub(super) async fn send_foreign_event(&mut self) {
        let Some(place) = self.pick() else { return };
        let foreign = Foreign::ALL[self.dice.random_range(0..Foreign::ALL.len())];
        let (stripe, version) = (self.scene.stripe.clone(), self.dice.random_range(1..3));
        stripe.send_foreign(foreign, &self.carts[place].id, version).await;
        self.scene.book.ended("foreign event", "done");
    }

    /// Pays a session. A payment that Stripe accepts must arrive.
    async fn pay_at(&mut self, place: usize) {
        let stripe = self.scene.stripe.clone();
        let cart = &mut self.carts[place];
        if let Some(session) = cart.processing.take() {
            let arrives = self.dice.random_bool(0.7);
            let taken = stripe.money_arrives(&session, arrives).await.is_ok() && arrives;
            if taken {
                cart.paid = true;
                cart.known.may_come(State::Recovered);
            }
            self.scene.book.ended("delayed money", if arrives { "done" } else { "refused" });
            if taken && !stripe.loses_events_of(&session) {
                self.give_back(&session).await;
            }
            return;
        }
        let Some(session) = cart.session.clone() else { return };
        if self.dice.random_bool(0.2) {
            let taken = stripe.pay_later(&session).await.is_ok();
            cart.session = None;
            cart.processing = taken.then_some(session);
            self.scene.book.ended("payment by debit", if taken { "done" } else { "refused" });
        } else {
            let taken = stripe.pay(&session).await.is_ok();
            if taken {
                cart.paid = true;
                cart.known.may_come(State::Recovered);
            }
            cart.session = None;
            self.scene.book.ended("payment by card", if taken { "done" } else { "refused" });
            if taken {
                self.give_back(&session).await;
            }
        }
    }

    /// Refunds or disputes some payments. Their events may arrive before those of the payment. (A
    /// payment whose events are lost is left alone: refunds are known by their events only.)
    async fn give_back(&mut self, session: &str) {
        let stripe = self.scene.stripe.clone();
        let cents = self.dice.random_range(1..50);
        let done = match self.dice.random_range(0..20) {
            0 => stripe.refund(session, None).await,
            1 => stripe.refund(session, Some(cents)).await,
            2 => match stripe.refund(session, Some(cents)).await {
                Ok(_) => stripe.refund(session, None).await,
                refused => refused,
            },
            3 => match stripe.refund(session, Some(cents)).await {
                Ok(_) => stripe.fail_refund(session).await,
                refused => refused,
            },
            4 => stripe.dispute(session, None).await,
            5 | 6 => match stripe.dispute(session, Some(cents)).await {
                Ok(_) => stripe.close_dispute(session, self.dice.random_bool(0.5)).await,
                refused => refused,
            },
            _ => return,
        };
        self.scene.book.ended("refund or dispute", if done.is_ok() { "done" } else { "refused" });
    }
}
