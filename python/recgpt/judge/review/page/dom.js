// Small parts that every view uses: elements made from text alone, keys, dialogs, and a clock that people can put down

/** Make an element. Strings become text, never markup; a function under `on...` listens. */
export function h(name, props = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const find = (id) => document.getElementById(id);

/** Text of strangers: its direction is its own and does not reach its neighbours. */
export const strange = (text, name = "bdi") => h(name, { dir: "auto" }, text);

export const key = (text) => h("kbd", { "aria-hidden": "true" }, text);

export const percent = ({ same, of }) => (of ? `${Math.round((100 * same) / of)} %` : "–");

/** Tell people who do not look at the screen. */
export function tell(text) {
  find("live").textContent = text;
}

export function show(view, ...children) {
  view.replaceChildren(...children.flat(Infinity).filter(Boolean));
  view.scrollTop = 0;
}

let turn = Promise.resolve();

/** Ask something in the page's dialog; resolves with what a button or a key chose, null where it was closed. */
export function ask(title, build, options) {
  // News from the server waits until a note that is being written is kept or left.
  turn = turn.then(() => open(title, build, options));
  return turn;
}

function open(title, build, { wide = false } = {}) {
  const dialog = find("dialog");
  return new Promise((resolve) => {
    // At once and not with the dialog's own event, which comes later: the next key may already be an answer.
    const choose = (value) => {
      dialog.onclose = null;
      dialog.close();
      end(value);
    };
    const end = (value) => {
      dialog.onkeydown = null;
      dialog.replaceChildren();
      resolve(value);
    };
    // The event of the dialog before may come when this one is open already.
    dialog.onclose = () => dialog.open || end(null);
    dialog.replaceChildren(h("h2", { id: "dialog-title" }, title), ...[build(choose, dialog)].flat());
    dialog.classList.toggle("wide", wide);
    dialog.showModal();
  });
}

/** Counts seconds in which somebody can see the page. */
export class Clock {
  constructor() {
    this.gone = 0;
    this.lapped = 0;
    this.since = null;
    document.addEventListener("visibilitychange", () => this.run());
    this.run();
  }

  run() {
    const now = performance.now();
    if (this.since !== null) this.gone += now - this.since;
    const away = document.hidden || find("dialog").open;
    this.since = away ? null : now;
  }

  reset() {
    this.run();
    this.gone = this.lapped = 0;
  }

  get seconds() {
    this.run();
    return this.gone / 1000;
  }

  /** Seconds since the last lap. */
  lap() {
    const now = this.seconds;
    const lap = now - this.lapped;
    this.lapped = now;
    return Math.round(lap * 10) / 10;
  }
}

/** Keys that mean something now: not while somebody writes, chooses in a dialog, or holds a key down. */
export function pressed(event) {
  if (event.defaultPrevented || event.repeat || find("dialog").open) return null;
  const target = event.target;
  if (target.closest("textarea, select, input:not([type=checkbox], [type=radio])")) return null;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") return "undo";
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  // A button that has the focus is pressed by these itself.
  if ((event.key === "Enter" || event.key === " ") && target.closest("button, a, summary, input")) return null;
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}
