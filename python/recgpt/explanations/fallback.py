"""Interest-free texts by rule: the fallback for items for which the model wrote none, or was not asked.

Such a text names the item and says that the shop has it, and nothing else, so that nothing in it can be invented. Its
row says `source="rule"` and does not run out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

from recgpt import schema
from recgpt.explanations import checkers
from recgpt.phrases import chinese, claims
from recgpt.text import clean

_FORM, _NAMELESS = "{name}, from this store's catalogue", "An item from this store's catalogue"
_CHINESE_FORMS = ("{name}，本店在售", "{name}，本店在售商品")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def own_words(tag: str, category: str, said: str) -> str:
    """Leave out of a tag what it claims by its category's name alone.

    >>> own_words("nut natural snack", "Packaged Natural Snacks", "Nuts"), own_words("organic milk", "MILK", "Org Milk")
    ('nut snack', 'organic milk')
    """
    if not claims(tag):
        return tag
    borrowed = claims(category) - claims(said)
    return " ".join(word for word in tag.split() if not claims(word) & borrowed)


def by_rule(items: pa.Table, tag_of: Mapping[str, str]) -> pa.Table:
    """Give each item its text.

    Args:
        items: `schema.ITEMS`.
        tag_of: the items' own tags; an item without one is called by the first words of its title.

    Returns:
        `schema.EXPLANATIONS`, in the order of the items, without interests.
    """
    known: dict[tuple[str, str, str], str] = {}
    texts = []
    columns = (items[name].to_pylist() for name in ("item_id", "title", "category", "attributes"))
    for item, title, category, attributes in zip(*columns, strict=True):
        tag = tag_of.get(item, "")
        # Where the tag claims nothing, title and category change nothing.
        key = (tag, "", "") if tag and not claims(tag) else (tag, f"{title or ''} ; {attributes or ''}", category or "")
        if key not in known:
            named = own_words(clean(tag, limit=60), key[2], key[1]) or " ".join(clean(title).split(",")[0].split()[:5])
            known[key] = text_of(named)
        texts.append(known[key])
    rows = len(texts)
    return pa.Table.from_arrays(
        [
            pa.nulls(rows, pa.large_string()),
            items["item_id"],
            pa.array(texts, pa.large_string()),
            pa.array(["rule"] * rows, pa.large_string()),
            pa.nulls(rows, schema.TIMESTAMP),
        ],
        schema=schema.EXPLANATIONS,
    )


def text_of(name: str) -> str:
    """Write the text of one name: its words only, no mark that could be markup, in the length of all texts.

    >>> text_of("gasoline unleaded"), text_of("")
    ("Gasoline unleaded, from this store's catalogue", "An item from this store's catalogue")
    """
    if chinese(name):
        letters = "".join(_WORD.findall(name))
        # The core word stands last, so a long name loses its first characters.
        versions = [letters[start:] for start in range(len(letters))]
        tries = [form.format(name=version) for version in versions for form in _CHINESE_FORMS]
    else:
        words = _WORD.findall(name)[-checkers.MAX_WORDS + 4 :]
        tries = [_FORM.format(name=f"{own[:1].upper()}{own[1:]}") for own in [" ".join(words)] if own]
    fit = (text for text in tries if not checkers.right_length(text) and not checkers.no_personal_data(text))
    return next(fit, _NAMELESS)
