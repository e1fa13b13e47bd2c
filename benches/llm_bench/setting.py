"""The model that is measured, the requests that it gets, and the clocks."""

import os
import random
import time

import llama_cpp

from recgpt.interests.generate import InterestAnswer
from recgpt.interests.pool import Pool
from recgpt.llm import LlamaCpp, default_model_path, grammar
from recgpt.llm.engine import Prompt, Request, ScoreRequest
from recgpt.llm.prompts import load

WORDS = (
    *("milk", "chocolate", "garden", "tools", "coffee", "pasta", "grill", "party", "snacks", "frozen", "dinner", "cat"),
    *("food", "oat", "tea", "baby", "yarn", "paint", "rice", "salmon", "camping", "lamp", "bicycle", "honey", "candle"),
    *("puzzle", "running", "shoes", "olive", "oil", "herbs", "bread", "knife"),
)
GRAMMAR = grammar.from_model(InterestAnswer)


class Setting:
    """What the command line says of the model, and engines made so."""

    def __init__(self, arguments):
        self.path = arguments.model or default_model_path()
        self.threads = arguments.threads
        self.users = arguments.users
        self.rounds = arguments.rounds
        self.weights = arguments.weights if arguments.gpu_layers == 0 else None
        self.options = {"n_gpu_layers": arguments.gpu_layers, "flash_attention": arguments.flash or None}
        self.kv = arguments.kv

    def engine(self):
        """Start an engine and load its model."""
        engine = LlamaCpp(
            self.path, threads=self.threads, weights=self.weights, kv_type=self.kv, sequences=32, **self.options
        )
        engine.score([ScoreRequest(Prompt("Warm up.", "x"), (" a",))])
        return engine

    def chosen_kv(self):
        """Return the numbers of the KV cache that the engine takes by itself."""
        return "bf16" if self.weights == "bf16" else "f16"

    def plain(self, path):
        """Load the model as llama-cpp-python's own class does."""
        return llama_cpp.Llama(
            str(path),
            n_ctx=4096,
            n_threads=self.threads,
            n_threads_batch=self.threads,
            n_gpu_layers=self.options["n_gpu_layers"],
            flash_attn=bool(self.options["flash_attention"]),
            verbose=False,
        )


def history(count, seed, tokens):
    """Return lines of a history that count about `tokens`."""
    chance, lines, held = random.Random(seed), [], 0
    while held < tokens:
        month, day, number = chance.randint(1, 12), chance.randint(1, 28), len(lines)
        behavior = chance.choice(["purchase", "cart", "search", "favorite"])
        items = ", ".join(" ".join(chance.sample(WORDS, 2)) for _ in range(chance.randint(1, 4)))
        lines.append(f"r{number} 17-{month:02d}-{day:02d} ({behavior}) | {items}")
        held += count([lines[-1] + "\n"])[0]
    return "\n".join(lines)


def interest_requests(engine, users, *, tokens=400, room=400):
    """Make the requests of interest mining in `generate` mode, each with a history of its own."""
    pool = Pool.load().interests[:20]
    template = load("interests")
    return [
        Request(
            template.render(
                history=history(engine.count_tokens, user, tokens), attributes="", pool=pool, most=10, reasoning=False
            ),
            max_tokens=room,
            schema=GRAMMAR,
        )
        for user in range(users)
    ]


def in_vain(tokens):
    """Return how many computed tokens were guesses that came to nothing; each text's last token is not computed."""
    return tokens["decoded_tokens"] - tokens["computed_tokens"] - tokens["answer_tokens"]


def timed(call):
    """Return the seconds of a call and what it returned."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def cpu(engine=None):
    """Return the processor seconds of this process, and of the engine's child while it runs."""
    seconds = time.process_time()
    if engine is not None and engine.pid is not None:
        with open(f"/proc/{engine.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds
