"""Source adapters: each turns one published layout into manifest rows, CTs and refusals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_catalog.source import Source
from data_catalog.sources import (
    chestxray14,
    ct_labels,
    dicom,
    jsrt,
    lidc_idri,
    montgomery,
    node21,
    pairs,
    phantom,
    shenzhen,
    vindr_ribcxr,
)

SOURCES: dict[str, Source] = {
    source.kind: source
    for source in (
        chestxray14.SOURCE,
        montgomery.SOURCE,
        shenzhen.SOURCE,
        jsrt.SOURCE,
        vindr_ribcxr.SOURCE,
        node21.SOURCE,
        lidc_idri.SOURCE,
        ct_labels.SOURCE,
        pairs.SOURCE,
        pairs.COVID_V7,
        dicom.SOURCE,
        phantom.SOURCE,
    )
}
"""Kind -> adapter."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source as given on the command line: ``KIND=PATH``; ``phantom`` alone means the embedded cohort."""

    kind: str
    path: str = ""

    def __post_init__(self) -> None:
        if self.kind not in SOURCES:
            raise ValueError(f"Expected a source KIND=PATH with KIND one of {sorted(SOURCES)}, but got {self.kind!r}")
        if not self.path and self.kind != "phantom":
            raise ValueError(f"Expected {self.kind}=PATH, but got no path")
        if self.path and not Path(self.path).exists():
            raise ValueError(f"Expected an existing path for {self.kind}={self.path}, but there is none")

    @classmethod
    def parse(cls, text: str) -> SourceSpec:
        """``"pairs=/data"`` -> ``SourceSpec("pairs", "/data")``, absolute.

        >>> SourceSpec.parse("phantom")
        SourceSpec(kind='phantom', path='')

        Raises:
            ValueError: unknown kind, no path, or the path is not there.
        """
        kind, _, path = text.partition("=")
        return cls(kind.strip().lower(), str(Path(path).expanduser().resolve()) if path else "")
