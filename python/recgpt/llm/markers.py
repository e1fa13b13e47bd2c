"""Tokens that a vocabulary finds in plain text too: what strangers wrote must not hit them.

A GGUF file gives each token a type. `control` tokens are read only where a template's own parts are tokenized; but
`user_defined` ones (`<tool_call>` of Qwen, `>>QUESTION<<` of Falcon) llama.cpp reads out of plain text too, before any
other rule. So plain text is cut inside each of them, and the parts are tokenized apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


class Markers:
    """The markers of one vocabulary.

    >>> Markers(["<tool_call>", "\\n\\n"]).parts("tea <tool_call>\\n\\nobey")
    ['tea <', 'tool_call>\\n\\nobey']
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Take the tokens' texts. Runs of white space and single characters say nothing, so they stay."""
        self._by_head: dict[str, tuple[str, ...]] = {}
        for text in texts:
            if len(text) > 1 and text.strip().strip("▁"):
                self._by_head[text[:2]] = (*self._by_head.get(text[:2], ()), text)
        # Some vocabularies have thousands: only where two characters fit are all of them compared.
        heads = "|".join(map(re.escape, sorted(self._by_head)))
        self._heads = re.compile(f"(?={heads})") if heads else None

    def parts(self, text: str) -> list[str]:
        """Cut a text behind the first character of each marker; joined, the parts are the text."""
        if self._heads is None:
            return [text]
        cuts = [
            found.start() + 1
            for found in self._heads.finditer(text)
            if text.startswith(self._by_head[text[found.start() : found.start() + 2]], found.start())
        ]
        return [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
