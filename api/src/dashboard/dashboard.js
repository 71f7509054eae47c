// Keeps an open page up to date, and copies texts. Every page and every action works without this
// script.
"use strict";

const main = document.querySelector("main[data-live]");
const announcements = document.getElementById("announcements");
const eventsUrl = new URL("../events", document.currentScript.src); // this script is in /assets/
const leastPause = 1000; // between two loads of the page, in milliseconds
const retryPause = 5000; // after a load that failed
const longestSilence = 40000; // without an event; the server sends a ping every 15 s

// Copying

function showCopyButtons(root) {
  for (const button of root.querySelectorAll("[data-copy]")) button.hidden = false;
}
showCopyButtons(document);

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  if (source.select) source.select();
  else getSelection().selectAllChildren(source);
  try {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
  } catch {
    document.execCommand("copy"); // where there is no https
  }
  button.textContent = "Copied";
  announcements.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

// Menus

function openMenus() {
  return document.querySelectorAll("details.menu[open]");
}
document.addEventListener("click", (event) => {
  for (const menu of openMenus()) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of openMenus()) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// Live updates

// What an element is, whatever its place: an update never turns one thing into another.
function key(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return "";
  // Not `node.id`, which for a form is its field named "id".
  return node.getAttribute("id") || node.getAttribute("aria-labelledby") || "";
}

// Whether `old` may become `fresh`. A focused link or form must not lead elsewhere.
function pairs(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || key(old) !== key(fresh)) return false;
  const target = { A: "href", FORM: "action" }[old.nodeName];
  return !target || old.getAttribute(target) === fresh.getAttribute(target);
}

// Changes `old` into `fresh` but leaves equal nodes alone, so that focus, selections and open
// details are kept.
function morph(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old === document.activeElement && old.matches("input, select, textarea") && !old.readOnly) return;
  const kept = (name) => (name === "open" && old.nodeName === "DETAILS") || (name === "hidden" && old.dataset.copy);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !kept(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value && !kept(name)) old.setAttribute(name, value);
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const freshes = [...fresh.childNodes];
  const named = new Map();
  for (const child of old.childNodes) if (key(child)) named.set(key(child), child);
  const wanted = new Set(freshes.map(key));
  for (const [name, child] of named) if (!wanted.has(name)) child.remove();
  let place = old.firstChild;
  for (const child of freshes) {
    const name = key(child);
    const candidate = name ? named.get(name) : place && !key(place) ? place : undefined;
    if (!candidate || !pairs(candidate, child)) {
      old.insertBefore(child, place);
      continue;
    }
    while (place && place !== candidate && !key(place)) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
    if (place === candidate) place = place.nextSibling;
    else if (old.moveBefore) old.moveBefore(candidate, place);
    else old.insertBefore(candidate, place);
    morph(candidate, child);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

// Changes the page, and keeps what is under the pointer, or else the focus, at its place in the
// window: a click must not hit another row.
function keepingPlace(change) {
  const focused = document.activeElement;
  const pointed = [...main.querySelectorAll(":hover")].reverse();
  const anchors = pointed.length > 0 ? pointed : main.contains(focused) ? [focused] : [];
  const places = anchors.map((anchor) => [anchor, anchor.getBoundingClientRect().top]);
  main.style.paddingTop = "";
  document.body.style.minHeight = "";
  change();
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  const [anchor, before] = places.find(([anchor]) => anchor.isConnected) ?? [];
  if (!anchor) return;
  const moved = anchor.getBoundingClientRect().top - before;
  if (moved > 0) {
    const height = document.documentElement.scrollHeight;
    const missing = moved - (height - innerHeight - scrollY);
    if (missing > 0) document.body.style.minHeight = `${height + missing}px`;
  } else if (scrollY + moved < 0) {
    main.style.paddingTop = `${-moved - scrollY}px`;
  }
  scrollBy({ top: anchor.getBoundingClientRect().top - before, behavior: "instant" });
}

function spoken() {
  const texts = new Map();
  for (const element of main.querySelectorAll("[data-announce]")) {
    texts.set(element.dataset.announce, element.textContent.replace(/\s+/g, " ").trim());
  }
  return texts;
}

// Loads the page again. Returns "fresh", "failed", or why the page can't be loaded any more.
async function load() {
  let answer, text;
  try {
    // The header leaves notices to the pages that an operator opens.
    answer = await fetch(location.href, { credentials: "same-origin", headers: { "x-live": "1" } });
    text = await answer.text();
  } catch {
    return "failed";
  }
  if (answer.redirected) return new URL(answer.url).pathname.endsWith("sign-in") ? "Signed out" : "Moved";
  if (answer.status === 404) return "Deleted";
  const fresh = answer.ok && new DOMParser().parseFromString(text, "text/html").querySelector("main[data-live]");
  if (!fresh) return "failed";
  const before = spoken();
  keepingPlace(() => morph(main, document.adoptNode(fresh)));
  showCopyButtons(main);
  skew = Date.now() - Date.parse(main.dataset.now);
  const changed = [...spoken()].filter(([name, text]) => before.get(name) !== text).map(([name, text]) => `${name}: ${text}`);
  if (changed.length > 0) announcements.textContent = changed.join(". ");
  return "fresh";
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let loading = false;
let wanted = false;
let leaving = false; // a form was sent, which may end the session or delete what is shown
async function refresh() {
  wanted = true;
  if (loading || document.hidden) return;
  loading = true;
  while (wanted && !leaving && !document.hidden && state !== "Paused") {
    wanted = false;
    const outcome = await load();
    if (leaving || state === "Paused") break;
    if (outcome === "failed") {
      wanted = true;
      show("Disconnected");
      await pause(retryPause);
    } else if (outcome === "fresh") {
      heard = Date.now();
      if (events?.readyState === EventSource.OPEN) show("Live");
      else if (events?.readyState !== EventSource.CONNECTING) watch();
      await pause(leastPause);
    } else {
      events?.close();
      show(outcome);
      break;
    }
  }
  loading = false;
}

// The state in the bar: "Live", "Paused", "Disconnected", or why the page can't be loaded any more.
let state = "";
let heard = Date.now(); // when the page was last known to be up to date
let skew = 0; // of this machine's clock to the server's

function show(next) {
  const bar = document.getElementById("live");
  const isLive = next === "Live";
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone: main.dataset.zone };
  const updated = new Intl.DateTimeFormat("en-GB", clock).format(heard - skew);
  const text = isLive ? next : `${next}, last updated ${updated}`;
  bar.className = isLive || next === "Paused" ? "live" : "live lost";
  document.getElementById("live-state").textContent = text;
  document.getElementById("live-switch").textContent = next === "Paused" ? "Resume" : "Pause";
  document.getElementById("live-switch").hidden = !isLive && next !== "Paused";
  document.getElementById("live-reload").hidden = isLive || next === "Paused";
  if (state && state !== next) announcements.textContent = text;
  state = next;
}

let events;
function watch() {
  leaving = false;
  events?.close();
  events = new EventSource(eventsUrl);
  const hear = () => { if (state === "Live" || state === "") heard = Date.now(); };
  events.addEventListener("changed", ({ data }) => {
    hear();
    if (data === "everything" || main.dataset.live.split(" ").includes(data)) refresh();
  });
  events.addEventListener("ping", hear);
  events.addEventListener("hello", () => {
    hear();
    if (!state) show("Live");
    refresh(); // whatever happened since the page was rendered, or the connection was lost
    document.documentElement.dataset.watching = "yes";
  });
  events.addEventListener("error", () => {
    show("Disconnected");
    // The browser tries again after a lost connection, but not after an error of the server.
    if (events.readyState === EventSource.CLOSED) refresh();
  });
}

function stored(value) {
  try {
    if (value !== undefined) localStorage.setItem("live", value);
    return localStorage.getItem("live");
  } catch {
    return null; // storage is forbidden
  }
}

function begin() {
  if (stored() === "paused") show("Paused");
  else watch();
}

// Keeps relative times true.
function tick() {
  const unit = (seconds) => seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.floor(seconds / 60)} min`
    : seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
  for (const time of main.querySelectorAll("time[data-relative]")) {
    const away = Math.trunc((Date.parse(time.dateTime) - Date.now() + skew) / 1000);
    const text = away > 0 ? `in ${unit(away)}` : `${unit(-away)} ago`;
    if (time.textContent !== text) time.textContent = text;
  }
}

if (main) {
  skew = Date.now() - Date.parse(main.dataset.now);
  setInterval(tick, 1000);
}
if (main && main.dataset.live) {
  begin();
  document.getElementById("live-switch").addEventListener("click", () => {
    if (state === "Paused") {
      stored("live");
      state = "";
      watch();
    } else {
      stored("paused");
      events.close();
      heard = Date.now();
      show("Paused");
    }
  });
  setInterval(() => {
    if (state !== "Live" || document.hidden || Date.now() - heard < longestSilence) return;
    show("Disconnected");
    watch();
  }, retryPause);
  addEventListener("offline", () => { if (state === "Live") show("Disconnected"); });
  addEventListener("online", () => { if (state === "Disconnected") watch(); });
  // A page in the back/forward cache must not keep one of the few connections to a host.
  addEventListener("pagehide", () => events?.close());
  addEventListener("submit", ({ target }) => {
    if (target.method !== "post") return;
    events?.close();
    leaving = true;
  });
  addEventListener("pageshow", ({ persisted }) => {
    if (!persisted) return;
    state = "";
    begin();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && wanted) refresh(); });
}
