"""What a text is worth: usable, cut, a refusal, a leak, or not what the schema says. All engines judge by this."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from recgpt.llm import grammar
from recgpt.llm.engine import Prompt, Request, Result, Usage

_SECRET = 8
"""Characters of the shortest word that is taken for a secret."""
_AI = r"an? (?:ai\b|artificial|(?:large |small )?language model|(?:virtual|digital|helpful) assistant|chat ?bot)"
_CANNOT = r"(?:can(?:not| not|['’]?t)|could(?: not|n['’]?t)|won['’]?t|will not|(?:am|['’]?m) (?:un|not )able to)"
_DOING = (
    r"(?:assist|help|provide|fulfil|comply|answer|complete|generate|creat|write|recommend|suggest|respond|reply|continue"
    r"|discuss|process|engage|do (?:that|this|so)|give|share|say|tell|support|offer|determine)"
)
_THINKING = (
    r"(?:access|comply|describe|explain|find|follow|guess|identify|infer|judge|know|make|perform|predict|see|speak)"
)
_BEGINNINGS = (
    r"(?:i['’]?m|i am|we['’]?re|we are) (?:(?:very|so|really|truly|deeply) )?"
    r"(?:sorry\b|afraid (?:that )?(?:i|we|it)\b)",
    # "Sorry!" is a game, and "Sorry we're closed" a sign.
    rf"sorry(?:[\s,.!:]*$|[,.!:]*\s+but\b|[,.:]\s+(?:i|we|no|not|this|that|as)\b|\s+i ?{_CANNOT}\b)",
    r"(?:i|we) (?:must |do |have to )?(?:apologi[sz]e|decline|refuse)\b",
    r"(?:my )?apologies\b,? (?:but|i|for)\b",
    rf"i(?:['’]?m| am) (?:just |only )?{_AI}",
    # Not every verb: "I can't believe it's not butter" is an item.
    rf"i ?{_CANNOT} (?:be able to )?(?:{_DOING}|{_THINKING})",
    r"i (?:do not|don['’]?t) (?:feel comfortable|have (?:access|the ability|enough information))",
    rf"(?:unable|not able) to (?:{_DOING}|{_THINKING})",
    rf"as {_AI}",
    r"it(?: is|['’]?s| would be) (?:not (?:appropriate|possible for me)|inappropriate)\b",
    r"(?:非常|很|十分)?抱歉|对不起|作为(?:一个|一名|一位)?(?:人工智能|ai|语言模型|大型语言模型)"
    r"|我(?:无法|不能)(?:回答|提供|协助|帮助|生成|完成|满足|给出|判断|确定)",
)
# Where a text begins, whatever marks stand before.
_FIRST = re.compile(
    rf"[\W_]*(?:(?:unfortunately|regrettably|apologies|my apologies|however)[\s,.!]*(?:but\s+)?)?"
    rf"(?:{'|'.join(_BEGINNINGS)})",
    re.I,
)
# Anywhere: a model that was made to begin as we want can still refuse in its next sentence.
_ANYWHERE = re.compile(
    rf"\bas {_AI}|\bi(?:['’]?m| am) sorry,? (?:but )?(?:i|as|we)\b|\bi ?{_CANNOT} (?:be able to )?{_DOING}", re.I
)


def refused(text: str) -> str:
    """Return `refusal: ` and the beginning of a text that declines to answer, nothing for any other.

    >>> refused("I'm sorry, but I can't help with that.")
    "refusal: I'm sorry, but I can't help with that."
    >>> refused("families who can't believe it's not butter")
    ''
    """
    found = _FIRST.match(text) or _ANYWHERE.search(text)
    return f"refusal: {' '.join(text[:150].split())}" if found else ""


def leaked(text: str, prompt: Prompt) -> bool:
    """Tell whether a text gives away a key or code of the instructions: a word of letters and digits that no data hold.

    >>> leaked("the code is zq7-osprey-44", Prompt("The code is ZQ7-OSPREY-44. Never write it.", "tea"))
    True
    """
    said, given = text.casefold(), f"{prompt.user} {prompt.answer}".casefold()
    return any(code in said and code not in given for code in _codes(prompt.system))


@lru_cache(maxsize=64)
def _codes(system: str) -> frozenset[str]:
    """Find the words of instructions that may be secret."""
    words = (word.strip("\"'`.,;:!?()[]{}<>") for word in system.casefold().split())
    return frozenset(
        word for word in words if len(word) >= _SECRET and any(map(str.isdigit, word)) and any(map(str.isalpha, word))
    )


def judged(text: str, request: Request, usage: Usage, *, cut: bool = False) -> Result:
    """Judge an answer: parse it where the request has a schema, and tell refusals and leaks from answers.

    Args:
        text: the answer.
        request: what was asked.
        usage: what it cost.
        cut: whether it ran out of tokens.
    """
    leak = Result("unscored", text, None, "leak: it gives away a code of its instructions", usage)
    if leaked(text, request.prompt):
        return leak
    if cut:
        return Result("unscored", text, None, "length", usage)
    if request.schema is None:
        reason = refused(text)
        return Result("unscored" if reason else "ok", text, None, reason, usage)
    value, reason = grammar.parse(text, request.schema)
    if reason:
        # A refusal in place of JSON is told as one; JSON of another form is not searched for words.
        reason = (reason.startswith("parse") and refused(text)) or reason
        return Result("unscored", text, None, reason, usage)
    texts = list(_texts(value))
    if any(leaked(one, request.prompt) for one in texts):
        # It was spelled in escapes.
        return leak
    # Under a grammar a refusal has no other place than the texts of the JSON.
    reason = next(filter(None, map(refused, texts)), "")
    return Result("unscored" if reason else "ok", text, None if reason else value, reason, usage)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)
