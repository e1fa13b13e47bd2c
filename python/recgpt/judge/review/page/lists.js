// Two lists for one shopper, side by side and unnamed: seven questions, and marks on what repeats

import { Clock, find, h, key, pressed, show, strange, tell } from "./dom.js";
import { get } from "./outbox.js";
import { historyView } from "./sample.js";

const SIDES = ["left", "right"];

export class Lists {
  constructor(app) {
    Object.assign(this, { app, queue: [], known: new Map(), mine: [], shown: null, answer: null });
    this.clock = new Clock();
    setInterval(() => this.tick(), 500);
  }

  async open(id) {
    if (this.known.has(id)) {
      this.render(this.known.get(id));
      return;
    }
    await this.fetch();
    if (id && !this.known.has(id)) {
      const found = await get("/api/pair", { name: this.app.name, id }).catch(() => null);
      if (found) this.known.set(id, found);
    }
    this.render(this.known.get(id) ?? this.queue[0] ?? null);
  }

  async fetch() {
    await this.app.outbox.flush();
    const found = await get("/api/pairs", { name: this.app.name });
    this.mine = found.mine;
    this.left = found.left;
    this.queue = found.pairs.filter((pair) => !this.known.get(pair.id)?.answer);
    for (const pair of this.queue) this.known.set(pair.id, pair);
  }

  /** Where an unfinished questionnaire waits for its annotator to come back. */
  get draft() {
    return `recgpt-draft/${this.app.name}/${this.shown.id}`;
  }

  render(pair) {
    const view = find("view");
    view.className = "lists";
    this.shown = pair;
    this.clock.reset();
    if (!pair) {
      show(view, h("section", { class: "empty" }, h("h2", { tabindex: "-1" }, "Done"), h("p", {}, "There are no two lists left for you to compare now.")));
      tell("There are no two lists left.");
      this.tick();
      return;
    }
    this.app.visit(`lists/${pair.id}`);
    const empty = { marks: [[], []], ...Object.fromEntries(this.app.questions.map(({ key: name, several }) => [name, several ? [] : ""])) };
    let kept = null;
    try {
      kept = JSON.parse(localStorage.getItem(this.draft));
    } catch {
      kept = null;
    }
    this.answer = { ...empty, ...(pair.answer ?? {}), ...(kept ?? {}) };
    show(
      view,
      h("section", { class: "shopper", "aria-label": "Shopper" }, h("p", { class: "kicker" }, "Shopper"), h("p", { class: "attributes" }, strange(pair.attributes || "Nothing is known.")), historyView(pair.history)),
      h("section", { class: "both", "aria-label": "Two lists" }, SIDES.map((side, place) => this.renderList(side, place, pair.lists[place]))),
      h("form", { class: "questions", "aria-label": "Questions", onsubmit: (event) => (event.preventDefault(), this.save()) }),
    );
    this.renderQuestions();
    this.tick();
    tell("Two lists. Does anything repeat itself?");
  }

  renderList(side, place, items) {
    const card = (item, number) => {
      const first = number === 1;
      const text = [h("span", { class: "number" }, String(number)), h("span", { class: "item" }, strange(item.title || "–"), item.detail ? h("small", {}, strange(item.detail)) : null)];
      const marked = () => this.answer.marks[place].includes(number);
      return h(
        "li",
        { class: number === 4 || number === 8 ? "cut" : null },
        // The first item cannot repeat an earlier one.
        first ? h("div", { class: "card" }, text) : h("button", { type: "button", class: "card", "aria-pressed": String(marked()), "aria-label": `${item.title || "item"}, place ${number}: repeats an earlier item`, onclick: (event) => this.mark(place, number, event.currentTarget) }, text, h("span", { class: "repeats", "aria-hidden": "true" }, "repeats")),
      );
    };
    return h("section", { class: "list" }, h("h2", {}, side === "left" ? "Left" : "Right"), h("ol", { "aria-label": `${side} list` }, items.map((item, at) => card(item, at + 1))));
  }

  mark(place, number, button) {
    const marks = this.answer.marks[place];
    const on = !marks.includes(number);
    this.answer.marks[place] = on ? [...marks, number].sort((a, b) => a - b) : marks.filter((one) => one !== number);
    button.setAttribute("aria-pressed", String(on));
    if (on) {
      this.answer.seen = "yes";
      if (!this.answer.where.includes(SIDES[place])) this.answer.where = [...this.answer.where, SIDES[place]];
    }
    this.keep();
    this.renderQuestions();
  }

  /** Questions whose turn it is: the report's two about each list only where repetition sits there. */
  renderQuestions() {
    const form = find("view").querySelector(".questions");
    const held = document.activeElement?.id;
    const { seen, where } = this.answer;
    const due = ({ key: name }) => name === "seen" || (seen === "yes" && (["where", "why"].includes(name) || where.includes(name.split("_")[0])));
    const group = (question, number) =>
      h(
        "fieldset",
        { hidden: !due(question) },
        h("legend", {}, `${number}. ${question.text}`),
        question.options.length
          ? question.options.map(([name, text], at) => this.renderOption(question, name, text, question.key === "seen" ? String(at + 1) : null))
          : h("textarea", { id: "why", rows: "2", maxlength: "1000", "aria-label": question.text, oninput: (event) => ((this.answer.why = event.target.value), this.keep()) }),
      );
    form.replaceChildren(
      h("p", { class: "hint" }, "Mark in the lists what repeats an earlier item: the lines stand after places 4 and 8."),
      ...this.app.questions.map((question, at) => group(question, at + 1)),
      h("div", { class: "minor" }, h("button", { class: "primary", disabled: !this.answer.seen }, "Save and go on", key("Enter"))),
    );
    const why = form.querySelector("#why");
    if (why) why.value = this.answer.why;
    if (held) find(held)?.focus();
  }

  renderOption({ key: name, several }, value, text, letter) {
    const id = `${name}-${value}`;
    const chosen = several ? this.answer[name].includes(value) : this.answer[name] === value;
    const input = h("input", { type: several ? "checkbox" : "radio", name, id, value, onchange: () => this.choose(name, several, value) });
    input.checked = chosen;
    return h("label", { for: id }, input, h("span", {}, text), letter ? key(letter) : null);
  }

  choose(name, several, value) {
    const old = this.answer[name];
    this.answer[name] = several ? (old.includes(value) ? old.filter((one) => one !== value) : [...old, value]) : value;
    this.keep();
    this.renderQuestions();
  }

  keep() {
    try {
      localStorage.setItem(this.draft, JSON.stringify(this.answer));
    } catch {
      // A browser that keeps nothing still keeps it until the page is left.
    }
  }

  async save() {
    if (!this.answer.seen) return;
    const pair = this.shown;
    localStorage.removeItem(this.draft);
    pair.answer = this.answer;
    this.mine = [pair.id, ...this.mine.filter((one) => one !== pair.id)];
    this.app.outbox.put("/api/compared", { name: this.app.name, pair: pair.id, answer: this.answer, seconds: this.clock.lap() });
    this.app.last("Two lists compared.");
    this.queue = this.queue.filter((one) => one !== pair);
    if (!this.queue.length) await this.fetch();
    this.render(this.queue[0] ?? null);
  }

  async undo() {
    const id = this.mine.shift();
    if (!id) {
      tell("There is nothing to take back.");
      return;
    }
    this.app.outbox.put("/api/compared", { name: this.app.name, pair: id, answer: null });
    const pair = this.known.get(id) ?? (await get("/api/pair", { name: this.app.name, id }));
    const answer = pair.answer;
    pair.answer = null;
    this.known.set(id, pair);
    if (!this.queue.includes(pair)) this.queue.unshift(pair);
    this.shown = pair;
    this.answer = answer;
    if (answer) this.keep();
    this.app.last("Taken back; your answers stand there as they were.");
    this.render(pair);
  }

  heard() {}

  tick() {
    if (this.app.view !== this) return;
    find("timer").textContent = this.shown ? `${Math.floor(this.clock.seconds)} s` : "";
  }

  pressed(event) {
    const letter = pressed(event);
    const options = this.app.questions[0].options;
    if (letter === null) return false;
    if (letter === "u" || letter === "undo") this.undo().catch(this.app.fail);
    else if (!this.shown) return false;
    else if (options[letter - 1]) this.choose("seen", false, options[letter - 1][0]);
    else if (letter === "Enter") this.save().catch(this.app.fail);
    else if (letter === "ArrowLeft") history.back();
    else return false;
    return true;
  }
}
