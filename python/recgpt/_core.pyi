"""The compiled kernels. Written by hand, checked against the binary by stubtest."""

from typing import Final, final

import numpy as np
import numpy.typing as npt

build_profile: Final[str]
"""`"release"` or `"debug"`."""

@final
class Tokenizer:
    """Counts and encodes text exactly as one model does; control tokens in the text are plain text."""

    @staticmethod
    def bytes() -> Tokenizer:
        """Make one token a UTF-8 byte."""
    @staticmethod
    def bpe(tokens: list[str], merges: list[str], pre: str) -> Tokenizer:
        """Make a byte-level BPE; `tokens[i]` is the text of id `i`, a merge is two texts with a space between."""
    def count(self, texts: list[str]) -> npt.NDArray[np.uint32]:
        """Count tokens: `(len(texts),) uint32`."""
    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Encode: `(n_tokens,) uint32`."""
