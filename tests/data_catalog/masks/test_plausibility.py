"""A lung mask is found out where it is flipped, shifted or of the wrong side, and left alone where it is right."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.examples.chest import draw_chest
from data_catalog.images.files import read_image_file, read_mask_file
from data_catalog.manifest import MaskFile, Sample
from data_catalog.masks.plausibility import IMPLAUSIBLE, _patient, better_place, check_masks
from data_catalog.radiograph import MaskSet, Structure
from data_catalog.refusals import Reason, Refusal
from data_catalog.vocabulary import Convention


def shifted(mask, down=0.0, across=0.0):
    """By shares of the height and width, through OpenCV: another way than the module's own."""
    matrix = np.float32([[1, 0, round(across * mask.shape[1])], [0, 1, round(down * mask.shape[0])]])
    return cv2.warpAffine(mask.astype(np.uint8), matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0


def doubt(image, lung, ignore=None):
    pixels = np.asarray(image, np.float32) / 255
    return better_place(pixels, MaskSet({Structure.LUNG: np.ascontiguousarray(lung)}, ignore))


def row(folder, chest, parts, **fields):
    masks = []
    for part, plane in parts.items():
        path = folder / f"mask_{part}.png"
        cv2.imwrite(str(path), plane.astype(np.uint8) * 255)
        masks.append(MaskFile(Structure.LUNG, str(path), "0" * 64, fields.pop("convention", Convention.NLM), part))
    size = {"height": chest.image.shape[0], "width": chest.image.shape[1]}
    given_fields = {"image_format": "png", "masks": tuple(masks)} | size | fields
    return Sample("a", "x", "p", "/a.png", "0" * 64, licence="CC0", **given_fields)


def checked(folder, parts, chest=None, **fields):
    chest = chest or draw_chest(160, 4)
    return check_masks(row(folder, chest, parts, **fields), chest.image.astype(np.float32) / 255)


@given(st.integers(0, 10_000), st.sampled_from([64, 130, 300]))
@settings(max_examples=40, deadline=None)
def test_a_right_mask_is_left_alone_and_a_displaced_one_is_found(seed, size):
    chest = draw_chest(size, seed)
    lung = chest.lungs["left"] | chest.lungs["right"]
    assert doubt(chest.image, lung) is None
    for moved in (shifted(lung, across=0.25), shifted(lung, across=-0.25), shifted(lung, down=0.25)):
        assert doubt(chest.image, moved) is not None


def test_what_fits_better_is_named():
    chest = draw_chest(200, 1)
    lung = chest.lungs["left"] | chest.lungs["right"]
    left = doubt(chest.image, shifted(lung, across=0.25))
    assert left is not None
    assert left.where == "moved left by 25.0%"
    assert left.best > left.own
    assert left.certain


def test_padding_and_the_size_of_pixels_do_not_matter():
    chest = draw_chest(200, 2)
    lung = chest.lungs["left"] | chest.lungs["right"]
    wide = [np.pad(plane, ((0, 0), (60, 90))) for plane in (chest.image, lung)]
    assert doubt(*wide) is None
    large = [cv2.resize(p.astype(np.uint8), (900, 900), interpolation=cv2.INTER_NEAREST) for p in (chest.image, lung)]
    assert doubt(large[0], large[1] > 0) is None


def test_black_from_the_border_inwards_is_no_patient():
    grey = np.full((60, 80), 0.5, np.float32)
    grey[:, :10] = grey[50:, 40:] = 0.0  # collimation
    grey[20:30, 30:50] = 0.01  # black inside the patient: air in a lung
    expected = np.ones((60, 80), bool)
    expected[:, :10] = expected[50:, 40:] = False
    assert np.array_equal(_patient(grey), expected)
    assert not _patient(np.zeros((60, 80), np.float32)).any()


def test_a_white_lung_is_no_reason_to_refuse():
    chest = draw_chest(200, 3)
    lung = chest.lungs["left"] | chest.lungs["right"]
    image = chest.image.copy()
    image[chest.lungs["left"]] = np.percentile(image[~lung], 80)
    found = doubt(image, lung)
    assert found is None or not found.certain


@pytest.mark.parametrize("fill", [0, 90])
def test_nothing_is_said_where_there_is_nothing_to_see(fill):
    lung = np.zeros((100, 100), bool)
    lung[20:80, 10:40] = True
    assert doubt(np.full((100, 100), fill, np.uint8), lung) is None


def test_unsure_pixels_are_neither_lung_nor_around_it():
    chest = draw_chest(200, 5)
    lung = chest.lungs["left"] | chest.lungs["right"]
    unsure = lung.copy()
    unsure[:, :100] = False  # the patient's left lung is one that nobody is sure of, and is as white as bone
    image = np.where(unsure, 255, chest.image)
    assert doubt(image, lung & ~unsure, unsure) is None


def test_sides_must_be_the_patients(tmp_path):
    chest = draw_chest(160, 4)
    assert checked(tmp_path, chest.lungs, chest) == ()
    swapped = {"left": chest.lungs["right"], "right": chest.lungs["left"]}
    mirrored = {side: np.ascontiguousarray(lung[:, ::-1]) for side, lung in chest.lungs.items()}
    for wrong in (swapped, mirrored):
        with pytest.raises(Refusal, match="left lung on the right of a frontal image") as caught:
            checked(tmp_path, wrong, chest)
        assert caught.value.reason is Reason.MASK_INVALID
    one = {"left": chest.lungs["left"], "right": np.zeros_like(chest.lungs["right"])}
    assert checked(tmp_path, one, chest) == ()


def test_a_shifted_mask_is_refused_and_a_doubtful_one_flagged(tmp_path):
    chest = draw_chest(160, 4)
    lung = chest.lungs["left"] | chest.lungs["right"]
    with pytest.raises(Refusal, match="where the mask is moved left") as caught:
        checked(tmp_path, {"": shifted(lung, across=0.25)}, chest)
    assert caught.value.reason is Reason.MASK_INVALID
    assert "mask_.png" in caught.value.sentence
    assert checked(tmp_path, {"": shifted(lung, across=0.08)}, chest) == (IMPLAUSIBLE,)


def test_what_is_projected_or_simulated_is_not_doubted(tmp_path):
    chest = draw_chest(160, 4)
    wrong = {"": shifted(chest.lungs["left"] | chest.lungs["right"], across=0.25)}
    assert checked(tmp_path, wrong, chest, convention=Convention.PROJECTION) == ()
    assert checked(tmp_path, wrong, chest, image_format="simulated") == ()


def test_masks_that_cannot_be_used_are_still_refused(tmp_path):
    with pytest.raises(Refusal, match="no pixel has it"):
        checked(tmp_path, {"": np.zeros((160, 160), bool)})


@pytest.mark.shared_data
def test_real_masks_pass_and_displaced_ones_do_not(shared_data):
    with (shared_data / "cxr-lung" / "manifest.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    refused, bordered = 0, 0
    for line in lines[::6]:
        image = read_image_file(shared_data / "cxr-lung" / line["image"]).pixels
        mask, ignore = read_mask_file(shared_data / "cxr-lung" / line["mask"], image.shape)
        assert doubt(image, mask, ignore) is None, line["image"]
        border = ((0, 0), (image.shape[1] // 4,) * 2)
        bordered += doubt(np.pad(image, border), np.pad(mask, border)) is not None
        upside_down, aside = doubt(image, mask[::-1]), doubt(image, shifted(mask, across=0.25))
        assert upside_down is not None, line["image"]
        assert aside is not None, line["image"]
        refused += aside.certain
    assert bordered <= 1  # 55 of the 90, were the black border taken for dark lungs
    assert refused >= 0.7 * len(lines[::6])
