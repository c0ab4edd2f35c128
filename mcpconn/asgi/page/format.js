// Times and numbers as people read them.

export const ORDER = ["failed", "reconnecting", "connecting", "idle", "closed", "ready"];

/** Seconds as "4 s", "3 min", "2 h 5 min" or "3 d". */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/** Seconds since 1970 as the time of day. */
export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** An element with a class and a text. Text from servers gets into the page here and nowhere else, as text. */
export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Sets a text only if it has changed, so that a browser repaints, and a screen reader repeats, nothing else. */
export function put(target, text) {
  const wanted = String(text);
  if (target.textContent !== wanted) target.textContent = wanted;
}
