// Samples, one at a time: one key a verdict. Adjudication is the same page with two people's words above the buttons

import { ask, Clock, find, h, key, pressed, show, strange, tell } from "./dom.js";
import { get } from "./outbox.js";
import { examples, sampleView, steps, told, verdicts } from "./sample.js";

const REASONS = ["Cannot be told from what is shown", "Broken or unreadable", "I know too little of this"];

export class Labels {
  /** `kind` is `label` or `adjudication`. */
  constructor(app, kind) {
    Object.assign(this, { app, kind, queue: [], known: new Map(), recent: null, shown: null, active: null });
    this.path = kind === "label" ? "labels" : "disputes";
    this.clock = new Clock();
    this.note = "";
    this.gold = false;
    this.filling = null;
    setInterval(() => this.tick(), 500);
  }

  /** A dispute is a sample and one criterion of it, so two of them may share a sample. */
  id(sample) {
    return this.kind === "label" ? sample.id : `${sample.id}.${sample.criteria[0]}`;
  }

  async open(id) {
    if (this.known.has(id)) {
      this.render(this.known.get(id));
      return;
    }
    await this.fill();
    if (id && this.kind === "label") {
      const found = await get("/api/sample", { name: this.app.name, id }).catch(() => null);
      if (found) this.keep(found);
    }
    this.render(this.known.get(id) ?? this.queue[0] ?? null);
  }

  /** Fetch samples ahead, so that nobody waits between two of them. */
  fill() {
    this.filling ??= this.fetch().finally(() => {
      this.filling = null;
    });
    return this.filling;
  }

  async fetch() {
    await this.app.outbox.flush();
    const query = { name: this.app.name };
    const found =
      this.kind === "label"
        ? await get("/api/next", { ...query, have: this.queue.map((one) => one.id).join() })
        : await get("/api/disputes", query);
    // Later than the first time this page knows better: what was said since is not in an answer under way.
    this.recent ??= found.recent.map(([sample, criterion]) => ({ sample, criterion }));
    for (const sample of found.samples ?? found.disputes) {
      const old = this.known.get(this.id(sample));
      if (this.queue.includes(old) || (old && finished(old) && this.app.outbox.entries().length)) continue;
      this.keep(sample);
      if (!finished(sample)) this.queue.push(sample);
    }
  }

  /** Take a sample as the server has it, but what still waits to be sent counts already. */
  keep(sample) {
    for (const { body } of this.app.outbox.entries()) {
      if (body.sample === sample.id && body.kind === this.kind && body.name === this.app.name) apply(sample, body);
    }
    const id = this.id(sample);
    if (!finished(sample)) sample.reveal = null;
    const place = this.queue.findIndex((one) => this.id(one) === id);
    if (place >= 0) this.queue[place] = sample;
    this.known.set(id, sample);
    return sample;
  }

  render(sample, criterion) {
    const other = !this.shown || !sample || this.id(this.shown) !== this.id(sample);
    this.shown = sample;
    if (other) {
      this.clock.reset();
      this.note = "";
      this.gold = false;
    }
    const view = find("view");
    view.className = `labels ${this.path}`;
    if (!sample) return this.renderEmpty(view);
    if (other) this.app.visit(`${this.path}/${this.id(sample)}`);
    this.active = criterion ?? sample.criteria.find((name) => !sample.answers[name]) ?? sample.criteria[0];
    const held = document.activeElement?.closest?.(".ask") ? document.activeElement.getAttribute("aria-label") : null;
    // The sample stays where it is while its criteria are answered: only the panel beside it changes.
    if (other || !view.querySelector(".sample")) {
      show(view, h("article", { class: "sample", "aria-label": "Sample", tabindex: "-1" }, sampleView(sample)), h("section", { class: "ask", "aria-labelledby": "question" }));
    }
    this.renderAsk(view.querySelector(".ask"), sample);
    if (held) [...view.querySelectorAll(".ask [aria-label]")].find((one) => one.getAttribute("aria-label") === held)?.focus();
    this.tick();
    if (other) tell(`${sample.fields.at(-1)[1]}. ${this.app.criteria[this.active].question}`);
    else tell(this.app.criteria[this.active].question);
  }

  renderAsk(panel, sample) {
    const criterion = this.app.criteria[this.active];
    const said = sample.answers[this.active];
    const note = said?.note || said?.skip || this.note;
    const small = (text, letter, act) => h("button", { type: "button", class: "small", "aria-label": `${text}, key ${letter}`, onclick: act }, text, key(letter));
    show(
      panel,
      sample.criteria.length > 1 ? steps(sample, this.app.criteria, this.active, (name) => this.render(sample, name)) : null,
      h("h2", { id: "question" }, criterion.question),
      this.kind === "adjudication" ? this.renderSaid(sample) : null,
      verdicts(criterion, said, (word) => this.say(word)),
      h("div", { class: "minor" }, small("Skip", "S", () => this.skip()), small("Note", "N", () => this.write()), small("Undo", "U", () => this.undo())),
      h("p", { class: "note" }, note ? [said?.skip ? "Skipped: " : "Note: ", strange(note)] : null),
      // Below the buttons, so that these stay where they are.
      (sample.skipped[this.active] ?? []).map((reason) => h("p", { class: "hint skipped" }, "Somebody skipped this: ", strange(reason))),
      sample.reveal ? this.renderReveal(sample) : null,
      examples(criterion),
    );
  }

  renderSaid(sample) {
    return [
      sample.own ? h("p", { class: "hint" }, "One of these answers is yours.") : null,
      h("ul", { class: "said-by" }, sample.said.map(({ verdict, note }) => h("li", {}, h("strong", {}, verdict), note ? strange(note, "span") : h("span", { class: "quiet" }, "no note")))),
      h("label", { class: "gold" }, h("input", { type: "checkbox", checked: this.gold, onchange: (event) => (this.gold = event.target.checked) }), " Ask others this as a gold question", key("G")),
    ];
  }

  renderReveal(sample) {
    const rows = sample.criteria.map((name) => [name, told(sample.reveal[name], sample.answers[name]?.verdict), sample.reveal[name].judge?.reason]);
    return h("ul", { class: "reveal", "aria-label": "What judge and gold say" }, rows.map(([name, text, reason]) => h("li", {}, h("strong", {}, this.app.criteria[name].name), ` ${text || "judge: no verdict"}`, reason ? h("span", { class: "why" }, strange(reason)) : null)));
  }

  renderEmpty(view) {
    const waiting = this.app.outbox.entries().length;
    const words = this.filling
      ? ["One moment", "More samples are on their way."]
      : waiting
        ? ["Waiting for the server", "Your answers are kept in this browser until it takes them."]
        : this.kind === "label"
          ? ["Done", "There is nothing left for you to label now."]
          : ["Nothing to decide", "Wherever two people answered, they agree or somebody has decided."];
    show(view, h("section", { class: "empty" }, h("h2", { tabindex: "-1" }, words[0]), h("p", {}, words[1]), h("button", { type: "button", onclick: () => this.open() }, "Look again", key("R"))));
    tell(words.join(". "));
    this.tick();
  }

  tick() {
    if (this.app.view !== this) return;
    const whole = this.clock.seconds;
    find("timer").textContent = this.shown ? `${Math.floor(whole)} s` : "";
  }

  say(word) {
    this.send({ verdict: word, skip: null, note: this.shown.answers[this.active]?.note || this.note });
  }

  send(words) {
    const { shown, active } = this;
    const before = finished(shown);
    const body = { name: this.app.name, sample: shown.id, criterion: active, kind: this.kind, gold: this.gold && words.verdict !== null, seconds: this.clock.lap(), ...words };
    apply(shown, body);
    this.note = "";
    this.recent.unshift({ sample: shown.id, criterion: active });
    this.app.outbox.put("/api/word", body);
    if (!finished(shown) || before) {
      this.render(shown, before ? active : undefined);
      return;
    }
    this.queue = this.queue.filter((one) => one !== shown);
    this.app.last(this.kind === "label" ? "saving" : `You decided: ${words.verdict ?? "skipped"}.`);
    if (this.queue.length <= 2) this.fill().then(() => this.shown ?? this.render(this.queue[0] ?? null)).catch(this.app.fail);
    this.render(this.queue[0] ?? null);
  }

  async skip() {
    const words = await ask("Why skip this question?", (choose, dialog) => {
      const other = h("input", { type: "text", id: "other", maxlength: "500", autocomplete: "off" });
      dialog.onkeydown = (event) => {
        if (event.target !== other && REASONS[event.key - 1]) {
          event.preventDefault();
          choose(REASONS[event.key - 1]);
        }
      };
      return [
        h("div", { class: "choices" }, REASONS.map((reason, place) => h("button", { type: "button", "aria-label": `${reason}, key ${place + 1}`, onclick: () => choose(reason) }, key(String(place + 1)), reason))),
        h("form", { method: "dialog", onsubmit: (event) => (event.preventDefault(), other.value.trim() && choose(other.value.trim())) }, h("label", { for: "other" }, "Another reason"), other),
      ];
    });
    if (words) this.send({ verdict: null, skip: words, note: "" });
  }

  async write() {
    const { shown, active } = this;
    if (!shown) return;
    const old = shown.answers[active]?.note || this.note;
    const words = await ask("A note on this question", (choose) => {
      const text = h("textarea", { id: "note-text", rows: "4", maxlength: "1000", "aria-label": "Note" });
      text.value = old;
      const keep = (event) => (event.preventDefault(), choose({ text: text.value.trim() }));
      text.addEventListener("keydown", (event) => event.key === "Enter" && !event.shiftKey && keep(event));
      return h("form", { method: "dialog", onsubmit: keep }, text, h("p", { class: "hint" }, "Enter keeps it, Esc leaves it as it was."), h("button", { class: "primary" }, "Keep"));
    });
    if (!words || !this.shown || this.id(this.shown) !== this.id(shown)) return;
    const said = this.shown.answers[active];
    if (said?.verdict) this.send({ verdict: said.verdict, skip: null, note: words.text });
    else {
      this.note = words.text;
      this.render(this.shown, active);
    }
  }

  /** Take the last answer back, wherever it was given, and go there. */
  async undo() {
    const last = this.recent?.shift();
    if (!last) {
      tell("There is nothing to take back.");
      return;
    }
    const id = this.kind === "label" ? last.sample : `${last.sample}.${last.criterion}`;
    this.app.outbox.put("/api/word", { name: this.app.name, sample: last.sample, criterion: last.criterion, kind: this.kind, verdict: null, skip: null, note: "" });
    if (this.kind === "adjudication" && !this.known.has(id)) return this.open();
    const sample = this.known.get(id) ?? this.keep(await get("/api/sample", { name: this.app.name, id }));
    delete sample.answers[last.criterion];
    sample.reveal = null;
    if (!this.queue.includes(sample)) this.queue.unshift(sample);
    this.app.last("Taken back.");
    this.render(sample, last.criterion);
  }

  /** What the server made of a word: the judge's verdict and gold are known once the sample is finished. */
  heard(entry, answer) {
    if (entry.body.kind !== this.kind || this.kind !== "label") return;
    if (!answer.sample.reveal) return;
    const sample = this.keep(answer.sample);
    if (!sample.reveal) return;
    if (this.shown?.id === sample.id) this.render(sample, this.active);
    const output = sample.fields.at(-1)[1];
    const texts = sample.criteria.map((name) => [this.app.criteria[name].name, sample.answers[name].verdict ?? "skipped", told(sample.reveal[name], sample.answers[name].verdict)]);
    this.app.last([h("b", {}, strange(output)), ...texts.map(([name, own, text]) => h("span", {}, `${name}: ${own}`, text ? h("i", {}, ` ${text}`) : null))]);
    const wrong = sample.criteria.filter((name) => sample.reveal[name].gold?.verdict && sample.answers[name].verdict && sample.reveal[name].gold.verdict !== sample.answers[name].verdict);
    if (wrong.length) this.feedback(sample, wrong);
  }

  feedback(sample, wrong) {
    ask("A gold question: look once more", (choose) => [
      h("p", { class: "output" }, strange(sample.fields.at(-1)[1])),
      h("ul", {}, wrong.map((name) => h("li", {}, this.app.criteria[name].question, h("p", {}, "You said ", h("b", {}, sample.answers[name].verdict), "; the answer is ", h("b", {}, sample.reveal[name].gold.verdict), sample.reveal[name].gold.note ? [", because: ", strange(sample.reveal[name].gold.note)] : ".")))),
      h("button", { type: "button", class: "primary", autofocus: true, onclick: () => choose(true) }, "Go on", key("Enter")),
    ]);
  }

  pressed(event) {
    const letter = pressed(event);
    if (letter === null) return false;
    const scale = this.shown ? this.app.criteria[this.active].scale : [];
    const place = this.shown?.criteria.indexOf(this.active);
    if (scale[letter - 1]) this.say(scale[letter - 1]);
    else if (letter === "u" || letter === "undo" || letter === "Backspace") this.undo().catch(this.app.fail);
    else if (!this.shown) return letter === "r" && (this.open().catch(this.app.fail), true);
    else if (letter === "s") this.skip();
    else if (letter === "n") this.write();
    else if (letter === "g" && this.kind === "adjudication") {
      this.gold = !this.gold;
      this.render(this.shown, this.active);
    } else if (letter === "ArrowLeft") history.back();
    else if (letter === "ArrowRight" || letter === "Enter") this.render(this.queue[0] ?? null);
    else if ((letter === "ArrowUp" || letter === "ArrowDown") && event.target === document.body) {
      const next = this.shown.criteria[place + (letter === "ArrowUp" ? -1 : 1)];
      if (next) this.render(this.shown, next);
    } else return false;
    return true;
  }
}

export const finished = (sample) => sample.criteria.every((name) => sample.answers[name]);

function apply(sample, { criterion, verdict, skip, note }) {
  if (!sample.criteria.includes(criterion)) return;
  if (verdict === null && skip === null) delete sample.answers[criterion];
  else sample.answers[criterion] = { verdict, skip, note };
}
