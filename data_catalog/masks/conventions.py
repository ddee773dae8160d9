"""Masks drawn by different conventions do not mix: a lung has more than one right outline, a score has one truth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from data_catalog.manifest import Sample
from data_catalog.masks.files import annotation_conventions
from data_catalog.radiograph import Structure
from data_catalog.vocabulary import Convention

Allowed = Mapping[Structure, Collection[Convention]]
"""Structure -> conventions that may stand side by side."""


class ConventionMix(ValueError):
    """Rows of one training or one score follow several conventions that nobody asked to mix."""


class ConventionTally:
    """Counts by which conventions structures are drawn, row by row.

    Attributes:
        found: structure -> convention -> (number of rows, image of the first).
    """

    def __init__(self, structures: Sequence[Structure]) -> None:
        self.found: dict[Structure, dict[Convention, tuple[int, str]]] = {structure: {} for structure in structures}

    def add(self, samples: Iterable[Sample]) -> None:
        """Count ``samples`` too."""
        for sample in samples:
            for structure, names in self.found.items():
                for name in annotation_conventions(sample, structure):
                    count, first = names.get(name, (0, sample.image_path))
                    names[name] = count + 1, first

    def check(self, allowed: Allowed) -> None:
        """Refuse a structure that is drawn by several conventions, unless ``allowed`` names them all.

        Raises:
            ConventionMix: naming structure, each convention with its number of rows and first image, and what to do.
        """
        for structure, names in self.found.items():
            if len(names) < 2 or set(names) <= set(allowed.get(structure, ())):
                continue
            rows = [f"{name}: {count} images, such as {first}" for name, (count, first) in sorted(names.items())]
            raise ConventionMix(
                f"Expected one convention for {structure} masks, but got {len(names)} ({'; '.join(rows)}). Their "
                "outlines differ by design (docs/datasets.md). Use one of these sources, or mix them on purpose with "
                f"`--mix-conventions {structure}:{','.join(sorted(names))}`."
            )


def conventions_of(samples: Iterable[Sample], structures: Sequence[Structure]) -> dict[Structure, set[Convention]]:
    """Structure -> the conventions by which ``samples`` draw it; structures that nobody drew are left out."""
    tally = ConventionTally(structures)
    tally.add(samples)
    return {structure: set(names) for structure, names in tally.found.items() if names}


def check_conventions(samples: Iterable[Sample], structures: Sequence[Structure], allowed: Allowed) -> None:
    """Refuse rows that draw one of ``structures`` by several conventions, unless ``allowed`` names them all.

    Raises:
        ConventionMix: as :meth:`ConventionTally.check`.
    """
    tally = ConventionTally(structures)
    tally.add(samples)
    tally.check(allowed)


def parse_mix(text: str) -> tuple[Structure, frozenset[Convention]]:
    """``"lung:v7,scr"`` -> the structure and its conventions.

    >>> structure, names = parse_mix("lung:v7,scr")
    >>> structure.value, sorted(names)
    ('lung', [<Convention.SCR: 'scr'>, <Convention.V7: 'v7'>])

    Raises:
        ValueError: an unknown structure or convention, or fewer than two of them.
    """
    structure, _, names = text.partition(":")
    try:
        found = Structure(structure.strip()), frozenset(Convention(name.strip()) for name in names.split(","))
    except ValueError as error:
        raise ValueError(
            f"Expected STRUCTURE:CONVENTION,CONVENTION such as lung:v7,scr, but got {text!r}. Structures: "
            f"{', '.join(Structure)}. Conventions: {', '.join(Convention)}."
        ) from error
    if len(found[1]) < 2:
        raise ValueError(f"Expected at least two conventions to mix, but got {text!r}.")
    return found
