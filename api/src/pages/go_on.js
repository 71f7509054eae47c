// Sends the form once the shopper sees the page: not while it is prerendered or in the background.
"use strict";
const form = document.querySelector("form");
let sent = false;
function goOn() {
  if (sent || document.hidden) return;
  sent = true;
  document.querySelector("[role=status]").textContent = form.dataset.sent;
  form.submit();
}
document.addEventListener("visibilitychange", goOn);
goOn();
