"""Labels against what the CT shows at their place: whole, consolidated, flipped, shifted."""

from pathlib import Path

import numpy as np
import pytest

from data_catalog.ct.case import CtCase
from data_catalog.ct.plausible_labels import check_labels
from data_catalog.ct.reading import read_ct
from data_catalog.examples.ct_chest import NAMES, SPACING, draw_thorax
from data_catalog.examples.ct_labels import write_names, write_volume
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal
from data_catalog.vocabulary import structure_of

KNOWN = {label: found for label, name in NAMES.items() if (found := structure_of(name)) is not None}
LUNGS = {label: name for label, name in KNOWN.items() if name[0] is Structure.LUNG}
PATH = Path("/labels.nii.gz")


def sentence(hu, labels, names, affine) -> str:
    with pytest.raises(Refusal) as caught:
        check_labels(PATH, hu, labels, names, affine)
    assert caught.value.reason is Reason.MASK_INVALID
    assert caught.value.sentence.startswith(f"{PATH}: expected ")
    return caught.value.sentence


@pytest.mark.parametrize("seed", [*range(4), *range(500, 504), 1500])
def test_labels_as_they_were_drawn_pass(seed):
    drawn = draw_thorax(seed)
    check_labels(PATH, drawn.hu, drawn.labels, KNOWN, drawn.affine)
    check_labels(PATH, drawn.hu, drawn.labels, LUNGS, drawn.affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 500, 501])
def test_flipped_labels_are_refused(seed, axis):
    drawn = draw_thorax(seed, nodules=0)
    sentence(drawn.hu, np.flip(drawn.labels, axis), KNOWN, drawn.affine)


@pytest.mark.parametrize(
    ("axis", "mm"), [(0, -84), (0, 84), *((axis, mm) for axis in (1, 2) for mm in (-84, -42, -21, 21, 42, 84))]
)
def test_shifted_labels_are_refused(axis, mm):
    drawn = draw_thorax(0, nodules=0)
    sentence(drawn.hu, np.roll(drawn.labels, round(mm / SPACING[axis]), axis), KNOWN, drawn.affine)


def test_each_rule_says_what_came():
    drawn = draw_thorax(0, nodules=0)
    assert "left lung" in sentence(drawn.hu, np.flip(drawn.labels, 2), LUNGS, drawn.affine)
    ribs = {label: name for label, name in KNOWN.items() if name[0] is Structure.RIB}
    assert "left rib" in sentence(drawn.hu, np.flip(drawn.labels, 2), ribs, drawn.affine)
    assert "labelled rib" in sentence(drawn.hu, np.flip(drawn.labels, 0), ribs, drawn.affine)
    spine = {label: name for label, name in KNOWN.items() if name[0] is Structure.VERTEBRA}
    assert "labelled vertebra" in sentence(drawn.hu, np.flip(drawn.labels, 1), spine, drawn.affine)
    soft = np.where(np.isin(drawn.labels, list(LUNGS)), 40, drawn.hu).astype(np.int16)
    assert "but got 0% inside" in sentence(soft, drawn.labels, LUNGS, drawn.affine)
    everywhere = np.full_like(drawn.hu, -900)
    assert "100% inside and 100% around" in sentence(everywhere, drawn.labels, LUNGS, drawn.affine)
    dense = np.full_like(drawn.hu, 90)
    assert "90 HU inside and 90 HU around" in sentence(dense, drawn.labels, ribs, drawn.affine)


@pytest.mark.parametrize(("consolidated", "passes"), [(0.4, True), (0.6, True), (0.8, False)])
def test_consolidated_lungs_pass_as_long_as_some_air_is_left(consolidated, passes):
    drawn = draw_thorax(0, nodules=0)
    lung = np.argwhere(np.isin(drawn.labels, list(LUNGS)))
    filled = lung[lung[:, 0] < np.quantile(lung[:, 0], consolidated)]  # from the bases upwards
    hu = drawn.hu.copy()
    hu[tuple(filled.T)] = 30
    if passes:
        check_labels(PATH, hu, drawn.labels, KNOWN, drawn.affine)
    else:
        assert "labelled lung" in sentence(hu, drawn.labels, KNOWN, drawn.affine)


def test_a_ct_turned_with_its_affine_passes():
    drawn = draw_thorax(0, nodules=0)
    turn = np.diag([-1.0, 1.0, -1.0, 1.0])
    turn[0, 3], turn[2, 3] = drawn.hu.shape[2] - 1, drawn.hu.shape[0] - 1
    hu, labels = drawn.hu[::-1, :, ::-1], drawn.labels[::-1, :, ::-1]
    check_labels(PATH, hu, labels, KNOWN, drawn.affine @ turn)
    assert "left lung" in sentence(hu, labels, KNOWN, drawn.affine @ np.diag([1.0, 1.0, -1.0, 1.0]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_case_with_flipped_labels_is_refused_where_it_is_read(tmp_path, axis):
    drawn = draw_thorax(0, nodules=0)
    write_volume(tmp_path / "ct.nii.gz", drawn.hu, drawn)
    write_volume(tmp_path / "mask.nii.gz", np.flip(drawn.labels.astype(np.uint8), axis), drawn)
    write_names(tmp_path / "structures.csv")
    case = CtCase(
        source="ct-labels",
        case_id="a",
        patient_id="ct-labels/a",
        image_paths=(str(tmp_path / "ct.nii.gz"),),
        labels_path=str(tmp_path / "mask.nii.gz"),
        structures_path=str(tmp_path / "structures.csv"),
        sha256="0" * 64,
        licence="CC0",
    )
    with pytest.raises(Refusal) as caught:
        read_ct(case)
    assert caught.value.reason is Reason.MASK_INVALID
    assert caught.value.path == case.labels_path


@pytest.mark.shared_data
def test_the_real_ct_passes_and_its_flipped_and_shifted_labels_do_not(shared_data):
    folder = shared_data / "ct-chest"
    case = CtCase(
        source="ct-labels",
        case_id="a",
        patient_id="ct-labels/a",
        image_paths=(str(folder / "cxr.nii.gz"),),
        labels_path=str(folder / "mask.nii.gz"),
        structures_path=str(folder / "structures.csv"),
        sha256="0" * 64,
        licence="MIT",
    )
    ct = read_ct(case)
    for axis in range(3):
        sentence(ct.hu, np.flip(ct.labels, axis), ct.names, ct.affine)
    for axis, mm in ((0, 20), (1, 84), (2, -20)):
        sentence(ct.hu, np.roll(ct.labels, round(mm / ct.spacing[axis]), axis), ct.names, ct.affine)
