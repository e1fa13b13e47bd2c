"""What does a `reasoning` field cost, and what does it change?

    python benches/reasoning.py [--model PATH] [--tokens N] [--users N] [--threads N]

The same shoppers of the generated world are asked for one interest as JSON, once as it is and once with a reasoning of
at most N tokens first. Printed are tokens, seconds, how many answers are valid, how many name something that the
history holds, and how many change. The last line is one JSON object.
"""

import argparse
import json
import time

from recgpt import behaviors, datasets, history, logs
from recgpt.llm import LlamaCpp, Tokenizer, default_model_path, grammar
from recgpt.llm.engine import Prompt, Request

SYSTEM = (
    "You read what a shopper did in a shop, and name the one interest that shows best. Answer with JSON: the interest "
    "in two to five words, and whether it is long-term or short-term."
)
SCHEMA = {
    "type": "object",
    "properties": {
        "interest": {"type": "string", "minLength": 3, "maxLength": 40},
        "stage": {"enum": ["long-term", "short-term"]},
    },
    "required": ["interest", "stage"],
}
ROOM = 40


def histories(users, tokenizer):
    """Return the histories of some shoppers."""
    log = logs.from_dataset(datasets.load("world", users=users, items=100, seed=5))
    briefs = history.brief(log.items, tokenizer=tokenizer)
    kept = behaviors.extract(log.events)
    texts = history.compress(kept, briefs, now=log.report.last, tokenizer=tokenizer, budget=200, row_ids=True)
    return texts["text"].to_pylist()[:users]


def ask(engine, texts, schema):
    """Ask every shopper; return the answers, tokens written and seconds."""
    begin = time.perf_counter()
    results = engine.generate(
        [Request(Prompt(SYSTEM, f"{text}\n\nAnswer with JSON only."), ROOM, schema) for text in texts]
    )
    return results, sum(result.usage.answer_tokens for result in results), time.perf_counter() - begin


def held(result, text):
    """Tell whether a word of the interest stands in the history."""
    words = {word.lower().rstrip("s") for word in result.value["interest"].split() if len(word) > 3}
    return any(word in text.lower() for word in words)


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=None)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    path = options.model or default_model_path()
    texts = histories(options.users, Tokenizer.bytes())
    figures = {}
    with LlamaCpp(path, context_tokens=2048, threads=options.threads, weights="q8_0") as engine:
        engine.generate([Request(Prompt(SYSTEM, text), 1) for text in texts[:1]])
        plain, plain_tokens, plain_seconds = ask(engine, texts, SCHEMA)
        deep, deep_tokens, deep_seconds = ask(engine, texts, grammar.with_reasoning(SCHEMA, tokens=options.tokens))
    for name, results, tokens, seconds in (
        ("plain", plain, plain_tokens, plain_seconds),
        ("reasoning", deep, deep_tokens, deep_seconds),
    ):
        valid = [result.status == "ok" for result in results]
        found = [ok and held(result, text) for ok, result, text in zip(valid, results, texts, strict=True)]
        figures[name] = {"valid": sum(valid), "in_history": sum(found), "tokens": tokens, "seconds": round(seconds, 2)}
        print(f"{name:<10} {sum(valid)} of {len(valid)} valid, {sum(found)} in the history")
        print(f"{'':<10} {tokens} tokens written, {seconds:.1f} s")
    changed = sum(one.value != two.value for one, two in zip(plain, deep, strict=True))
    print(f"{changed} of {len(texts)} answers change; each costs {deep_tokens / plain_tokens:.1f} times the tokens")
    figures |= {"changed": changed, "asked": len(texts), "times_tokens": round(deep_tokens / plain_tokens, 2)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
