"""Shows a run on standard error, so that standard output stays for results."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Terminal:
    """A watch with one progress bar for the running stage, on a terminal, and one line for each that is done."""

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

    def begin(self, stage: str, doing: str) -> None:
        """Start a bar without a known length."""
        self.stop()
        if self.console.is_terminal:
            self.bar.start()
            self.task = self.bar.add_task(f"[bold]{stage:<13}[/] {doing}", total=None)

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
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
