// How far somebody is, and how far people, judge and gold agree so far

import { ask, h, key, percent } from "./dom.js";

/** Answers below which kappa says nothing. */
const LEAST = 10;

/** One line for the foot. */
export function line(found) {
  const parts = [];
  if (found.seconds !== null) parts.push(`${found.seconds.toFixed(found.seconds < 10 ? 1 : 0)} s each`);
  if (found.judge.of) parts.push(`judge ${percent(found.judge)}`);
  if (found.people.of) parts.push(`people ${percent(found.people)}`);
  if (found.gold.of) parts.push(`gold ${found.gold.same} of ${found.gold.of}`);
  return parts.join(" · ");
}

/** The table behind it. */
export function table(found, criteria) {
  const share = ({ same, of, kappa }) => h("td", {}, of ? `${percent({ same, of })} of ${of}` : "–", typeof kappa === "number" && of >= LEAST ? h("small", {}, ` κ ${kappa.toFixed(2)}`) : null);
  const rows = Object.entries(found.by_criterion);
  return ask(
    "Agreement so far",
    (choose) => [
      h("p", {}, `${found.mine} samples done, ${found.left} to go${found.seconds === null ? "" : `, ${found.seconds.toFixed(1)} seconds each`}.`),
      rows.length
        ? h(
            "div",
            { class: "scroll" },
            h(
              "table",
              {},
              h("thead", {}, h("tr", {}, ["Criterion", "With the judge", "With other people", "Gold"].map((text) => h("th", { scope: "col" }, text)))),
              h("tbody", {}, rows.map(([name, one]) => h("tr", {}, h("th", { scope: "row" }, `${name.split("/")[0]}: ${criteria[name]?.name ?? name}`), share(one.judge), share(one.people), share(one.gold)))),
            ),
          )
        : h("p", {}, "Figures come once you have finished a sample."),
      h("p", { class: "hint" }, "Equal words on what you have finished; κ is Cohen's kappa, 0 where chance alone would agree as much."),
      h("button", { type: "button", class: "primary", autofocus: true, onclick: () => choose(true) }, "Close", key("Esc")),
    ],
    { wide: true },
  );
}

const KEYS = [
  ["1 2 3", "Give a verdict, the best first"],
  ["S", "Skip the question, with a reason"],
  ["N", "Write a note"],
  ["U", "Undo: take the last answer back"],
  ["←", "Go back to the sample before (so does the browser)"],
  ["→", "Go on to the next open sample"],
  ["↑ ↓", "Another criterion of the same sample"],
  ["G", "In adjudication: ask it of others as a gold question"],
  ["Enter", "With two lists: save and go on"],
  ["P", "Agreement so far"],
  ["?", "These keys"],
];

export function help() {
  return ask("Keys", (choose) => [
    h("dl", { class: "keys" }, KEYS.map(([keys, text]) => h("div", {}, h("dt", {}, keys.split(" ").map((one) => h("kbd", {}, one))), h("dd", {}, text)))),
    h("p", { class: "hint" }, "Every answer is saved at once. What the judge said is shown after you have answered."),
    h("button", { type: "button", class: "primary", autofocus: true, onclick: () => choose(true) }, "Close", key("Esc")),
  ]);
}
