"""The command line: one command a stage, and the questions that people ask of a bundle."""

from recgpt.cli import align, desk, incremental, judge, judge_training, milestone, review, teaching, training
from recgpt.cli.commands import app, main

app.add_typer(judge.commands, name="judge")
app.add_typer(align.commands, name="align")

__all__ = ["app", "desk", "incremental", "judge_training", "main", "milestone", "review", "teaching", "training"]
