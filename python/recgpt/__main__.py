"""`python -m recgpt` is `recgpt`."""

from recgpt.cli import main

main()
