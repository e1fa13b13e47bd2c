"""Shows a run on standard error, so that standard output stays for results."""

from __future__ import annotations

from threading import Event, Thread
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

EVERY = 15.0
"""Seconds between two lines of a running stage where there is no terminal: a log file shows that the run lives."""


class Terminal:
    """A watch with one progress bar for the running stage and one line for each that is done.

    Without a terminal a plain line every now and then stands for the bar.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self.task: TaskID | None = None
        self.far = (0, 0)
        self.over = Event()
        self.teller: Thread | None = None

    def begin(self, stage: str, doing: str) -> None:
        """Start a bar without a known length."""
        self.stop()
        if self.console.is_terminal:
            self.bar.start()
            self.task = self.bar.add_task(f"[bold]{stage:<13}[/] {doing}", total=None)
        else:
            self.far, self.over = (0, 0), Event()
            # A thread, because the longest steps of a stage call nobody while they work.
            self.teller = Thread(target=self._tell, args=(f"{stage:<13} {doing}", self.over), daemon=True)
            self.teller.start()

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
        self.far = (done, total)
        if self.task is not None:
            self.bar.update(self.task, completed=done, total=total)

    def end(self, stage: str, summary: str) -> None:
        """Replace the bar by a line."""
        self.stop()
        self.console.print(f"[bold green]{stage:<13}[/] {summary}", markup=True, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away; the terminal is as it was."""
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
            self.bar.stop()
        self.over.set()
        if self.teller is not None:
            self.teller.join()
            self.teller = None

    def _tell(self, doing: str, over: Event) -> None:
        """Say how far the stage is, until it is over."""
        begun = monotonic()
        while not over.wait(EVERY):
            done, total = self.far
            part = f"{done:,} of {total:,}, " if total else ""
            self.console.print(f"{doing}: {part}{monotonic() - begun:,.0f} s", markup=False, soft_wrap=True)
