"""Stage 3 from four threads at once: the same histories as from one."""

from __future__ import annotations

import threading

from test_history import BRIEFS, BYTES, NOW, events

from recgpt import history


def test_the_kernel_runs_from_four_threads():
    log = events(*[(f"u{row % 50}", str(row % 4 + 1), "cart", f"20{10 + row % 8}-03-01") for row in range(2000)])
    want = history.compress(log, BRIEFS, now=NOW, tokenizer=BYTES, threads=1)
    barrier, results = threading.Barrier(4), []

    def work() -> None:
        barrier.wait()
        results.append(history.compress(log, BRIEFS, now=NOW, tokenizer=BYTES, threads=2))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == want for result in results)
