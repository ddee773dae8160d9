"""Conventions of masks: mixing them is refused, unless it is asked for by name."""

from __future__ import annotations

import pytest

from data_catalog.manifest import Lesion, MaskFile, Sample
from data_catalog.masks.conventions import ConventionMix, check_conventions, conventions_of, parse_mix
from data_catalog.radiograph import Structure
from data_catalog.vocabulary import Convention


def row(name: str, *conventions: Convention, structure: Structure = Structure.LUNG, **fields) -> Sample:
    masks = tuple(MaskFile(structure, f"/{name}.png", "0" * 64, convention) for convention in conventions)
    return Sample(name, "pairs", name, f"/{name}.png", "0" * 64, "png", "CC0", masks=masks, **fields)


V7, SCR = row("a", Convention.V7), row("b", Convention.SCR)


def test_one_convention_passes():
    check_conventions([V7, row("c", Convention.V7)], [Structure.LUNG], {})


def test_two_are_refused_with_the_way_to_ask():
    with pytest.raises(ConventionMix, match=r"lung.*scr: 1 images, such as /b.png.*--mix-conventions lung:scr,v7"):
        check_conventions([V7, SCR], [Structure.LUNG], {})


def test_two_pass_where_both_are_named():
    structure, names = parse_mix("lung:v7,scr")
    check_conventions([V7, SCR], [Structure.LUNG], {structure: names})
    with pytest.raises(ConventionMix, match="nlm"):
        check_conventions([V7, SCR, row("c", Convention.NLM)], [Structure.LUNG], {structure: names})


def test_structures_that_are_not_trained_do_not_matter():
    check_conventions([V7, SCR], [Structure.RIB], {})


def test_lesions_are_weak_masks():
    boxed = row("c", lesions=(Lesion("nodule", 5, 5, 4, 4),))
    round_ = row("d", lesions=(Lesion("nodule", 5, 5, diameter_mm=9),))
    none = row("e", lesions=())
    rows = [boxed, round_, none]
    assert conventions_of(rows, [Structure.NODULE]) == {Structure.NODULE: {Convention.BOX, Convention.CIRCLE}}
    assert conventions_of([none], [Structure.NODULE]) == {}


@pytest.mark.parametrize("text", ["lung", "lung:v7", "liver:v7,scr", "lung:v7,v8", ""])
def test_what_cannot_be_mixed_says_what_can(text):
    with pytest.raises(ValueError, match="Expected"):
        parse_mix(text)
