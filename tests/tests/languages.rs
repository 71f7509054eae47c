//! The language of shoppers' pages: the cart's, or else the best that the browser accepts.

use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use serde_json::json;
use tests::{Answer, App, Setup, a_line};

use crate::pay_page::{go_on, recovery_path};

/// Each language, its direction, and the title of a token that was never issued.
const LANGUAGES: [(&str, &str, &str); 11] = [
    ("en", "ltr", "Unknown link"),
    ("de", "ltr", "Unbekannter Link"),
    ("fr", "ltr", "Lien inconnu"),
    ("es", "ltr", "Enlace desconocido"),
    ("it", "ltr", "Link sconosciuto"),
    ("nl", "ltr", "Onbekende link"),
    ("pt", "ltr", "Link desconhecido"),
    ("pl", "ltr", "Nieznany link"),
    ("ja", "ltr", "不明なリンク"),
    ("zh", "ltr", "未知链接"),
    ("ar", "rtl", "رابط غير معروف"),
];

/// What each language says where no checkout could be opened: that nothing was charged.
const NOTHING_CHARGED: [&str; 11] = [
    "Nothing was charged.",
    "Es wurde nichts abgebucht.",
    "Aucun montant n’a été débité.",
    "No se ha realizado ningún cargo.",
    "Non è stato addebitato alcun importo.",
    "Er is niets in rekening gebracht.",
    "Nada foi cobrado.",
    "Nie pobrano żadnej opłaty.",
    "料金は請求されていません。",
    "未产生任何扣款。",
    "لم يتم خصم أي مبلغ.",
];

#[tokio::test]
async fn every_language_says_that_nothing_was_charged() {
    let app = App::new().await;
    for ((tag, ..), text) in LANGUAGES.into_iter().zip(NOTHING_CHARGED) {
        let id = app.cart_of(&a_line(json!({"locale": tag}))).await;
        let url = app.extend(&id).await.data(200)["recoveryUrl"].as_str().unwrap().to_owned();
        app.stripe.fail_next(Operation::Create, Fault::Refused);
        let refused = go_on(&app, url.strip_prefix(&app.url("")).unwrap()).await;
        assert_eq!((refused.status, language(&refused).as_str()), (502, tag));
        assert!(refused.text.contains(text) && !refused.text.contains("http-equiv"), "{}", refused.text);
    }
}

async fn open(app: &App, path: &str, accepted: &str) -> Answer {
    app.send(app.bare_request(Method::GET, path).header("accept-language", accepted)).await
}

fn language(answer: &Answer) -> String {
    let (_, tag) = answer.text.split_once("<html lang=\"").unwrap_or_else(|| panic!("{}", answer.text));
    let tag = tag.split('"').next().unwrap().to_owned();
    assert_eq!(answer.header("content-language"), tag);
    tag
}

#[tokio::test]
async fn the_browser_chooses_where_there_is_no_cart() {
    let app = Setup::default().without_worker().start().await;
    for (tag, direction, title) in LANGUAGES {
        let page = open(&app, "/pay/x", tag).await;
        assert_eq!(page.status, 404);
        assert!(page.text.contains(&format!("<html lang=\"{tag}\" dir=\"{direction}\">")), "{}", page.text);
        assert!(page.text.contains(&format!("<h1>{title}</h1>")), "{}", page.text);
    }
    for (accepted, tag) in [
        ("pt-BR,pt;q=0.9,en;q=0.8", "pt"),
        ("zh-Hant-HK, en;q=0.5", "zh"),
        ("sv-SE, sv;q=0.9, de;q=0.4, en;q=0.3", "de"),
        ("en;q=0, *;q=0.1", "de"),
        ("sv", "en"),
        ("*", "en"),
        ("", "en"),
        ("\"; nonsense =,,", "en"),
    ] {
        assert_eq!(language(&open(&app, "/pay/x", accepted).await), tag, "{accepted}");
    }
    assert_eq!(language(&app.send(app.bare_request(Method::GET, "/pay/x")).await), "en");
}

#[tokio::test]
async fn the_cart_has_the_last_word() {
    let app = App::new().await;
    for (locale, accepted, tag) in [
        (json!("de-AT"), "fr", "de"),
        (json!("pt_BR"), "fr", "pt"),
        (json!("zh-Hant-TW"), "fr", "zh"),
        (json!("ar-EG"), "", "ar"),
        (json!("he-IL"), "fr;q=0.5, sv", "fr"),
        (json!(null), "pl", "pl"),
    ] {
        let id = app.cart_of(&a_line(json!({"locale": locale}))).await;
        let path = recovery_path(&app, &id).await;
        assert_eq!(language(&open(&app, &format!("{path}/thanks"), accepted).await), tag, "{locale} thanked");
        app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
        let gone = open(&app, &path, accepted).await;
        assert_eq!((gone.status, language(&gone).as_str()), (410, tag), "{locale} expired");
    }
    let thanks = open(&app, "/pay/x/thanks", "ja").await;
    assert_eq!((thanks.status, language(&thanks).as_str()), (200, "ja"), "no cart is needed");
}
