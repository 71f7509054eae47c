// Keeps an open page up to date, and copies links. Every page and every action works without this
// script.
"use strict";

const main = document.querySelector("main[data-live]");
const announcements = document.getElementById("announcements");
const eventsUrl = new URL("../events", document.currentScript.src); // this script is in /assets/
const leastPause = 1000; // between two loads of the page, in milliseconds

for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const input = document.getElementById(button.dataset.copy);
  input.select();
  try {
    await navigator.clipboard.writeText(input.value);
  } catch {
    document.execCommand("copy"); // where there is no https
  }
  button.textContent = "Copied";
  announcements.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

// Changes `old` into `fresh` but leaves equal nodes alone, so that focus, selections and open
// details are kept.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old === document.activeElement && old.matches("input, select, textarea") && !old.readOnly) return;
  const kept = (name) => (name === "open" && old.nodeName === "DETAILS") || (name === "hidden" && old.dataset.copy);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !kept(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value && !kept(name)) old.setAttribute(name, value);
  const olds = [...old.childNodes];
  const freshes = [...fresh.childNodes];
  freshes.forEach((child, place) => (place < olds.length ? morph(olds[place], child) : old.append(child)));
  olds.slice(freshes.length).forEach((child) => child.remove());
}

function spoken() {
  const texts = new Map();
  for (const element of main.querySelectorAll("[data-announce]")) {
    texts.set(element.dataset.announce, element.textContent.replace(/\s+/g, " ").trim());
  }
  return texts;
}

async function load() {
  const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
  if (!answer.ok) {
    // Deleted, signed out, or the database is unavailable: a manual reload shows which.
    return;
  }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main[data-live]");
  if (!fresh) return;
  // A notice that is no longer shown must not appear again.
  fresh.querySelectorAll(".notice").forEach((notice) => { if (!main.querySelector(".notice")) notice.remove(); });
  const before = spoken();
  morph(main, document.adoptNode(fresh));
  for (const button of main.querySelectorAll("[data-copy]")) button.hidden = false;
  const changed = [...spoken()].filter(([name, text]) => before.get(name) !== text).map(([name, text]) => `${name}: ${text}`);
  if (changed.length > 0) announcements.textContent = changed.join(". ");
}

let loading = false;
let wanted = false;
async function refresh() {
  wanted = true;
  if (loading || document.hidden) return;
  loading = true;
  while (wanted && !document.hidden) {
    wanted = false;
    try {
      await load();
    } catch {
      // No connection, or the session has ended.
    }
    await new Promise((resolve) => setTimeout(resolve, leastPause));
  }
  loading = false;
}

function watch() {
  const events = new EventSource(eventsUrl);
  events.addEventListener("changed", ({ data }) => {
    if (data === "everything" || main.dataset.live.split(" ").includes(data)) refresh();
  });
  events.addEventListener("hello", () => {
    refresh(); // whatever happened since the page was rendered, or the connection was lost
    document.documentElement.dataset.watching = "yes";
  });
  // A page in the back/forward cache must not keep one of the few connections to a host.
  addEventListener("pagehide", () => events.close(), { once: true });
}

if (main && main.dataset.live) {
  watch();
  addEventListener("pageshow", ({ persisted }) => { if (persisted) watch(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && wanted) refresh(); });
}
