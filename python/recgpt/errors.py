"""Every error that recgpt raises. A message says what was expected, what came, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence


class RecGPTError(Exception):
    """Root of all errors that recgpt raises on purpose."""


class InputError(RecGPTError):
    """Something that the caller handed in is not usable."""


class InvalidTableError(InputError):
    """A table misses columns or holds values of a wrong type; the message names every defect at once."""


class EmptyLogError(InputError):
    """A log holds no event that a stage could use."""


class NaiveTimestampError(InputError):
    """Timestamps carry no time zone and none was stated."""


class TimestampRangeError(InputError):
    """A timestamp lies outside the years 1970 to 9999."""


class UnknownBehaviorError(InputError):
    """A behavior is neither one of recgpt's nor mapped to one."""


class InvalidArrayError(InputError):
    """An array has the wrong shape, dtype or content (NaN, infinity, overflow)."""


class InvalidConfigError(InputError):
    """A configuration file or argument does not fit; the message names the key."""


class DatasetNotFoundError(InputError):
    """A data set, its folder or its package is not there."""


class ModelNotFoundError(InputError):
    """A model path does not exist or is not a GGUF file."""


class TokenizerError(RecGPTError):
    """A tokenizer cannot be built from what the model carries."""


class PromptError(RecGPTError):
    """A prompt file has a wrong header or misses a slot."""


class SchemaError(RecGPTError):
    """A JSON schema lies outside the subset that becomes a grammar."""


class EngineError(RecGPTError):
    """The LLM engine failed in a way that a retry did not mend."""


class LedgerError(RecGPTError):
    """The ledger of LLM calls is locked by another run or damaged."""


class JudgeError(RecGPTError):
    """Labels, verdicts or a buffer of the judge do not fit together; nothing of what was there is changed."""


class BundleError(RecGPTError):
    """A bundle is missing, incomplete or corrupt."""


class AlignmentError(RecGPTError):
    """Training samples, a training or an export cannot be made as asked."""


class UnknownUserError(RecGPTError):
    """A user is in none of the tables that were asked."""


class UnknownItemError(RecGPTError):
    """An item is neither in the catalogue of a bundle nor among what it may answer."""


class MissingExtraError(RecGPTError, ImportError):
    """An optional package is not installed; the message gives the pip line."""


def together(found: Sequence[InputError], counted: Sequence[str] = ()) -> InputError:
    """Give several errors as one of a single line, so that one round of mending is enough.

    One alone keeps its class and its words. Several of one class keep the class, else they become an
    `InvalidTableError`.

    Args:
        found: at least one.
        counted: what would be no error by itself, but should be known in the same round.
    """
    if len(found) == 1 and not counted:
        return found[0]
    kinds = {type(error) for error in found}
    kind = kinds.pop() if len(kinds) == 1 else InvalidTableError
    parts = [f"({place}) {part}" for place, part in enumerate([*map(str, found), *counted], start=1)]
    said = f"to mend: {'; '.join(parts[: len(found)])}"
    return kind(f"{said}; only counted: {'; '.join(parts[len(found) :])}" if counted else said)
