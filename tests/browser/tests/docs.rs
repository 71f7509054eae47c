//! `/docs`, with which developers try requests.

use browser_tests::Chromium;

use crate::{KEY, LOOKS, app, keep, origin};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_tried_with_a_key() {
    let app = app().await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = chromium.tab(LOOKS[0]).await;
    tab.open(&app.url("/docs")).await;
    tab.sees("Lists carts, newest first").await;
    keep(&tab, LOOKS[0], "docs").await;

    tab.press(".auth-wrapper", "Authorize").await;
    tab.sees("x-api-key").await;
    tab.types(".modal-ux input", KEY, false).await;
    tab.press(".modal-ux", "Authorize").await;
    keep(&tab, LOOKS[0], "docs-authorized").await;
    tab.press(".modal-ux", "Close").await;

    tab.press("#operations-Carts-listCarts", "GET\n/api/carts\nLists carts, newest first").await;
    tab.sees("Which page; the default is 1.").await;
    tab.press("#operations-Carts-listCarts", "Try it out").await;
    tab.press("#operations-Carts-listCarts", "Execute").await;
    let answered =
        "document.querySelector('#operations-Carts-listCarts .live-responses-table tr.response .response-col_status')";
    tab.finds(&format!("{answered}?.innerText.startsWith('200')")).await;
    tab.sees("\"totalPages\"").await;
    keep(&tab, LOOKS[0], "docs-tried").await;
    tab.was_good(&origin(&app));
    chromium.close().await;
}
