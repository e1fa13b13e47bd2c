"""How fast is the engine, and how much do batching and shared prefixes give over one call after another?

    python benches/llm.py [--model PATH] [--threads N] [--weights q8_0|f16|bf16] [--quick]

The demo's four shapes come first: a prompt of 1,700 tokens; 40 candidates of 8 tokens after it; 200 candidates of 6
tokens after 1,000; 24 texts of 20 tokens that share 1,700. Then decoding at 1, 16 and 32 sequences, and the plain loop
over `create_chat_completion`. `cpu` is the child's own processor time, which a busy machine does not change: with one
thread it is what the wall clock says on a quiet one. The last line is one JSON object.
"""

import argparse
import json
import os
import time
from pathlib import Path

from recgpt.llm import LlamaCpp, default_model_path
from recgpt.llm.engine import Prompt, Request, ScoreRequest

_TEXT = "milk chocolate baby garden tools coffee pasta grill party snacks frozen dinner cat food oat tea"
WORDS = tuple(_TEXT.split(" "))


def processor_seconds(pid):
    """Return user and system time of a process so far; 0 where there is no /proc."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def history(engine, tokens):
    """Return lines that count about `tokens`."""
    lines, count = [], 0
    while count < tokens:
        at = len(lines)
        line = (
            f"r{at} 17-{at % 12 + 1:02d} (purchase) | {WORDS[at % 16]} {WORDS[at * 5 % 16]}, {WORDS[at * 7 % 16]} bar"
        )
        lines.append(line)
        count += engine.count_tokens([line + "\n"])[0]
    return "\n".join(lines[:-1])


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--quick", action="store_true", help="the demo's four shapes only")
    arguments = parser.parse_args()
    path = arguments.model or default_model_path()
    engine = LlamaCpp(path, threads=arguments.threads, weights=arguments.weights)
    out = {"model": engine.name, "threads": arguments.threads, "cores": os.cpu_count(), "load": os.getloadavg()[0]}

    def timed(label, call):
        before, begin, worked = engine.stats, time.perf_counter(), processor_seconds(engine.pid)
        call()
        seconds = time.perf_counter() - begin
        used = {key: value - before[key] for key, value in engine.stats.items()}
        cpu = processor_seconds(engine.pid) - worked
        out[label] = {"seconds": round(seconds, 2), "cpu": round(cpu, 2), **used}
        print(
            f"{label:28} {seconds:7.2f} s  cpu {cpu:6.2f} s  {used['decoded_tokens'] / seconds:6.0f} tokens/s  {used}",
            flush=True,
        )
        return seconds, used

    long, short = history(engine, 1650), history(engine, 960)
    forty, many = candidates(engine, 40, 8), candidates(engine, 200, 6)
    # Warm-up with another beginning, so that nothing is shared with what is measured.
    engine.score([ScoreRequest(Prompt("Warm up.", "x"), (" a",))])
    system = "You say what a shopper wants."
    prompt = Prompt(system, long, "The shopper wants")
    seconds, used = timed("prefill_1700", lambda: engine.score([ScoreRequest(prompt, (" a",))]))
    out["prefill_tokens_per_second"] = round(used["decoded_tokens"] / seconds)
    timed("score_40x8_after_1700", lambda: engine.score([ScoreRequest(prompt, forty)]))
    texts = [Request(Prompt(system, long, f"The shopper's wish {at} is"), 20) for at in range(24)]
    seconds, used = timed("generate_24x20_share_1700", lambda: engine.generate(texts))
    out["prefix_sharing"] = round(1 - used["computed_tokens"] / used["prompt_tokens"], 3)
    other = Prompt("You name tags.", short, "Tag:")
    timed("prefill_1000", lambda: engine.score([ScoreRequest(other, (" a",))]))
    timed("score_200x6_after_1000", lambda: engine.score([ScoreRequest(other, many)]))
    if not arguments.quick:
        for number in (1, 16, 32):
            requests = [Request(Prompt(system, f"Wish {at}: {WORDS[at % 16]}."), 32) for at in range(number)]
            seconds, used = timed(f"decode_at_{number}", lambda requests=requests: engine.generate(requests))
            out[f"decode_at_{number}_tokens_per_second"] = round(used["answer_tokens"] / seconds)
        engine.close()
        from llama_cpp import Llama

        plain = Llama(str(path), n_ctx=4096, n_threads=arguments.threads or os.cpu_count(), verbose=False)
        begin = time.perf_counter()
        for at in range(3):
            messages = [{"role": "system", "content": system}, {"role": "user", "content": f"{long}\nWish {at}?"}]
            plain.create_chat_completion(messages, max_tokens=20, temperature=0)
        seconds = (time.perf_counter() - begin) / 3
        out["plain_loop_seconds_per_text"] = round(seconds, 2)
        out["ours_seconds_per_text"] = round(out["generate_24x20_share_1700"]["seconds"] / 24, 2)
        print(f"plain create_chat_completion: {seconds:.2f} s a text, ours {out['ours_seconds_per_text']:.2f} s")
    engine.close()
    print(json.dumps(out))


if __name__ == "__main__":
    main()
