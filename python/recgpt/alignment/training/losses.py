"""What is learned: the likelihood of texts, and right answers before wrong ones.

Of a text, the mean over its tokens of -log p. Of a ranking sample with the right answer a and the wrong ones W,

    -log( exp(s_a / t) / (exp(s_a / t) + sum over w in W of exp(s_w / t)) )  +  likelihood * (-s_a)

where s is the mean log-probability of an answer's tokens, the very figure by which an engine ranks candidates
(`llm.engine.ScoreResult.means`), and t the temperature. A prompt counts once, however many answers it has.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recgpt.alignment.training.trees import Row


def means(logits: Tensor, row: Row) -> Tensor:
    """Give the mean log-probability of each answer of a row.

    Args:
        logits: (m, vocabulary) at `row.source`.
        row: whose answers.

    Returns:
        (answers,) float32, in nats a token.
    """
    place = logits.device
    target = torch.from_numpy(row.target).to(place)
    of = torch.from_numpy(row.of).to(place)
    found = -torch.nn.functional.cross_entropy(logits.float(), target, reduction="none")
    count = int(row.of[-1]) + 1
    sums = torch.zeros(count, device=place).index_add(0, of, found)
    return sums / torch.bincount(of, minlength=count)


def of_trees(scores: Tensor, row: Row, *, temperature: float, likelihood: float) -> Tensor:
    """Give the loss of each tree of a row: (trees,), the mean over its samples.

    Args:
        scores: what `means` gave.
        row: the same row.
        temperature: of ranking samples.
        likelihood: weight of a right answer's own likelihood there.
    """
    losses, first = [], 0
    for tree in row.trees:
        own = scores[first : first + len(tree.answers)]
        first += len(tree.answers)
        parts = []
        for answer, others in tree.wanted:
            if others:
                against = torch.cat([own[answer : answer + 1], own[list(others)]]) / temperature
                parts.append(torch.logsumexp(against, 0) - against[0] - likelihood * own[answer])
            else:
                parts.append(-own[answer])
        losses.append(torch.stack(parts).mean())
    return torch.stack(losses)


def auc(scores: Tensor, row: Row) -> list[float]:
    """Give for each tree with ranking samples the share of (right, wrong) pairs in order; ties count half."""
    found, first = [], 0
    for tree in row.trees:
        own = scores[first : first + len(tree.answers)].detach().cpu().numpy()
        first += len(tree.answers)
        right = sorted({answer for answer, others in tree.wanted if others})
        wrong = sorted({other for _, others in tree.wanted for other in others} - set(right))
        if right and wrong:
            gaps = own[right][:, None] - own[wrong][None, :]
            found.append(float(np.mean((gaps > 0) + 0.5 * (gaps == 0))))
    return found
