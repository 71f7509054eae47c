//! `/docs`, with which developers try requests.

use browser_tests::Chromium;

use crate::{KEY, LOOKS, app, keep};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_tried_with_a_key() {
    let app = app().await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = chromium.tab(LOOKS[0]).await;
    // Not at the host of `PUBLIC_URL`: requests go to the host of the page.
    let here = app.url("").replace("127.0.0.1", "localhost");
    tab.open(&format!("{here}/docs")).await;
    tab.sees("List carts").await;
    keep(&tab, LOOKS[0], "docs").await;

    tab.press(".auth-wrapper", "Authorize").await;
    tab.sees("x-api-key").await;
    tab.types(".modal-ux input", KEY, false).await;
    tab.press(".modal-ux", "Authorize").await;
    keep(&tab, LOOKS[0], "docs-authorized").await;
    tab.press(".modal-ux", "Close").await;

    tab.press("#operations-Carts-listCarts", "GET\n/api/carts\nList carts").await;
    tab.sees("Which page; the default is 1.").await;
    tab.press("#operations-Carts-listCarts", "Try it out").await;
    tab.press("#operations-Carts-listCarts", "Execute").await;
    let answered =
        "document.querySelector('#operations-Carts-listCarts .live-responses-table tr.response .response-col_status')";
    tab.finds(&format!("{answered}?.innerText.startsWith('200')")).await;
    tab.sees("\"totalPages\"").await;
    keep(&tab, LOOKS[0], "docs-tried").await;
    tab.was_good(&here);
    chromium.close().await;
}
