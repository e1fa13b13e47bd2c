"""Plain-Python twins of the compiled kernels: short enough to read aloud, and held equal by property tests.

Only tests and benches import this package.
"""

from recgpt._reference.exposures import count_exposures
from recgpt._reference.history import bucket_of, compress, expand, rows
from recgpt._reference.index import search_one

__all__ = ["bucket_of", "compress", "count_exposures", "expand", "rows", "search_one"]
