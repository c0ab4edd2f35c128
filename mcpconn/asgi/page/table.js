// The table: one row a connection, failed ones first. Rows are changed in place.

import { ORDER, element, put, span } from "./format.js";
import { strip } from "./strip.js";

const HOUR = 3600;

export class Table {
  constructor(body, open) {
    this.body = body;
    this.open = open;
    this.rows = new Map();
    this.words = "";
  }

  /** Takes rows from the server: new ones, and those that have changed. */
  update(rows, gone = []) {
    const now = Date.now() / 1000;
    for (const name of gone) {
      this.rows.get(name)?.line.remove();
      this.rows.delete(name);
    }
    for (const data of rows) {
      const row = this.rows.get(data.name) ?? this.add(data.name);
      const history = data.history ?? row.data?.history ?? [[now, data.state]];
      if (history[history.length - 1][1] !== data.state) history.push([data.since ?? now, data.state]);
      while (history.length > 1 && history[1][0] < now - HOUR) history.shift();
      row.data = { ...data, history };
      this.fill(row, now);
      this.draw(row, now);
    }
    this.sort();
    this.filter(this.words);
  }

  get(name) {
    return this.rows.get(name)?.data;
  }

  add(name) {
    const line = element("tr");
    const head = element("th");
    head.scope = "row";
    const button = element("button", name);
    button.type = "button";
    button.addEventListener("click", () => this.open(name));
    head.append(button);
    const cells = {};
    line.append(head);
    for (const [key, className] of [["state", ""], ["since", "number"], ["strip", ""], ["epoch", "number wide"],
      ["in_flight", "number wide"], ["waiting", "number wide"], ["unknown", "number wide"], ["retry", "number wide"],
      ["why", "why"]]) {
      cells[key] = element("td", "", className);
      line.append(cells[key]);
    }
    const pill = element("span");
    cells.state.append(pill);
    const why = element("span");
    cells.why.append(why);
    const row = { line, cells, pill, why, data: null };
    this.rows.set(name, row);
    this.body.append(line);
    return row;
  }

  fill({ line, cells, pill, why, data }, now) {
    line.className = data.state === "ready" ? "" : "bad";
    pill.className = `state ${data.state}`;
    put(pill, data.state);
    for (const key of ["epoch", "in_flight", "waiting", "unknown"]) put(cells[key], data[key]);
    put(why, data.progress ?? data.failure ?? "");
    this.tick({ cells, data }, now);
  }

  tick({ cells, data }, now) {
    put(cells.since, data.since == null ? "" : span(now - data.since));
    put(cells.retry, data.retry_at == null ? "" : span(data.retry_at - now));
  }

  draw({ cells, data }, now) {
    cells.strip.replaceChildren(strip(data.history, now));
  }

  /** Moves the clocks on; the strips move by a pixel in half a minute. */
  age(strips) {
    const now = Date.now() / 1000;
    for (const row of this.rows.values()) {
      this.tick(row, now);
      if (strips) this.draw(row, now);
    }
  }

  sort() {
    const rank = ({ data }) => ORDER.indexOf(data.state);
    const wanted = [...this.rows.values()].sort(
      (one, other) => rank(one) - rank(other) || one.data.name.localeCompare(other.data.name));
    wanted.forEach((row, index) => {
      // Moving a row takes the focus from its button: only rows that are out of place are moved.
      const present = this.body.children[index];
      if (present !== row.line) {
        const focused = row.line.contains(document.activeElement) ? document.activeElement : null;
        this.body.insertBefore(row.line, present ?? null);
        focused?.focus({ preventScroll: true });
      }
    });
  }

  /** Shows the rows in which every word occurs. Returns how many those are. */
  filter(words) {
    this.words = words;
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { line, data } of this.rows.values()) {
      const text = [data.name, data.state, data.transport, data.address, data.failure ?? ""].join(" ").toLowerCase();
      const match = wanted.every((word) => text.includes(word));
      line.hidden = !match;
      shown += match ? 1 : 0;
    }
    return shown;
  }

  summary() {
    const counts = {};
    for (const { data } of this.rows.values()) counts[data.state] = (counts[data.state] ?? 0) + 1;
    return [...ORDER].reverse().filter((state) => counts[state]).map((state) => `${counts[state]} ${state}`).join(", ");
  }
}
