"""Masks drawn by different conventions do not mix: a lung has more than one right outline, a score has one truth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from data_catalog.manifest import Sample
from data_catalog.masks.files import annotation_conventions
from data_catalog.radiograph import Structure
from data_catalog.vocabulary import Convention

Allowed = Mapping[Structure, Collection[Convention]]
"""Structure -> conventions that may stand side by side."""


class ConventionMix(ValueError):
    """Rows of one training or one score follow several conventions that nobody asked to mix."""


def conventions_of(samples: Sequence[Sample], structures: Sequence[Structure]) -> dict[Structure, set[Convention]]:
    """Structure -> the conventions by which ``samples`` draw it; structures that nobody drew are left out."""
    found: dict[Structure, set[Convention]] = {}
    for sample in samples:
        for structure in structures:
            found.setdefault(structure, set()).update(annotation_conventions(sample, structure))
    return {structure: names for structure, names in found.items() if names}


def check_conventions(samples: Sequence[Sample], structures: Sequence[Structure], allowed: Allowed) -> None:
    """Refuse rows that draw one of ``structures`` by several conventions, unless ``allowed`` names them all.

    Raises:
        ConventionMix: naming the structure, each convention with its number of rows and first image, and what to do.
    """
    for structure, names in conventions_of(samples, structures).items():
        if len(names) < 2 or names <= set(allowed.get(structure, ())):
            continue
        rows = {n: [s for s in samples if n in annotation_conventions(s, structure)] for n in sorted(names)}
        listed = "; ".join(f"{name}: {len(of)} images, such as {of[0].image_path}" for name, of in rows.items())
        raise ConventionMix(
            f"Expected one convention for {structure} masks, but got {len(names)} ({listed}). Their outlines differ by "
            f"design (docs/datasets.md). Use one of these sources, or mix them on purpose with "
            f"`--mix-conventions {structure}:{','.join(sorted(names))}`."
        )


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
