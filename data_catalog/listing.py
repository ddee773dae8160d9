"""Folders and what is in them: one that cannot be listed is told of, never taken for an empty one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_catalog.refusals import Reason, Rejected
from data_catalog.source import CheckItem


@dataclass(slots=True)
class Listing:
    """Lists folders, and remembers which could not be.

    Attributes:
        errors: of the folders that could not be listed, each once, in the order in which they came up.
    """

    errors: list[OSError] = field(default_factory=list)

    def walk(self, root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
        """Yield (folder, names of its folders, names of its files), sorted, as :func:`os.walk`.

        Links to folders are not followed. Folders may be taken out of their list: they are not walked then.
        """
        for folder, folders, names in os.walk(root, onerror=self._remember):
            folders.sort()
            yield Path(folder), folders, sorted(names)

    def inside(self, folder: Path) -> tuple[list[str], list[str]]:
        """Sorted names of the folders in ``folder``, links to folders among them, and of its files."""
        try:
            with os.scandir(folder) as entries:
                inside = sorted((entry.name, entry.is_dir()) for entry in entries)
        except OSError as error:
            self._remember(error)
            return [], []
        return [name for name, is_folder in inside if is_folder], [name for name, is_folder in inside if not is_folder]

    def _remember(self, error: OSError) -> None:
        if str(error) not in {str(known) for known in self.errors}:
            self.errors.append(error)

    def sentences(self) -> list[str]:
        """What is wrong with each folder, and what to do."""
        return [
            f"{error.filename}: expected a folder that can be listed, but got {error}. Check its permissions."
            for error in self.errors
        ]

    def explain(self, sentence: str) -> str:
        """``sentence`` about what was not found, and which folders could not be looked into."""
        return " ".join((sentence, *self.sentences()))

    def rejected(self, source: str, stage: str = "ingest") -> Iterator[Rejected]:
        """A refusal for each folder that could not be listed."""
        for error, sentence in zip(self.errors, self.sentences(), strict=True):
            yield Rejected(str(error.filename), source, stage, Reason.UNREADABLE, sentence)

    def items(self) -> Iterator[CheckItem]:
        """The line of a check where a folder could not be listed; none where all could."""
        if self.errors:
            yield CheckItem("folders that cannot be listed", "0", str(len(self.errors)), "fail", self.sentences()[0])
