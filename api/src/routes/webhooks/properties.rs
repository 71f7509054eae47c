//! Only a signature over the exact bytes is accepted, and whatever is accepted is read without
//! harm.

use chrono::Datelike;
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha2::Sha256;

use super::*;

const SIGNATURES: fuzz::Corpus = fuzz::corpus!("signatures");
const EVENTS: fuzz::Corpus = fuzz::corpus!("events");
const NOW: i64 = 1_764_000_000;

fn secrets() -> Vec<SecretString> {
    vec![SecretString::from("whsec_old"), SecretString::from("whsec_new")]
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(NOW, 0).expect("an instant")
}

fn mac(secret: &str, time: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is good");
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_taken(body: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = axum::http::HeaderValue::from_bytes(signature) else { return false };
    verified(&Bytes::copy_from_slice(body), signature.to_str().ok(), &secrets(), now()).is_ok()
}

/// Stripe's documented rule, implemented independently: a time is recent, and one `v1` is the HMAC
/// of that time and the body.
fn should_be_taken(body: &str, signature: &str) -> bool {
    let pairs = || signature.split(',').filter_map(|pair| pair.trim().split_once('='));
    let times: Vec<i64> = pairs().filter(|(name, _)| *name == "t").filter_map(|(_, time)| time.parse().ok()).collect();
    times.iter().any(|time| {
        (time - NOW).abs() <= 300
            && ["whsec_old", "whsec_new"].iter().any(|secret| {
                let expected = mac(secret, &time.to_string(), body.as_bytes());
                pairs().any(|(name, value)| name == "v1" && value.eq_ignore_ascii_case(&expected))
            })
    })
}

fn signature_holds(signature: &str, body: &str) -> Result<(), TestCaseError> {
    if is_taken(body.as_bytes(), signature.as_bytes()) {
        prop_assert!(should_be_taken(body, signature), "{signature:?} of {body:?}");
    }
    Ok(())
}

/// Checks a payload with a valid signature.
fn event_holds(payload: &str) -> Result<(), TestCaseError> {
    let header = format!("t={NOW},v1={}", mac("whsec_new", &NOW.to_string(), payload.as_bytes()));
    prop_assert!(is_taken(payload.as_bytes(), header.as_bytes()), "a good signature of {payload:?}");
    if let Ok(event) = event::read(payload, now()) {
        // All of these are stored in Postgres.
        let object = &event.object;
        let texts = [object.id.as_ref(), object.payment_intent.as_ref(), Some(&event.id), Some(&event.kind)];
        for text in texts.into_iter().flatten() {
            prop_assert!(text.len() <= 255 && !text.contains('\0'), "{text:?}");
        }
        prop_assert!((1..=9999).contains(&event.created_at.year()));
    }
    Ok(())
}

/// Fills in the time and the signatures, which a seed has as placeholders.
fn filled(seed: &str, body: &str) -> String {
    let of = |secret: &str| mac(secret, &NOW.to_string(), body.as_bytes());
    seed.replace("NEW", &of("whsec_new")).replace("OLD", &of("whsec_old")).replace("NOW", &NOW.to_string())
}

proptest! {
    #[test]
    fn a_signature_is_taken_only_if_it_is_one(signature in SIGNATURES.near(), body in EVENTS.near()) {
        signature_holds(&filled(&signature, &body), &body)?;
    }

    #[test]
    fn whatever_is_signed_is_read_without_harm(payload in EVENTS.near()) {
        event_holds(&payload)?;
    }

    #[test]
    fn a_byte_more_less_or_other_is_refused(at: prop::sample::Index, byte: u8, change in 0..3) {
        let body = EVENTS.seeds().remove(0).into_bytes();
        let header = format!("t={NOW},v1={}", mac("whsec_old", &NOW.to_string(), &body));
        prop_assert!(is_taken(&body, header.as_bytes()));
        let mut other = body.clone();
        let at = at.index(body.len());
        match change {
            0 => { other.remove(at); }
            1 => other.insert(at, byte),
            _ => other[at] = byte,
        }
        prop_assert_eq!(is_taken(&other, header.as_bytes()), other == body);
    }

    #[test]
    fn a_signature_is_good_for_five_minutes(age in -1000..1000_i64, secret in "whsec_(old|new|none)") {
        let time = (NOW - age).to_string();
        let header = format!("t={time},v1={}", mac(&secret, &time, b"{}"));
        prop_assert_eq!(is_taken(b"{}", header.as_bytes()), age.abs() <= 300 && secret != "whsec_none");
    }
}

/// Fields of unexpected types are not read; JSON arrays and serde_json's private keys mean nothing.
#[test]
fn fields_of_other_types_are_absent() {
    let object = |object: &str| {
        let body = format!(r#"{{"id":"evt_1","type":"t","livemode":false,"data":{{"object":{object}}}}}"#);
        event::read(&body, now()).expect("an event").object
    };
    let good = object(
        r#"{"object":"checkout.session","amount_total":9998,"currency":"usd","metadata":{"cart_id":"cart_1","link_version":"1"}}"#,
    );
    assert_eq!((good.reported.amount, good.link_version), (Some(9998), Some(1)));
    for amount in [
        "\"9998\"",
        "9998.0",
        "1e4",
        "null",
        "[9998]",
        r#"{"$serde_json::private::Number":"9998"}"#,
        "99999999999999999999",
    ] {
        let read =
            object(&format!(r#"{{"object":"checkout.session","amount_total":{amount},"amount_received":9998}}"#));
        assert_eq!(read.reported.amount, None, "{amount}");
        let read = object(&format!(r#"{{"object":"payment_intent","amount_total":9998,"amount_received":{amount}}}"#));
        assert_eq!(read.reported.amount, None, "{amount}");
    }
    let amounts = r#""amount":9998,"amount_refunded":100,"amount_total":1,"amount_received":2"#;
    for (kind, amount) in [("charge", Some(100)), ("dispute", Some(9998)), ("refund", Some(9998)), ("payout", None)] {
        let read = object(&format!(r#"{{"object":"{kind}",{amounts}}}"#));
        assert_eq!(read.reported.amount, amount, "{kind}");
    }
    for metadata in [
        "null",
        "7",
        r#"["cart_1","1"]"#,
        r#"{"$serde_json::private::RawValue":"{}"}"#,
        r#"{"cart_id":7,"link_version":1}"#,
    ] {
        let read = object(&format!(r#"{{"metadata":{metadata}}}"#));
        assert_eq!((read.cart_id, read.link_version), (None, None), "{metadata}");
    }
    for data in ["[]", "[{}]", "7", "null"] {
        let body = format!(r#"{{"id":"evt_1","type":"t","data":{data}}}"#);
        assert!(event::read(&body, now()).expect("an event").object.id.is_none());
    }
    assert!(event::read(r#"["evt_1","t",1,false,{}]"#, now()).is_err());
    for (of_event, of_object, read) in [
        ("true", "false", None),
        ("true", "\"true\"", None),
        ("1", "true", None),
        ("true", "null", Some(true)),
        ("null", "true", Some(true)),
        ("false", "false", Some(false)),
    ] {
        let body =
            format!(r#"{{"id":"e","type":"t","livemode":{of_event},"data":{{"object":{{"livemode":{of_object}}}}}}}"#);
        assert_eq!(event::read(&body, now()).expect("an event").object.reported.livemode, read, "{body}");
    }
    for (status, read) in [("null", None), ("\"open\"", Some("open")), ("1", Some("")), ("[\"complete\"]", Some(""))] {
        assert_eq!(object(&format!(r#"{{"status":{status}}}"#)).status.as_deref(), read, "{status}");
    }
    for (account, other) in [("null", false), ("\"acct_1\"", true), ("7", true)] {
        let body = format!(r#"{{"id":"e","type":"t","account":{account},"data":{{"object":{{}}}}}}"#);
        assert_eq!(event::read(&body, now()).expect("an event").is_of_other_account, other, "{account}");
    }
}

#[test]
fn the_corpora_hold() {
    EVENTS.replay(event_holds);
    let body = EVENTS.seeds().remove(0);
    SIGNATURES.replay(|seed| signature_holds(&filled(seed, &body), &body));
    for good in ["t=NOW,v1=NEW", "t=NOW,v1=00,v1=OLD", "v1=OLD,t=NOW,v0=abc"] {
        assert!(is_taken(body.as_bytes(), filled(good, &body).as_bytes()), "{good}");
    }
}
