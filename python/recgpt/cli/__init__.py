"""The command line: one command a stage, and the questions that people ask of a bundle."""

from recgpt.cli import desk
from recgpt.cli.commands import app, main

__all__ = ["app", "desk", "main"]
