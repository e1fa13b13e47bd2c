"""How fast is the engine, and what do batches, shared prefixes and grammars give over one call after another?

    python benches/llm.py [--only interests,prefix,prefix_mixed,mixed,decode,choosing,shapes]
    python benches/llm.py --gpu-layers -1 --flash --kv q8_0 --threads 8       # a GPU

`interests`: the prompt of interest mining for 32 users with 400 tokens of history, answers up to 400 tokens (the stage
allows 1,500), greedy and under its grammar, against a loop over `create_chat_completion` that keeps the instructions of
its last call, for the same users. The loop takes the file as it is and, a second time, the same weights as the engine;
the engine answers straight and through the ledger; all work in turns. The compute ceiling is the tokens that must be
computed over the rate at which the engine reads the same prompts. Processor seconds stand beside: on a machine that
others use they are disturbed less.
`prefix`: 300 tokens after 600 that all share, against 900 of which nothing is shared. `prefix_mixed`: 50 to 550 tokens
after them.
`mixed`: long and short requests in one call, against the long ones and the short ones apart; and through the ledger.
`decode`: texts of 64 tokens at 1, 4 and 16 sequences, with and without a grammar, against a loop over
`llama_decode` that chooses nothing. Fewer passes than tokens: guessed tokens were kept.
`choosing`: what choosing a token costs with a grammar and without, on the same logits of the same texts, without
guesses, against raw decoding at 16 sequences.
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

import llama_cpp
import llama_cpp.llama_cpp as C
from llm_bench.choosing import choosing
from llm_bench.mixed import directly, mixed, through_ledger
from llm_bench.raw import raw_decode
from llm_bench.setting import GRAMMAR, WORDS, Setting, cpu, history, in_vain, interest_requests, timed

from recgpt.llm import grammar
from recgpt.llm.engine import Prompt, Request, ScoreRequest


def looped(model, request, gbnf):
    """Answer one request as a loop over llama-cpp-python's class does; seconds, processor seconds, tokens written."""
    messages = [
        {"role": "system", "content": request.prompt.system},
        {"role": "user", "content": request.prompt.user},
    ]
    rules = llama_cpp.LlamaGrammar.from_string(gbnf, verbose=False)
    begun = cpu()
    spent, answer = timed(
        lambda: model.create_chat_completion(messages, max_tokens=request.max_tokens, temperature=0, grammar=rules)
    )
    return spent, cpu() - begun, answer["usage"]["completion_tokens"]


def interests(setting):
    """Mine interests of all users at once against one after another, the same users in every arm."""
    with setting.engine() as engine:
        requests = interest_requests(engine, setting.users)
        same = engine.computed_path
    gbnf = grammar.to_gbnf(GRAMMAR)
    loops = {"as it is": setting.path}
    if str(same) != str(setting.path):
        loops["same weights"] = same
    plain = {name: setting.plain(path) for name, path in loops.items()}
    first = [Request(one.prompt, max_tokens=1, schema=one.schema) for one in requests]
    ours, recorded, reading = [], [], []
    arms = [
        lambda: ours.append(directly(setting, requests)),
        lambda: recorded.append(through_ledger(setting, requests)),
        lambda: reading.append(directly(setting, first)),
    ]
    turns = [arms[at % 3] for at in range(3 * setting.rounds)]
    found = {name: [] for name in loops}
    blocks = max(4, len(turns))
    for block in range(blocks):
        for name, model in plain.items():
            found[name] += [looped(model, request, gbnf) for request in requests[block::blocks]]
        if block < len(turns):
            turns[block]()
            print(f"  turn {block + 1} of {blocks}", flush=True)
    tokens = ours[-1][2]
    spent, busy = (statistics.median(one[place] for one in ours) for place in (0, 1))
    rates = [statistics.median(one[2]["computed_tokens"] / one[place] for one in reading) for place in (0, 1)]
    must = tokens["computed_tokens"] + tokens["answer_tokens"]
    print(
        f"interests of {setting.users} users: {spent:.1f} s, {busy:.1f} CPU s "
        f"({', '.join(f'{one[0]:.1f}' for one in ours)}), "
        f"{tokens['computed_tokens']} prompt tokens computed of {tokens['prompt_tokens']}, "
        f"{tokens['answer_tokens']} written, {tokens['decodes']} passes, {in_vain(tokens)} tokens guessed in "
        f"vain; prompts alone {rates[0]:.0f} tokens/s ({rates[1]:.0f} by CPU)"
    )
    own = statistics.median(one[2] / one[0] for one in recorded)
    print(
        f"  through the ledger: {statistics.median(one[0] for one in recorded):.1f} s, "
        f"{statistics.median(one[1] for one in recorded):.1f} CPU s, {recorded[-1][3]['decodes']} passes, "
        f"{own:.2%} of the time its own"
    )
    ratio, by_cpu = {}, {}
    for name, rows in found.items():
        seconds, used, written = (sum(row[place] for row in rows) / len(rows) for place in range(3))
        ratio[name], by_cpu[name] = seconds * setting.users / spent, used * setting.users / busy
        print(
            f"  one after another, {name}: {seconds:.2f} s a user, {used:.2f} CPU s ({len(rows)} users, {written:.0f} "
            f"tokens written each), together {spent / setting.users:.2f} s and {busy / setting.users:.2f}: "
            f"{ratio[name]:.2f}x, {by_cpu[name]:.2f}x by CPU"
        )
    return {
        "users_per_minute": round(60 * setting.users / spent, 1),
        "users_per_minute_vs_naive": round(ratio["as it is"], 2),
        "users_per_minute_vs_naive_cpu": round(by_cpu["as it is"], 2),
        "users_per_minute_vs_naive_same_weights": round(ratio.get("same weights", ratio["as it is"]), 2),
        "users_per_minute_vs_naive_same_weights_cpu": round(by_cpu.get("same weights", by_cpu["as it is"]), 2),
        "of_compute_ceiling": round(must / rates[0] / spent, 3),
        "of_compute_ceiling_cpu": round(must / rates[1] / busy, 3),
        "prefill_tokens_per_second": round(rates[0]),
        "passes": tokens["decodes"],
        "passes_through_ledger": recorded[-1][3]["decodes"],
        "ledger_own": round(own, 4),
    }


def shared(setting, name, sizes):
    """Read 600 shared tokens and own ones against as many of which nothing is shared; a quarter is read in full."""
    with setting.engine() as engine:
        common = history(engine.count_tokens, 1000, 560)
        own = [history(engine.count_tokens, user, size - 10) for user, size in enumerate(sizes)]
        few = len(sizes) // 4
        groups = (
            [Prompt(common, text) for text in own],
            [Prompt(f"{user} {common}", own[round(user * (len(own) - 1) / (few - 1))]) for user in range(few)],
        )
        lengths = [statistics.mean(engine.prompt_tokens(group)) for group in groups]
    found = ([], [])
    for _ in range(setting.rounds):
        for at, group in enumerate(groups):
            spent, busy, _ = directly(setting, [Request(one, 1) for one in group])
            # The few that are read in full are a little shorter or longer than all.
            found[at].append((spent / len(group) / lengths[at], busy / len(group) / lengths[at]))
    ratio, by_cpu = (
        statistics.median(one[place] for one in found[1]) / statistics.median(one[place] for one in found[0])
        for place in (0, 1)
    )
    print(
        f"prefix, {min(sizes)} to {max(sizes)} own tokens: {lengths[0]:.0f} tokens a prompt; {ratio:.2f}x full "
        f"prefill, {by_cpu:.2f}x by CPU"
    )
    return {name: round(ratio, 2), f"{name}_cpu": round(by_cpu, 2)}


def prefix(setting):
    """Share 600 of 900 tokens."""
    return shared(setting, "prefix_sharing", [300] * 32)


def prefix_mixed(setting):
    """Share 600 of 650 to 1,150 tokens."""
    return shared(setting, "prefix_sharing_mixed", [50 + at * 500 // 31 for at in range(32)])


def written(engine, width, room, form):
    """Write `width` texts of up to `room` tokens after prompts that nobody has read; what it took."""
    texts = [
        Prompt("Count.", f"{random.randrange(10**9):09}", "" if form else f"{100 + at}, {101 + at}, {102 + at},")
        for at in range(width)
    ]
    before = engine.stats
    spent, _ = timed(lambda: engine.generate([Request(one, room, form) for one in texts]))
    return {name: engine.stats[name] - before[name] for name in ("decodes", "answer_tokens")} | {"seconds": spent}


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
                    # Reading the prompts is no decoding, and the engine keeps few of them: a call that reads as many
                    # and writes one token each is taken off.
                    first, long = (written(engine, width, room, form) for room in (1, 1 + steps))
                    passes[name][width] = long["decodes"] - first["decodes"]
                    tokens = long["answer_tokens"] - first["answer_tokens"]
                    assert tokens > 0.9 * width * steps, f"texts ended early: {tokens} tokens"
                    rates[name][width].append(tokens / (long["seconds"] - first["seconds"]))
    middle = {name: {w: statistics.median(found) for w, found in by.items()} for name, by in rates.items()}
    for name, by in middle.items():
        print(f"decode, {name:8}: " + ", ".join(f"{rate:.0f} tokens/s at {width}" for width, rate in by.items()))
    print(f"  passes for {steps} tokens of each text, the last time: {passes}")
    return {
        "decode_of_raw_16": round(middle["plain"][16] / middle["raw"][16], 3),
        "passes_for_64_tokens_16": passes["plain"][16],
        "decode_of_raw_16_grammar": round(middle["grammar"][16] / middle["raw"][16], 3),
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


SECTIONS = {
    "interests": interests,
    "prefix": prefix,
    "prefix_mixed": prefix_mixed,
    "mixed": mixed,
    "decode": decode,
    "choosing": choosing,
    "shapes": shapes,
}


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
    parser.add_argument(
        "--rounds", type=int, default=1, choices=(1, 2), help="how often `interests` and `prefix` time each arm"
    )
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
