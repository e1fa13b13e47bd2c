"""Text that can stand in a history line."""

from __future__ import annotations

import re

from recgpt.text import MAX_CHARS, clean

# A `▁` is a space to SentencePiece tokenizers, and would make counts depend on what stands beside it.
_SEPARATOR = re.compile(r'[,|"\s▁]+')
_THOUSANDS = re.compile(r"(?<=\d),(?=\d)")
_COUNT, _NUMBER = re.compile(r" x(\d+)$"), re.compile(r" #(\d+)$")
_UNPLAIN = re.compile(r'[,|"▁\x00-\x1f\x7f-\x9f]|^\s|\s$|\s\s|[^\S ]| [x#]\d+$')


def is_plain(text: str) -> bool:
    """Tell whether a text can stand in a history line as it is."""
    return not _UNPLAIN.search(text) and any(map(str.isalnum, text))


def plain(text: str | None, limit: int = MAX_CHARS) -> str:
    """Make a text that can stand in a history line: no comma, bar, quote, line break, nor ` x3` or ` #2` at its end.

    >>> plain('Pencils, "soft" #2')
    'Pencils soft no. 2'
    """
    text = text or ""
    if len(text) <= limit and text.isascii() and is_plain(text):
        return text
    if not (text.isascii() and text.isprintable()):
        text = clean(text)
    text = _SEPARATOR.sub(" ", _THOUSANDS.sub("", text)).strip()
    if len(text) > limit:
        # A cut word tells little; a text without spaces has to be cut inside.
        text = text[: limit + 1].rpartition(" ")[0] or text[:limit]
    text = _NUMBER.sub(r" no. \1", _COUNT.sub(r" ×\1", text))
    return text if any(map(str.isalnum, text)) else ""
