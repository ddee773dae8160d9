"""Masks of a row: parts are united, lesions are drawn, and nobody's silence is taken for absence."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_catalog.manifest import Lesion, MaskFile, Sample
from data_catalog.masks.files import is_annotated, read_masks, shows
from data_catalog.radiograph import Spacing, Structure
from data_catalog.refusals import Refusal
from data_catalog.vocabulary import Convention


def sample(tmp_path, planes: dict[str, np.ndarray], structure=Structure.LUNG, **fields) -> Sample:
    masks = []
    for part, plane in planes.items():
        path = tmp_path / f"{part}.png"
        cv2.imwrite(str(path), plane)
        masks.append(MaskFile(structure, str(path), "0" * 64, Convention.NLM, part))
    given = {"height": 64, "width": 80, "masks": tuple(masks)} | fields
    return Sample("a", "x", "p", "/a.png", "0" * 64, "png", "CC0", **given)


def plane(columns: slice) -> np.ndarray:
    mask = np.zeros((64, 80), np.uint8)
    mask[10:50, columns] = 255
    return mask


def test_left_and_right_are_united(tmp_path):
    unsure = plane(slice(50, 70))
    unsure[:4] = 127
    masks = read_masks(sample(tmp_path, {"right": plane(slice(10, 30)), "left": unsure}))
    assert masks.masks[Structure.LUNG].sum() == 40 * 40
    assert masks.ignore is not None
    assert masks.ignore.sum() == 4 * 80


def test_one_empty_side_is_an_answer_but_no_lung_at_all_is_not(tmp_path):
    empty = np.zeros((64, 80), np.uint8)
    assert read_masks(sample(tmp_path, {"right": plane(slice(10, 30)), "left": empty})).masks[Structure.LUNG].any()
    with pytest.raises(Refusal, match="no pixel has it"):
        read_masks(sample(tmp_path, {"right": empty, "left": empty}))


def test_a_box_is_an_ellipse_and_a_diameter_a_circle(tmp_path):
    boxed = Lesion("nodule", 20, 30, height=11, width=21)
    ring = Lesion("nodule", 45, 60, diameter_mm=9.0)
    row = sample(tmp_path, {}, lesions=(boxed, ring), spacing=Spacing(0.5, 0.5, "test"))
    mask = read_masks(row).masks[Structure.NODULE]
    rows, columns = np.nonzero(mask[:35])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 25, 20, 40)
    assert mask[35:].sum() == pytest.approx(np.pi * 9**2, rel=0.1)


def test_no_lesion_is_an_answer_and_no_annotation_is_none(tmp_path):
    none, unknown = sample(tmp_path, {}, lesions=()), sample(tmp_path, {})
    assert not read_masks(none).masks[Structure.NODULE].any()
    assert read_masks(unknown).ignore.all()
    assert (is_annotated(none, [Structure.NODULE]), shows(none, Structure.NODULE)) == (True, False)
    assert not is_annotated(unknown, [Structure.NODULE, Structure.LUNG])
    assert not is_annotated(none, [Structure.LUNG])
