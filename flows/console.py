"""What a person sees while work goes on: one line per stage, with a bar, a count and an ETA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import TaskID as BarID


class Bars:
    """Progress sink that draws one bar per stage. Calls may come from any thread (Rich locks)."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bars: dict[str, BarID] = {}

    def start(self, stage: str, total: int) -> None:
        """Add a bar, or ``total`` more units to the one there is."""
        if stage not in self.bars:
            self.bars[stage] = self.progress.add_task(stage, total=total, note="")
        else:
            bar = self.bars[stage]
            self.progress.update(bar, total=(self.progress.tasks[bar].total or 0) + total)

    def advance(self, stage: str, units: int = 1, note: str = "") -> None:
        """Move the bar."""
        if stage in self.bars:
            self.progress.update(self.bars[stage], advance=units)
            self._note(stage, note)

    def finish(self, stage: str, note: str = "") -> None:
        """Fill the bar."""
        if stage in self.bars:
            bar = self.bars[stage]
            self.progress.update(bar, completed=self.progress.tasks[bar].total)
            self._note(stage, note)

    def _note(self, stage: str, note: str) -> None:
        if note:
            self.progress.update(self.bars[stage], note=note)


class Lines:
    """Progress sink where output is not a terminal: a line when a stage starts, at each tenth, and at its end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.totals: dict[str, int] = {}
        self.done: dict[str, int] = {}

    def start(self, stage: str, total: int) -> None:
        """Say what begins."""
        new = stage not in self.totals
        self.totals[stage] = self.totals.get(stage, 0) + total
        self.done.setdefault(stage, 0)
        if new:
            self.console.print(f"{stage}: started", highlight=False)

    def advance(self, stage: str, units: int = 1, note: str = "") -> None:
        """Say so at each tenth of the way."""
        if stage not in self.totals:
            return
        total = max(1, self.totals[stage])
        before, self.done[stage] = self.done[stage], self.done[stage] + units
        if self.done[stage] * 10 // total > before * 10 // total and self.done[stage] < total:
            self.console.print(
                f"{stage}: {self.done[stage]} of {total}" + (f", {note}" if note else ""), highlight=False
            )

    def finish(self, stage: str, note: str = "") -> None:
        """Say that it is done, if it ever began."""
        if stage not in self.totals:
            return
        self.console.print(f"{stage}: done" + (f", {note}" if note else ""), highlight=False)


@contextmanager
def showing_progress(quiet: bool) -> Iterator[Console]:
    """Show progress on standard error for the block, unless ``quiet``; standard output stays for results."""
    from tasks import progress as tasks_progress

    console = Console(stderr=True, quiet=quiet)
    try:
        if quiet or not console.is_terminal:
            tasks_progress.show_with(tasks_progress.Silence() if quiet else Lines(console))
            yield console
            return
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bars:
            tasks_progress.show_with(Bars(bars))
            yield console
    finally:
        tasks_progress.show_with(tasks_progress.Silence())
