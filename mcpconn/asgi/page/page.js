// The page: reads events, fills the table and the dialog. Every text of a server ends in a text node.

import { put } from "./format.js";
import { Detail } from "./detail.js";
import { Table } from "./table.js";

const part = (id) => document.getElementById(id);
const detail = new Detail(part("detail"));
const table = new Table(part("rows"), (name) => detail.open(name));

function show() {
  const shown = table.filter(part("words").value);
  put(part("summary"), table.summary() || "No connections");
  put(part("shown"), part("words").value ? `${shown} of ${table.rows.size}` : "");
  part("empty").hidden = shown > 0 || table.rows.size === 0;
}

function connect() {
  const events = new EventSource("events");
  events.addEventListener("hello", (event) => {
    const { rows } = JSON.parse(event.data);
    const present = new Set(rows.map(({ name }) => name));
    table.update(rows, [...table.rows.keys()].filter((name) => !present.has(name)));
    put(part("link"), "");
    show();
  });
  events.addEventListener("rows", (event) => {
    const { rows, gone } = JSON.parse(event.data);
    table.update(rows, gone);
    show();
    for (const { name } of rows) detail.heard(name);
  });
  events.addEventListener("degraded", (event) => {
    const said = Object.entries(JSON.parse(event.data)).map(([name, why]) => `${name}: ${why}`).join("; ");
    put(part("degraded"), said && `Degraded: ${said}.`);
  });
  events.addEventListener("bye", () => put(part("link"), "The host is shutting down."));
  events.addEventListener("error", () => {
    put(part("link"), "No connection to the host: what is shown is old. Trying again.");
    // The browser tries again by itself, unless the answer was no event stream: a login that has run out, for one.
    if (events.readyState === EventSource.CLOSED) {
      fetch("status").then((answer) => {
        if (answer.status === 401) location.assign("login");
        else setTimeout(connect, 3000);
      }, () => setTimeout(connect, 3000));
    }
  });
}

async function begin() {
  const answer = await fetch("status");
  part("logout").hidden = !(answer.ok && (await answer.json()).login);
}

part("words").addEventListener("input", show);
part("filter").addEventListener("submit", (event) => event.preventDefault());
part("logout").addEventListener("click", async () => {
  await fetch("logout", { method: "POST", headers: { "x-mcpconn-action": "logout" } });
  location.assign("login");
});
let ticks = 0;
setInterval(() => table.age(++ticks % 30 === 0), 1000);
begin();
connect();
