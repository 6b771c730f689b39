// The page works without this script. With it, changes of others show up by themselves, forms are sent without a
// reload, and 200 requests can be sent at once.
"use strict";

const REQUESTS = 200;
const POLL_MS = 1000;
const MESSAGE_MS = 6000;

const page = document.body.dataset;
const pulse = document.getElementById("pulse");
const tableScroll = document.getElementById("table-scroll");
const messagePlace = document.querySelector(".message-place");
const format = (number) => number.toLocaleString("en-US");

// Polling: what the server rendered takes the place of what is shown, where the two differ.

let asked = 0;
let shown = 0;

async function refresh() {
  const turn = ++asked;
  const known = tableScroll.querySelector("table").dataset.digest;
  let state;
  try {
    const response = await fetch(`${page.state}?table=${known}`);
    if (!response.ok) throw new Error(response.statusText);
    state = await response.json();
  } catch {
    showConnection(false);
    return;
  }
  if (turn < shown) return; // A slow answer must not bring back what a later one has changed.
  shown = turn;
  showConnection(true);
  showLook(state.theme, state.accent);
  for (const name of ["counters", "workers"]) replaceIfOther(document.querySelector(`[data-live=${name}]`), state[name]);
  if (state.table !== null) showTable(parse(state.table));
}

async function poll() {
  if (!document.hidden) await refresh();
  setTimeout(poll, POLL_MS);
}

function showConnection(up) {
  pulse.hidden = false;
  pulse.classList.toggle("down", !up);
  pulse.querySelector("b").textContent = up ? "live" : "no answer, trying again";
}

function showLook(theme, accent) {
  Object.assign(document.documentElement.dataset, { theme, accent });
  for (const button of document.querySelectorAll(".look button")) {
    button.setAttribute("aria-pressed", String(button.value === theme || button.value === accent));
  }
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // Rendered by the server, which escapes every value.
  return template.content;
}

function replaceIfOther(place, html) {
  const next = document.createElement("div");
  next.append(parse(html));
  if (place.innerHTML !== next.innerHTML) place.replaceChildren(...next.childNodes);
}

// The table: only cells that changed are touched, so that what somebody is typing stays.

function showTable(content) {
  const table = tableScroll.querySelector("table");
  const next = content.querySelector("table");
  if (columnNames(table) !== columnNames(next)) {
    table.replaceWith(next);
    return;
  }
  table.dataset.digest = next.dataset.digest;
  table.tHead.replaceChildren(...next.tHead.childNodes);
  showRows(table.tBodies[0], next.tBodies[0]);
}

const columnNames = (table) => JSON.stringify([...table.tHead.rows[0].cells].map((cell) => cell.textContent));

function showRows(body, next) {
  const present = new Map([...body.rows].map((row) => [row.id, row]));
  const rows = [...next.rows];
  rows.forEach((row, index) => {
    const old = present.get(row.id);
    present.delete(row.id);
    if (old) updateCells(old, row);
    else [...row.cells].forEach(flash);
    const shownRow = old || row;
    if (body.rows[index] !== shownRow) body.insertBefore(shownRow, body.rows[index] || null);
  });
  for (const gone of present.values()) gone.remove();
}

function updateCells(row, next) {
  [...next.cells].forEach((nextCell, index) => {
    const cell = row.cells[index];
    if (cell.innerHTML === nextCell.innerHTML) cell.className = nextCell.className;
    else if (!cell.querySelector(".cell-form")) {
      const focused = cell.contains(document.activeElement);
      cell.className = nextCell.className;
      cell.replaceChildren(...nextCell.childNodes);
      if (!cell.classList.contains("action")) flash(cell);
      if (focused) cell.querySelector("a, button").focus();
    }
  });
}

function flash(cell) {
  cell.classList.add("changed");
  cell.addEventListener("animationend", () => cell.classList.remove("changed"), { once: true });
}

// Editing a cell in its place.

function openEditor(link) {
  const cell = link.closest("td");
  const form = document.getElementById("cell-form").content.firstElementChild.cloneNode(true);
  const column = cell.closest("table").tHead.rows[0].cells[cell.cellIndex].textContent;
  form.elements.row_id.value = cell.parentNode.dataset.row;
  form.elements.column.value = column;
  form.elements.old.value = link.textContent;
  form.elements.new.value = link.textContent;
  form.elements.new.setAttribute("aria-label", column);
  link.replaceWith(form);
  form.elements.new.focus();
  form.elements.new.select();
}

async function closeEditor(form) {
  const cell = form.closest("td");
  form.remove();
  tableScroll.querySelector("table").dataset.digest = ""; // Ask for the whole table: this cell has to be filled again.
  await refresh();
  if (document.activeElement === document.body && cell.isConnected) cell.querySelector("a")?.focus();
}

const isUntouched = (form) => form.elements.new.value === form.elements.old.value;

document.addEventListener("click", (event) => {
  const plainClick = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;
  const link = event.target.closest("a.cell, a[data-cancel], a[data-close]");
  if (!link || !plainClick) return;
  event.preventDefault();
  if (link.matches(".cell")) openEditor(link);
  else if (link.matches("[data-cancel]")) closeEditor(link.closest("form"));
  else messagePlace.replaceChildren();
});

document.addEventListener("keydown", (event) => {
  const form = event.key === "Escape" && event.target.closest(".cell-form");
  if (form) closeEditor(form);
});

document.addEventListener("focusout", (event) => {
  const form = event.target.closest(".cell-form");
  if (form && !form.contains(event.relatedTarget) && form.isConnected && isUntouched(form)) {
    setTimeout(() => form.isConnected && !form.contains(document.activeElement) && closeEditor(form));
  }
});

// Forms are sent in the background; the server says what came of it.

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.enhanced) return;
  event.preventDefault();
  const body = new FormData(form, event.submitter);
  if (fileTooLarge(form)) return;
  const answer = await send(form.action, body);
  showMessage(answer);
  if (form.dataset.enhanced === "cell") return closeEditor(form);
  if (answer.good && form.dataset.enhanced !== "look") form.reset();
  await refresh();
  if (form.dataset.enhanced === "delete") tableScroll.focus({ preventScroll: true });
});

async function send(address, body) {
  try {
    const response = await fetch(address, { method: "POST", body, headers: { Accept: "application/json" } });
    return await response.json();
  } catch {
    return { good: false, text: "The server did not answer. It is not known whether the change was made." };
  }
}

function fileTooLarge(form) {
  const file = form.elements.csv?.files[0];
  if (!file || file.size <= Number(form.elements.csv.dataset.maxBytes)) return false;
  showMessage({ good: false, text: "The file is larger than 1 MiB. The table was not changed." });
  return true;
}

let messageTimer;

function showMessage({ good, text }) {
  const message = document.createElement("p");
  message.className = `message ${good ? "good" : "bad"}`;
  message.append(element("span", text));
  const close = element("a", "×");
  close.href = "/";
  close.dataset.close = "";
  close.setAttribute("aria-label", "Close this message");
  message.append(close);
  messagePlace.replaceChildren(message);
  clearTimeout(messageTimer);
  if (good) messageTimer = setTimeout(() => message.remove(), MESSAGE_MS);
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

// 200 requests at once. Each answer carries the number that the request was given, so that nothing has to be taken
// on trust: 200 different numbers are 200 counted requests, whoever else is visiting meanwhile.

const burst = document.getElementById("burst");
const burstResult = document.getElementById("burst-result");

async function sendBurst() {
  burst.disabled = true;
  let done = 0;
  const one = async () => {
    const response = await fetch(page.hit, { method: "POST" });
    if (!response.ok) throw new Error(response.statusText);
    const hit = await response.json();
    burst.textContent = `${++done} of ${REQUESTS} answered`;
    return hit;
  };
  const results = await Promise.allSettled(Array.from({ length: REQUESTS }, one));
  const hits = results.filter((result) => result.status === "fulfilled").map((result) => result.value);
  await refresh();
  burstResult.replaceChildren(...describe(hits));
  burst.textContent = `Send ${REQUESTS} requests`;
  burst.disabled = false;
}

function describe(hits) {
  if (!hits.length) return [element("p", "No request was answered.")];
  return [describeShared(hits), describePlain(hits)];
}

function describeShared(hits) {
  const numbers = new Set(hits.map((hit) => hit.hits));
  const first = Math.min(...numbers);
  const last = Math.max(...numbers);
  const lost = hits.length - numbers.size;
  const others = last - first + 1 - numbers.size;
  const line = document.createElement("p");
  line.append("Shared counter: ", element("strong", `+${format(numbers.size)}`), ` for ${format(hits.length)} requests.`);
  if (lost) line.append(` ${format(lost)} of them were not counted.`);
  else line.append(` Each was given a number of its own, from ${format(first)} to ${format(last)}`);
  if (!lost) line.append(others ? `; ${format(others)} in between went to other visitors.` : ", and none is missing.");
  if (hits.length < REQUESTS) line.append(` ${format(REQUESTS - hits.length)} more were not answered.`);
  return line;
}

function describePlain(hits) {
  const byWorker = new Map();
  for (const { pid } of hits) byWorker.set(pid, (byWorker.get(pid) || 0) + 1);
  const line = document.createElement("p");
  if (byWorker.size === 1) {
    line.textContent = "One worker answered them all, so even its plain global is right. Start the demo with gunicorn -w 4.";
    return line;
  }
  line.append("Plain globals: ");
  [...byWorker].sort(([a], [b]) => a - b).forEach(([pid, count], index) => {
    const worker = element("b", String(pid));
    worker.className = "pid-text";
    line.append(index ? ", " : "", element("strong", `+${format(count)}`), " in ", worker);
  });
  line.append(". Each worker saw only its own.");
  return line;
}

burst.hidden = false;
burst.addEventListener("click", sendBurst);

// A reload must not show the message of an earlier change again.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);
poll();
