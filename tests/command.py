"""The command line, called in this process."""

import sys

import pytest

from recgpt.cli import main


def say(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Give what a command prints; of one that fails the line on standard error, beside which it printed nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recgpt", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
    printed = capsys.readouterr()
    assert (stopped.value.code or 0) == status, printed.err
    assert not (status and printed.out)
    return printed.err if status else printed.out
