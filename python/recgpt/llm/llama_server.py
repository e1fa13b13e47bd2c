"""How llama.cpp's own llama-server is asked: by tokens, not by chat messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from recgpt.llm import grammar
from recgpt.llm.answers import judged
from recgpt.llm.chat import Chat
from recgpt.llm.dialects import SEEDS, Ask, logprob_of, number, refusal, storable, tokens_of
from recgpt.llm.engine import Prompt, Request, Result, Usage
from recgpt.llm.remote import Malformed, Refused, Remote


class LlamaServerDialect:
    """llama-server: the model's chat template and tokens made here, as in the `llama_cpp` engine, grammar included.

    So text from strangers is tokenized as plain text, a forced beginning is exact, and answers under a schema follow
    the very grammar that the local engine uses. The chat call would tokenize control tokens inside user text.
    """

    name = "llama-server"
    scores = True

    def __init__(
        self,
        server: Remote,
        model: str,
        context_tokens: int,
        identity: str,
        extra: Mapping[str, Any],
        *,
        template: str | None,
        bos: str,
        eos: str,
    ) -> None:
        self.server = server
        self.model = model
        self.context_tokens = context_tokens
        self.identity = identity
        self.extra = dict(extra)
        self._chat = Chat(template, self._tokens, bos=bos, eos=eos)
        # A candidate's tokens, and the lines of histories that stages count again and again.
        self._plain = lru_cache(maxsize=4096)(lambda text: tuple(self._tokens(text)))

    def generate(self, ask: Ask, request: Request) -> Result:
        """Answer one request."""
        tokens, room = self.encode(ask, request.prompt), request.max_tokens + grammar.reasoning_tokens(request.schema)
        if len(tokens) + room > self.context_tokens:
            reason = (
                f"length: a prompt of {len(tokens)} tokens and {room} for the answer exceed the context of "
                f"{self.context_tokens}"
            )
            return Result("unscored", "", None, reason, Usage(len(tokens)))
        body: dict[str, Any] = {
            "prompt": tokens,
            "n_predict": room,
            "temperature": request.temperature,
            "seed": request.seed % SEEDS,
            "samplers": ["temperature"],
            "stop": [storable(stop) for stop in request.stop],
            "cache_prompt": True,
        }
        if request.schema is not None:
            body["grammar"] = grammar.to_gbnf(request.schema)
        try:
            answer = ask("/completion", body | self.extra)
        except Refused as refused:
            return refusal(refused, Usage(len(tokens)))
        text, ending = answer.get("content"), answer.get("stop_type")
        if not isinstance(text, str) or not isinstance(ending, str):
            raise Malformed("malformed answer: no content or no stop_type")
        usage = self._usage(answer, len(tokens))
        text = storable(text)
        if ending not in ("eos", "word", "limit"):
            raise Malformed(f"malformed answer: it ended with {self.server.scrub(ending)!r}")
        return judged(text, request, usage, cut=ending == "limit")

    def encode(self, ask: Ask, prompt: Prompt) -> list[int]:
        """Return a prompt's tokens."""
        return self._chat.encode(prompt)

    def tokenize(self, ask: Ask, text: str) -> list[int]:
        """Return a plain text's tokens."""
        return list(self._plain(text))

    def step(self, ask: Ask, tokens: Sequence[int], token: int) -> tuple[float, int]:
        """Return the log-probability of `token` after `tokens`, and how many tokens were computed for it."""
        answer = ask(
            "/completion",
            {
                "prompt": list(tokens),
                "n_predict": 1,
                "temperature": 0.0,
                "samplers": ["temperature"],
                # The bias decides what is sampled; the probability is the model's, from before any sampler.
                "logit_bias": [[token, 1e6]],
                "n_probs": 1,
                "post_sampling_probs": False,
                "cache_prompt": True,
            }
            | self.extra,
        )
        try:
            found = answer["completion_probabilities"][0]
            came, logprob = found["id"], found["logprob"]
        except (KeyError, IndexError, TypeError):
            raise Malformed("malformed answer: no completion_probabilities") from None
        if came != token:
            raise Malformed(f"malformed answer: token {token} was forced, {self.server.scrub(str(came))} came")
        return logprob_of(logprob), self._usage(answer, len(tokens)).computed_tokens

    def _tokens(self, text: str, *, special: bool = False) -> list[int]:
        if not text:
            return []
        # Lone surrogates are no UTF-8; the local engine reads them as question marks too.
        text = storable(text)
        return tokens_of(
            self.server.call("/tokenize", {"content": text, "add_special": False, "parse_special": special})
        )

    def _usage(self, answer: dict[str, Any], prompt: int) -> Usage:
        """Read what the server counted, and hold it against what we sent."""
        read = number(answer.get("tokens_evaluated"))
        if read != prompt or answer.get("truncated") is True:
            raise Malformed(f"malformed answer: the server read {read} of {prompt} prompt tokens")
        timings = answer.get("timings")
        computed = number(timings.get("prompt_n")) if isinstance(timings, dict) else prompt
        return Usage(prompt, computed, number(answer.get("tokens_predicted")))
