"""Stage 3 of 8: behaviors -> history.

One text a user, as short as it can be and never longer than a budget (paper section 2.1.1). `brief` shortens each item
once, `compress` groups a user's events into lines, `expand` reads a text back:

    17-11 (purchase), 17-12-03 (purchase, cart) | Earl Grey, "oat milk", Teapot

Buckets are calendar units of the local date: a day up to 30 days before `now`, a month up to 365, else a year. An edge
that cuts a month leaves its older days in the month's bucket and its newer ones as days. Lines, contexts and entries
stand oldest first. Events without a timestamp form the bucket `undated`, which stands first.
"""

from recgpt.history.briefs import BriefConfig, brief
from recgpt.history.catalogue import Catalogue, catalogue
from recgpt.history.compression import LAYOUTS, UNDATED, compress, expand, multiset
from recgpt.history.crossing import NOTHING, OTHER
from recgpt.history.rows import rows
from recgpt.history.state import State
from recgpt.history.wording import plain

__all__ = [
    "LAYOUTS",
    "NOTHING",
    "OTHER",
    "UNDATED",
    "BriefConfig",
    "Catalogue",
    "State",
    "brief",
    "catalogue",
    "compress",
    "expand",
    "multiset",
    "plain",
    "rows",
]
