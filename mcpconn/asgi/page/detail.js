// One connection alone: the machine with its present state lit, facts, transitions, stderr, buttons.

import { clock, element, put, span } from "./format.js";

const FACTS = [
  ["address", "Address"], ["transport", "Transport"], ["era", "Era"], ["protocol_version", "Protocol"],
  ["server", "Server"], ["epoch", "Epoch"], ["in_flight", "Calls in flight"], ["waiting", "Calls waiting"],
  ["calls", "Calls"], ["unknown", "Outcome unknown"], ["replayed", "Retried"], ["credentials", "Credentials"],
];

export class Detail {
  constructor(dialog) {
    this.dialog = dialog;
    this.part = (id) => dialog.querySelector(`#${id}`);
    this.name = null;
    this.data = null;
    this.part("close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => { this.name = null; });
    for (const action of ["reconnect", "disable", "enable"]) {
      this.part(action).addEventListener("click", () => this.act(action));
    }
  }

  async open(name) {
    this.name = name;
    put(this.part("name"), name);
    put(this.part("answer"), "");
    for (const id of ["facts", "transitions"]) this.part(id).replaceChildren();
    put(this.part("sentence"), "");
    this.part("stderr").hidden = true;
    if (!this.dialog.open) this.dialog.showModal();
    await this.picture();
    await this.refresh();
  }

  async refresh() {
    const name = this.name;
    const answer = await fetch(`connections/${encodeURIComponent(name)}`);
    if (name !== this.name) return;
    if (!answer.ok) {
      put(this.part("sentence"), answer.status === 404 ? "This connection was removed." : await answer.text());
      return;
    }
    this.data = await answer.json();
    this.show();
  }

  /** News of some connection: the dialog asks again if it is the one that is open. */
  heard(name) {
    if (name === this.name) this.refresh();
  }

  show() {
    const data = this.data;
    this.light(data);
    put(this.part("sentence"), sentence(data));
    this.part("reconnect").hidden = !data.may_act || data.disabled;
    this.part("disable").hidden = !data.may_act || data.disabled;
    this.part("enable").hidden = !data.may_act || !data.disabled;
    const facts = { ...data, calls: data.counts.calls, unknown: data.counts["outcome.unknown"],
      replayed: data.counts.replayed, server: data.server && `${data.server.name} ${data.server.version}`,
      credentials: data.credentials && Object.entries(data.credentials).map(([key, value]) => `${key}: ${value}`).join(", ") };
    this.part("facts").replaceChildren(...FACTS.flatMap(([key, label]) => facts[key] == null ? []
      : [element("dt", label), element("dd", String(facts[key]))]));
    this.part("transitions").replaceChildren(...[...data.transitions].reverse().map(transition));
    this.part("stderr").hidden = data.stderr.length === 0;
    put(this.part("lines"), data.stderr.join("\n"));
  }

  async picture() {
    if (this.part("machine").firstChild) return;
    const text = await (await fetch("machine.svg")).text();
    const picture = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    picture.removeAttribute("width");
    picture.removeAttribute("height");
    this.part("machine").append(document.importNode(picture, true));
  }

  light(data) {
    const last = data.transitions.at(-1);
    const taken = last && `${last.from} --${last.event}--> ${last.to}`;
    for (const group of this.part("machine").querySelectorAll("g[data-state]")) {
      group.setAttribute("class", group.dataset.state === data.state ? `current ${data.state}` : "");
    }
    for (const edge of this.part("machine").querySelectorAll(".edge")) {
      const text = edge.querySelector("title")?.textContent ?? "";
      edge.classList.toggle("taken", Boolean(taken) && text.startsWith(taken));
    }
    this.part("machine").querySelector("svg")?.setAttribute("aria-label", `The machine; the connection is ${data.state}`);
  }

  async act(action) {
    const path = `connections/${encodeURIComponent(this.name)}/${action}`;
    const answer = await fetch(path, { method: "POST", headers: { "x-mcpconn-action": action } });
    put(this.part("answer"), answer.ok ? `Asked to ${action}.` : (await answer.text()).trim());
    await this.refresh();
    // The button that was pressed may be hidden now; the keyboard must not be lost with it.
    if (document.activeElement === document.body) this.part("close").focus();
  }
}

function sentence(data) {
  const now = Date.now() / 1000;
  const since = data.since == null ? "" : ` for ${span(now - data.since)}`;
  if (data.disabled) return "Disabled: it is not connected, and calls are refused, until it is enabled.";
  const failure = data.last_failure;
  const why = failure == null ? "" : ` ${data.state === "ready" ? "Last failure" : "Because"}: ${failure.summary}.`;
  const next = data.retry_in == null ? "" : ` Next try in ${span(data.retry_in)}.`;
  return `It has been ${data.state}${since}.${data.progress ? ` ${data.progress}.` : ""}${why}${next}`;
}

function transition(change) {
  const line = element("li");
  const time = element("time", clock(change.at));
  time.dateTime = new Date(change.at * 1000).toISOString();
  const why = change.failure ? `: ${change.failure.summary}` : "";
  line.append(time, `${change.from} → ${change.to} (${change.event})${why}`);
  return line;
}
