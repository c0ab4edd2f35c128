// The strip of a row: the states of the last hour, from left to right.

import { ORDER, span } from "./format.js";

const HOUR = 3600;
const WIDTH = 120;
const SVG = "http://www.w3.org/2000/svg";

/** The picture of a history: [[at, state], ...], oldest first. */
export function strip(history, now) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("class", "strip");
  picture.setAttribute("viewBox", `0 0 ${WIDTH} 16`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("role", "img");
  const seconds = draw(picture, history, now);
  const said = ORDER.filter((state) => seconds[state] >= 1).map((state) => `${state} ${span(seconds[state])}`);
  picture.setAttribute("aria-label", `Last hour: ${said.join(", ") || "nothing known yet"}`);
  return picture;
}

function draw(picture, history, now) {
  const seconds = {};
  history.forEach(([at, state], index) => {
    const begin = Math.max(at, now - HOUR);
    const end = index + 1 < history.length ? history[index + 1][0] : now;
    if (end <= begin) return;
    seconds[state] = (seconds[state] ?? 0) + end - begin;
    const left = WIDTH - ((now - begin) / HOUR) * WIDTH;
    const bar = document.createElementNS(SVG, "rect");
    bar.setAttribute("class", state);
    // An outage of a second is a hundredth of a pixel: everything that happened is one pixel wide at least.
    const width = Math.max(1, ((end - begin) / HOUR) * WIDTH);
    bar.setAttribute("x", Math.min(left, WIDTH - 1).toFixed(2));
    bar.setAttribute("width", width.toFixed(2));
    bar.setAttribute("height", "16");
    picture.append(bar);
  });
  // What was bad is drawn last, so that the good around it does not cover it.
  const rank = (bar) => ORDER.length - ORDER.indexOf(bar.getAttribute("class"));
  picture.append(...[...picture.children].sort((one, other) => rank(one) - rank(other)));
  return seconds;
}
