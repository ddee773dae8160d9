"""How tasks tell a person how far they are: one sink, set by whoever shows it, silent by default."""

from __future__ import annotations

from typing import Protocol


class ProgressSink(Protocol):
    """Shows progress. Calls come from several threads."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins, or finds that it has ``total`` more units to do."""

    def advance(self, stage: str, units: int = 1, note: str = "") -> None:
        """``units`` of a stage are done."""

    def finish(self, stage: str, note: str = "") -> None:
        """A stage is done."""


class Silence:
    """The sink that shows nothing."""

    def start(self, stage: str, total: int) -> None:
        """Nothing."""

    def advance(self, stage: str, units: int = 1, note: str = "") -> None:
        """Nothing."""

    def finish(self, stage: str, note: str = "") -> None:
        """Nothing."""


_sink: ProgressSink = Silence()


def show_with(sink: ProgressSink) -> None:
    """Send progress to ``sink`` from now on."""
    global _sink
    _sink = sink


def sink() -> ProgressSink:
    """The sink in use."""
    return _sink
