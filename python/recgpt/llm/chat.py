"""Turn a `Prompt` into tokens by the model's own chat template; text inside it never becomes a control token."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from recgpt.errors import EngineError
from recgpt.llm.engine import Prompt

# Letters only: no template or tokenizer rule trims or escapes them.
_SYSTEM, _USER = "SYSTEMcvqzwxjPLACE", "USERcvqzwxjPLACE"

Tokenize = Callable[..., list[int]]
"""`tokenize(text, special=bool) -> tokens`."""


def _refuse(message: str) -> str:
    raise TemplateError(message)


class Chat:
    """A chat template, rendered once with placeholders; the contents are put between its parts as plain text.

    The parts of the template are tokenized with control tokens, the contents without: `<|im_end|>` in a title is six
    or so plain tokens. A model without a system turn gets the instructions at the head of the user's turn. Contents are
    stripped of surrounding white space, as most templates do.
    """

    def __init__(self, template: str | None, tokenize: Tokenize, *, bos: str = "", eos: str = "") -> None:
        if not template:
            raise EngineError("the GGUF carries no tokenizer.chat_template: give an instruct model")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda pattern: "2025-01-01"
        system = {"role": "system", "content": _SYSTEM}
        user = {"role": "user", "content": _USER}
        merged = {"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}
        for messages in ([system, user], [merged]):
            try:
                text = environment.from_string(template).render(
                    messages=messages,
                    add_generation_prompt=True,
                    bos_token=bos,
                    eos_token=eos,
                    tools=None,
                    enable_thinking=False,
                )
            except TemplateError as error:
                failure: object = error
                continue
            if text.count(_SYSTEM) == text.count(_USER) == 1 and text.index(_SYSTEM) < text.index(_USER):
                break
            failure = "it does not write the system and user texts once each, in that order"
        else:
            raise EngineError(f"the model's chat template cannot be used: {failure}")
        head, rest = text.split(_SYSTEM)
        middle, tail = rest.split(_USER)
        self._plain = lru_cache(maxsize=64)(lambda content: tuple(tokenize(content, special=False)))
        self._tokenize = tokenize
        self._head, self._middle, self._tail = (tokenize(part, special=True) for part in (head, middle, tail))

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the tokens of the whole prompt, the forced beginning of the answer included."""
        return [
            *self._head,
            # Instructions are shared by the requests of a stage; the others differ.
            *self._plain(prompt.system.strip()),
            *self._middle,
            *self._tokenize(prompt.user.strip(), special=False),
            *self._tail,
            *self._tokenize(prompt.answer, special=False),
        ]
