// The review page: who labels, which view is open, and what stands in the header and at the foot

import { ask, find, h, tell } from "./dom.js";
import { Labels } from "./labels.js";
import { Lists } from "./lists.js";
import { get, Outbox } from "./outbox.js";
import { help, line, table } from "./progress.js";

const app = {
  name: "",
  view: null,
  fail(error) {
    const waits = app.outbox?.entries().length;
    banner(waits ? `${error.message} ${kept(waits)}` : error.message);
  },
  /** Put what is shown into the address, so that back and reload lead to it. */
  visit(path) {
    const hash = `#/${path}`;
    if (location.hash === hash) return;
    const inside = location.hash.split("/").length > 2;
    history[inside ? "pushState" : "replaceState"](null, "", hash);
  },
  last(words) {
    if (words === "saving") return;
    find("last").replaceChildren(...[words].flat());
    tell(find("last").textContent);
  },
};

function banner(text) {
  find("banner").hidden = !text;
  find("banner").textContent = text;
}

const kept = (count) => `${count} ${count === 1 ? "answer is" : "answers are"} kept in this browser.`;

function waiting(count, trouble) {
  find("saved").textContent = count ? `${count} to save` : "saved";
  find("saved").classList.toggle("open", count > 0);
  banner(trouble ? `${trouble} ${kept(count)}` : "");
}

let asking = null;
async function figures() {
  const found = await get("/api/progress", { name: app.name });
  const whole = found.mine + found.left;
  find("bar").max = whole || 1;
  find("bar").value = found.mine;
  find("count").textContent = `${found.mine} of ${whole}`;
  find("agreed").textContent = line(found);
  find("disputes").textContent = found.disputes ? ` ${found.disputes}` : "";
  return found;
}

/** Ask for the figures after the last of several answers. */
function soon() {
  clearTimeout(asking);
  asking = setTimeout(() => figures().catch(() => {}), 250);
}

async function introduce(first) {
  const kept = sessionStorage.getItem("recgpt/name") ?? localStorage.getItem("recgpt/name");
  if (first && kept) return kept;
  let said = null;
  while (!said) {
    said = await ask("Who labels?", (choose) => {
      const input = h("input", { type: "text", id: "name", maxlength: "40", autocomplete: "off", required: true, pattern: "[^\\/]+" });
      input.value = kept ?? "";
      return h(
        "form",
        { method: "dialog", onsubmit: (event) => (event.preventDefault(), choose(input.value.trim())) },
        h("label", { for: "name" }, "Your name stands beside your answers; use the same one each time."),
        input,
        h("button", { class: "primary" }, "Begin"),
      );
    });
    if (!said && !first) return app.name;
  }
  sessionStorage.setItem("recgpt/name", said);
  localStorage.setItem("recgpt/name", said);
  return said;
}

async function route() {
  const [, path = "", ...rest] = location.hash.split("/");
  const name = app.views[path] ? path : "labels";
  app.view = app.views[name];
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  await app.view.open(rest.join("/"));
}

async function begin() {
  const start = await get("/api/start");
  Object.assign(app, { criteria: start.criteria, questions: start.questions });
  app.outbox = new Outbox(start, {
    changed: waiting,
    heard: (entry, answer) => {
      (entry.body.kind === "adjudication" ? app.views.disputes : app.views.labels).heard(entry, answer);
      soon();
    },
    // A page that had nothing left to show gets on by itself.
    emptied: () => app.view?.shown === null && app.view.open().catch(app.fail),
    refused: (entry, text) => app.last(`Not saved: ${text}`),
  });
  await enter(await introduce(true));
  find("nav-lists").hidden = !start.pairs;
  find("who").addEventListener("click", async () => enter(await introduce(false)).catch(app.fail));
  find("more").addEventListener("click", () => app.outbox.flush().then(figures).then((found) => table(found, app.criteria)).catch(app.fail));
  find("help").addEventListener("click", help);
  addEventListener("popstate", () => route().catch(app.fail));
  addEventListener("keydown", keyed);
  addEventListener("online", () => app.outbox.flush());
}

async function enter(name) {
  app.name = name;
  app.views = { labels: new Labels(app, "label"), disputes: new Labels(app, "adjudication"), lists: new Lists(app) };
  find("who").textContent = name;
  find("who").setAttribute("aria-label", `You are ${name}: change the name`);
  await figures();
  await route();
}

function keyed(event) {
  if (find("dialog").open) return;
  if (app.view.pressed(event)) {
    event.preventDefault();
    return;
  }
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("textarea, input[type=text]")) return;
  if (event.key === "?") help();
  else if (event.key === "p" || event.key === "P") find("more").click();
  else return;
  event.preventDefault();
}

begin().catch((error) => banner(error.message));
