"""A generated world whose truth is known: what each shopper wants, why each event happened, what should be shown next.

Interests that come and go, seasons, gifts, necessities, promotions and accidents leave every behavior of the paper in
one log. The tables of `truth` say which is which, so that mined interests, tags and answers can be scored.
"""

from recgpt.datasets.world.config import START, Config
from recgpt.datasets.world.generate import LOG, Shard, World, load, number, planted
from recgpt.datasets.world.shop import write_csv
from recgpt.datasets.world.stream import Streamed, stream

__all__ = ["LOG", "START", "Config", "Shard", "Streamed", "World", "load", "number", "planted", "stream", "write_csv"]
