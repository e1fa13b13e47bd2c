"""How fast is the engine, and what do batches, shared prefixes and grammars give over one call after another?

    python benches/llm.py [--only interests,prefix,decode,shapes] [--model GGUF] [--threads N] [--users N]
    python benches/llm.py --gpu-layers -1 --flash --kv q8_0 --threads 8       # a GPU

`interests`: the prompt of interest mining for 32 users with 400 tokens of history, answers up to 400 tokens (the stage
allows 1,500), greedy and under its grammar, against a loop over
`create_chat_completion` that keeps the instructions of its last call. The loop takes the file as it is and, a second
time, the same weights as the engine; both loops and the engine work in turns. The compute ceiling is the tokens that
must be computed over the rate at which the engine reads the same prompts.
`prefix`: 300 tokens after 600 that all share, against 900 of which nothing is shared.
`decode`: texts of 64 tokens at 1, 4 and 16 sequences, with and without a grammar, against a loop over
`llama_decode` that chooses nothing. Fewer passes than tokens: guessed tokens were kept.
`shapes`: the demo's calls: a prompt of 1,700 tokens, 40 candidates after it, 24 short texts after it, 200 candidates
after 1,000.

Every engine starts anew, and what it computed before the clock started has another beginning. The last line is one JSON
object.
"""

import argparse
import ctypes
import json
import os
import platform
import random
import statistics
import time

import llama_cpp
import llama_cpp.llama_cpp as C

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


def interests(setting):
    """Mine interests of all users at once against one after another."""
    with setting.engine() as engine:
        requests = interest_requests(engine, setting.users)
        same = engine.computed_path
    gbnf = grammar.to_gbnf(GRAMMAR)
    loops = {"as it is": setting.path}
    if str(same) != str(setting.path):
        loops["same weights"] = same
    plain = {name: setting.plain(path) for name, path in loops.items()}
    blocks = [requests[at::4][: max(1, setting.users // 16)] for at in range(4)]
    seconds = {name: [] for name in loops}
    written = {name: [] for name in loops}
    ours, reading, tokens = [], [], {}
    for block in blocks:
        for name, model in plain.items():
            for request in block:
                messages = [
                    {"role": "system", "content": request.prompt.system},
                    {"role": "user", "content": request.prompt.user},
                ]
                rules = llama_cpp.LlamaGrammar.from_string(gbnf, verbose=False)
                spent, answer = timed(
                    lambda model=model, messages=messages, rules=rules, request=request: model.create_chat_completion(
                        messages, max_tokens=request.max_tokens, temperature=0, grammar=rules
                    )
                )
                seconds[name].append(spent)
                written[name].append(answer["usage"]["completion_tokens"])
        if block in (blocks[0], blocks[2])[: setting.rounds]:
            with setting.engine() as engine:
                before = engine.stats
                spent, _ = timed(lambda engine=engine: engine.generate(requests))
                ours.append(spent)
                tokens = {key: value - before[key] for key, value in engine.stats.items()}
            with setting.engine() as engine:
                before = engine.stats
                first = [Request(one.prompt, max_tokens=1, schema=one.schema) for one in requests]
                spent, _ = timed(lambda engine=engine, first=first: engine.generate(first))
                read = engine.stats["computed_tokens"] - before["computed_tokens"]
                reading.append(read / spent)
    rate = statistics.median(reading)
    spent = statistics.median(ours)
    must = tokens["computed_tokens"] + tokens["answer_tokens"]
    user = {name: statistics.mean(times) for name, times in seconds.items()}
    print(
        f"interests of {setting.users} users: {spent:.1f} s ({', '.join(f'{one:.1f}' for one in ours)}), "
        f"{tokens['computed_tokens']} prompt tokens computed of {tokens['prompt_tokens']}, "
        f"{tokens['answer_tokens']} written, {tokens['decodes']} batches, {in_vain(tokens)} tokens guessed in "
        f"vain; prompts alone {rate:.0f} tokens/s"
    )
    for name, times in seconds.items():
        print(
            f"  one after another, {name}: {user[name]:.2f} s a user ({len(times)} users, "
            f"{statistics.mean(written[name]):.0f} tokens written each), together {spent / setting.users:.2f} s"
        )
    ratio = {name: value * setting.users / spent for name, value in user.items()}
    return {
        "users_per_minute": round(60 * setting.users / spent, 1),
        "users_per_minute_vs_naive": round(ratio["as it is"], 2),
        "users_per_minute_vs_naive_same_weights": round(ratio.get("same weights", ratio["as it is"]), 2),
        "of_compute_ceiling": round(must / rate / spent, 3),
        "prefill_tokens_per_second": round(rate),
    }


def prefix(setting):
    """Read 600 shared and 300 own tokens, against 900 own ones."""
    with setting.engine() as engine:
        common = history(engine.count_tokens, 1000, 560)
        own = [history(engine.count_tokens, user, 290) for user in range(32)]
        prompts = [Prompt(common, text) for text in own]
        apart = [Prompt(f"{user} {common}", own[user]) for user in range(8)]
        lengths = engine.prompt_tokens(prompts)
    shared, full = [], []
    for _ in range(2):
        for group, seconds in ((prompts, shared), (apart, full)):
            with setting.engine() as engine:
                spent, _ = timed(lambda engine=engine, group=group: engine.generate([Request(one, 1) for one in group]))
                seconds.append(spent / len(group))
    ratio = statistics.median(full) / statistics.median(shared)
    print(f"prefix: {statistics.mean(lengths):.0f} tokens a prompt; {ratio:.2f}x full prefill")
    return {"prefix_sharing": round(ratio, 2)}


def raw_decode(setting, path, widths, steps):
    """Return tokens a second of `llama_decode` alone at each width: short contexts apart, no choice of tokens."""
    C.llama_backend_init()
    parameters = C.llama_model_default_params()
    parameters.n_gpu_layers, parameters.use_extra_bufts = setting.options["n_gpu_layers"], False
    model = C.llama_model_load_from_file(os.fsencode(str(path)), parameters)
    options = C.llama_context_default_params()
    options.n_seq_max, options.n_ctx, options.n_batch, options.n_ubatch = max(widths), 256 * max(widths), 512, 512
    options.n_threads = options.n_threads_batch = setting.threads
    options.kv_unified, options.no_perf = False, True
    options.type_k = options.type_v = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}[setting.kv or setting.chosen_kv()]
    # As the engine does it: on for a q8_0 cache, which needs it; llama.cpp's own choice on a GPU.
    chosen = setting.options["flash_attention"]
    free = -1 if setting.options["n_gpu_layers"] else int(setting.kv == "q8_0")
    options.flash_attn_type = free if chosen is None else int(chosen)
    context = C.llama_init_from_model(model, options)
    if not context:
        raise SystemExit("llama.cpp gives no context for these options; see its lines above")
    memory = C.llama_get_memory(context)
    batch = C.llama_batch_init(512, 0, 1)
    rates = {}
    for width in widths:
        times = []
        for position in range(36 + steps):
            batch.n_tokens = width
            for row in range(width):
                batch.token[row], batch.pos[row], batch.logits[row] = 1000 + row, position, True
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, row
            spent, code = timed(lambda: C.llama_decode(context, batch))
            assert code == 0
            times.append(spent)
        rates[width] = width * steps / sum(times[36:])
        C.llama_memory_clear(memory, False)
    C.llama_batch_free(batch)
    C.llama_free(context)
    C.llama_model_free(model)
    return rates


def decode(setting):
    """Write 64 tokens in many sequences, with and without a grammar."""
    widths, steps = (1, 4, 16), 64
    schema = {"type": "string", "minLength": 400, "maxLength": 1000}
    rates = {"raw": {w: [] for w in widths}, "plain": {w: [] for w in widths}, "grammar": {w: [] for w in widths}}
    passes = {"plain": {}, "grammar": {}}
    with setting.engine() as engine:
        path = engine.computed_path
        for _ in range(3):
            for width, rate in raw_decode(setting, path, widths, steps).items():
                rates["raw"][width].append(rate)
            for name, form in (("plain", None), ("grammar", schema)):
                for width in widths:
                    texts = [
                        Prompt("Count.", f"{random.random()}", "" if form else f"{100 + at}, {101 + at}, {102 + at},")
                        for at in range(width)
                    ]
                    # The prompts are read before the clock starts; all but their last tokens stay.
                    engine.generate([Request(one, 1, form) for one in texts])
                    before = engine.stats
                    spent, _ = timed(lambda t=texts, f=form: engine.generate([Request(one, steps, f) for one in t]))
                    written = engine.stats["answer_tokens"] - before["answer_tokens"]
                    passes[name][width] = engine.stats["decodes"] - before["decodes"]
                    assert written > 0.9 * width * steps, f"texts ended early: {written} tokens"
                    rates[name][width].append(written / spent)
    middle = {name: {w: statistics.median(found) for w, found in by.items()} for name, by in rates.items()}
    for name, by in middle.items():
        print(f"decode, {name:8}: " + ", ".join(f"{rate:.0f} tokens/s at {width}" for width, rate in by.items()))
    print(f"  passes for {steps} tokens of each text, the last time: {passes}")
    return {
        "decode_of_raw_16": round(middle["plain"][16] / middle["raw"][16], 3),
        "passes_for_64_tokens_16": passes["plain"][16],
        "decode_of_raw_16_grammar": round(middle["grammar"][16] / middle["raw"][16], 3),
        "grammar_cost": round(1 - middle["grammar"][16] / middle["plain"][16], 3),
        **{f"decode_{name}_{width}": round(rate) for name, by in middle.items() for width, rate in by.items()},
    }


def candidates(engine, number, tokens):
    """Return different candidates of `tokens` tokens."""
    found, at = [], 0
    while len(found) < number:
        text = f" {WORDS[at % 16]} {WORDS[at // 16 % 16]}"
        while engine.count_tokens([text])[0] < tokens:
            text += f" {WORDS[(at * 3 + len(text)) % 16]}"
        at += 1
        if text not in found and engine.count_tokens([text])[0] == tokens:
            found.append(text)
    return tuple(found)


def shapes(setting):
    """Time the calls that the demo makes."""
    out = {}
    with setting.engine() as engine:
        long, short = history(engine.count_tokens, 0, 1650), history(engine.count_tokens, 1, 960)
        forty, many = candidates(engine, 40, 8), candidates(engine, 200, 6)
        system = "You say what a shopper wants."
        prompt, other = Prompt(system, long, "The shopper wants"), Prompt("You name tags.", short, "Tag:")
        texts = [Request(Prompt(system, long, f"The shopper's wish {at} is"), 20) for at in range(24)]
        for name, call in (
            ("prefill_1700", lambda: engine.score([ScoreRequest(prompt, (" a",))])),
            ("score_40x8_after_1700", lambda: engine.score([ScoreRequest(prompt, forty)])),
            ("generate_24x20_share_1700", lambda: engine.generate(texts)),
            ("prefill_1000", lambda: engine.score([ScoreRequest(other, (" a",))])),
            ("score_200x6_after_1000", lambda: engine.score([ScoreRequest(other, many)])),
        ):
            before = engine.stats
            spent, _ = timed(call)
            used = {key: value - before[key] for key, value in engine.stats.items()}
            print(f"{name:28} {spent:7.2f} s {used['decoded_tokens'] / spent:6.0f} tokens/s  {used}", flush=True)
            out[name] = round(spent, 2)
    return out


SECTIONS = {"interests": interests, "prefix": prefix, "decode": decode, "shapes": shapes}


def processor():
    """Return the processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main():
    """Run the sections, print their figures and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--model", default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1, choices=(1, 2), help="how often `interests` times the engine")
    parser.add_argument("--weights", default="bf16", help="what the engine converts the file to on a CPU, or `file`")
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--flash", action="store_true")
    parser.add_argument("--kv", default=None, help="numbers of the KV cache; as the engine chooses if not given")
    arguments = parser.parse_args()
    arguments.weights = None if arguments.weights == "file" else arguments.weights
    # llama-cpp-python's class writes to the terminal whatever it is told.
    silent = C.llama_log_callback(lambda *_: None)
    C.llama_log_set(silent, ctypes.c_void_p(0))
    setting = Setting(arguments)
    figures = {
        "machine": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "threads": setting.threads,
        "gpu_layers": arguments.gpu_layers,
        "llama_cpp_python": llama_cpp.__version__,
        "model": os.path.basename(setting.path),
        "weights": setting.weights or "file",
        "users_per_minute_vs_naive": None,
        "of_compute_ceiling": None,
        "prefix_sharing": None,
        "decode_of_raw_16": None,
        "grammar_cost": None,
    }
    for name in arguments.only.split(","):
        figures |= SECTIONS[name](setting)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
