// One sample as people see it: the output large, then what it was made from, the history with its cited rows marked

import { h, key, strange } from "./dom.js";

const OUTPUT = { interests: "Interest", tags: "Tag", explanations: "Explanation" };

/** The sample itself. */
export function sampleView(sample) {
  const fields = sample.fields.slice(0, -1);
  const [, output] = sample.fields.at(-1);
  return [
    h("p", { class: "kicker" }, OUTPUT[sample.task] ?? sample.task),
    h("h2", { class: "output", id: "output" }, strange(output || "–")),
    h("dl", { class: "fields" }, fields.map(([label, text]) => h("div", {}, h("dt", {}, strange(label)), h("dd", {}, strange(text || "–"))))),
    historyView(sample.history, sample.cited),
  ];
}

/** A history, newest last as it is written; what an interest cites is marked. */
export function historyView(rows, cited = []) {
  if (!rows.length) return null;
  // The page of a year can be long: it opens where the first mark stands.
  queueMicrotask(() => scrollToMark());
  const count = rows.filter((row) => cited.includes(row.id)).length;
  const line = (row) => {
    const hit = cited.includes(row.id);
    return h(
      "li",
      { class: hit ? "cited" : null },
      h("span", { class: "when" }, strange(row.when), hit ? h("span", { class: "sr" }, " cited as evidence") : null),
      h("span", { class: "items" }, row.items.map((item, place) => [place ? ", " : null, strange(item, hit && (row.hits.includes(place) || !row.hits.length) ? "mark" : "bdi")])),
    );
  };
  return h(
    "section",
    { class: "history", "aria-labelledby": "history-title" },
    h("h3", { id: "history-title" }, "History", count ? h("span", { class: "legend" }, `${count} cited, marked`) : null),
    // It scrolls by itself, so it must be reachable without a mouse.
    h("ol", { tabindex: "0", "aria-label": "History, oldest first" }, rows.map(line)),
  );
}

function scrollToMark() {
  const list = document.querySelector(".history ol");
  const mark = list?.querySelector("mark");
  if (mark) list.scrollTop = Math.max(0, mark.getBoundingClientRect().top - list.getBoundingClientRect().top - 48);
}

/** Steps through the criteria of a sample; each shows what was said. */
export function steps(sample, criteria, active, choose) {
  return h(
    "ol",
    { class: "steps", "aria-label": "Criteria" },
    sample.criteria.map((name) => {
      const said = sample.answers[name];
      const word = said ? (said.verdict ?? "skipped") : "";
      return h(
        "li",
        {},
        h(
          "button",
          { type: "button", "aria-current": name === active ? "step" : null, class: said ? "said" : null, onclick: () => choose(name) },
          h("span", {}, criteria[name]?.name ?? name),
          h("span", { class: "word" }, word || "open"),
        ),
      );
    }),
  );
}

/** The buttons of a scale, best first: key 1 is the best. */
export function verdicts(criterion, said, choose) {
  return h(
    "div",
    { class: "verdicts", role: "group", "aria-label": "Verdict", "data-question": criterion.question },
    criterion.scale.map((word, place) =>
      h(
        "button",
        {
          type: "button",
          class: `verdict ${criterion.passes.includes(word) ? "pass" : place === criterion.scale.length - 1 ? "fail" : ""}`,
          "aria-pressed": String(said?.verdict === word),
          "aria-label": `${word}, key ${place + 1}`,
          onclick: () => choose(word),
        },
        key(String(place + 1)),
        // Of several levels not every good word is good enough.
        h("span", {}, word, criterion.scale.length > 2 ? h("small", {}, criterion.passes.includes(word) ? "passes" : "does not pass") : null),
      ),
    ),
  );
}

/** Examples of a criterion, of both kinds, each with its reason. */
export function examples(criterion) {
  const kind = (title, rows, name) =>
    h(
      "section",
      { class: `examples ${name}` },
      h("h3", {}, title),
      h("ul", {}, rows.map(([text, why]) => h("li", {}, strange(text, "q"), h("span", { class: "why" }, strange(why))))),
    );
  const { scale } = criterion;
  return [kind(scale[0], criterion.positive, "good"), kind(scale.at(-1), criterion.negative, "bad")];
}

/** What the judge and the gold question say of one criterion, once the person has answered. */
export function told(reveal, own) {
  const parts = [];
  if (reveal?.gold) {
    const right = reveal.gold.verdict === own;
    parts.push(`gold: ${right ? "right" : `it is ${reveal.gold.verdict}`}`);
  }
  if (reveal?.judge?.verdict) {
    const sure = reveal.judge.score === null ? "" : ` (${Math.round(100 * reveal.judge.score)} % that it passes)`;
    parts.push(`judge: ${reveal.judge.verdict}${sure}`);
  }
  return parts.join(", ");
}
