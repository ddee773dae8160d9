"""Polygon files of VinDr-RibCXR: structure, digests, and polygons that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from skimage.draw import polygon2mask

from data_catalog.manifest import MaskFile
from data_catalog.masks import rib_polygons
from data_catalog.masks.rib_polygons import RIBS, polygon_digest, read_polygon_mask, read_rib_file
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal
from data_catalog.vocabulary import Convention

CORNERS = [{"x": 10.2, "y": 5.3}, {"x": 60.7, "y": 12.1}, {"x": 58.4, "y": 30.9}, {"x": 12.6, "y": 22.8}]
SHAPE = (70, 80)


def content(**ribs) -> dict:
    images = {"0": "data/train/img/a.png", "1": "data/train/img/b.png"}
    return {"img": images, **{rib: {"0": CORNERS, "1": "None"} for rib in RIBS}} | ribs


@pytest.fixture
def write(tmp_path):
    def _write(value) -> object:
        path = tmp_path / "Vindr_RibCXR_train_mask.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return _write


def mask_of(path, key="R1/0", sha256=None) -> MaskFile:
    points = np.array([(corner["x"], corner["y"]) for corner in CORNERS])
    digest = sha256 or polygon_digest(points)
    return MaskFile(Structure.RIB, str(path), digest, Convention.VINDR, "right_1", "polygon", key)


def test_a_rib_is_its_polygon_filled_from_the_corner_of_the_image(write):
    path = write(content())
    oracle = polygon2mask(SHAPE, np.array([(corner["y"] - 0.5, corner["x"] - 0.5) for corner in CORNERS]))
    np.testing.assert_array_equal(read_polygon_mask(mask_of(path), SHAPE), oracle)


def test_none_is_no_polygon(write):
    ribs = read_rib_file(write(content()))
    assert len(ribs.polygons) == 20
    assert "R1/1" not in ribs.polygons
    assert ribs.images["1"].endswith("b.png")
    with pytest.raises(Refusal) as caught:
        read_polygon_mask(mask_of(write(content()), "R1/1"), SHAPE)
    assert caught.value.reason is Reason.MASK_MISSING


def test_a_file_is_read_once_until_it_changes(write, monkeypatch):
    path = write(content())
    calls = []
    real = rib_polygons.read_text
    monkeypatch.setattr(rib_polygons, "read_text", lambda path: calls.append(path) or real(path))
    for key in ("R1/0", "R2/0", "L9/0"):
        read_polygon_mask(mask_of(path, key), SHAPE)
    assert len(calls) == 1
    moved = [{"x": corner["x"] + 1, "y": corner["y"]} for corner in CORNERS]
    path = write(content(R1={"0": moved, "1": "None"}))
    read_polygon_mask(mask_of(path, "R2/0"), SHAPE)  # this one did not change
    with pytest.raises(Refusal) as caught:
        read_polygon_mask(mask_of(path), SHAPE)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert len(calls) == 2


def test_the_digest_is_of_the_numbers_alone(write):
    first = read_rib_file(write(content())).polygons["R1/0"]
    second = read_rib_file(write(json.dumps(content(R3={"0": "None"}), indent=3))).polygons["R1/0"]
    assert polygon_digest(first) == polygon_digest(second)
    assert polygon_digest(first) != polygon_digest(first[::-1])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([{"x": 1, "y": 2}], Reason.MASK_INVALID),
        ([{"x": 1, "z": 2}] * 4, Reason.MASK_INVALID),
        ("none", Reason.MASK_INVALID),
        (7, Reason.MASK_INVALID),
        ([{"x": float("nan"), "y": 2}] * 4, Reason.MASK_INVALID),
        ([{"x": corner["x"] * 2, "y": corner["y"]} for corner in CORNERS], Reason.MASK_SIZE_MISMATCH),
        ([{"x": corner["x"], "y": -corner["y"]} for corner in CORNERS], Reason.MASK_SIZE_MISMATCH),
    ],
)
def test_polygons_that_are_none_are_refused(write, value, reason):
    path = write(content(R1={"0": value}))
    with pytest.raises(Refusal) as caught:
        read_polygon_mask(mask_of(path), SHAPE)
    assert caught.value.reason is reason


def test_a_clicked_border_is_let_through(write):
    edge = [{"x": 0, "y": -0.4}, {"x": 80.6, "y": -0.4}, {"x": 80.6, "y": 70.3}]
    path = write(content(R1={"0": edge}))
    points = np.array([(corner["x"], corner["y"]) for corner in edge])
    assert read_polygon_mask(mask_of(path, sha256=polygon_digest(points)), SHAPE).any()


@pytest.mark.parametrize(
    "value",
    ["{", "[]", "[" * 100_000, json.dumps({"img": {}}), json.dumps(content(R7=3)), json.dumps(content(img=["a.png"]))],
)
def test_other_structures_are_refused(write, value):
    path = write(value)
    with pytest.raises(ValueError, match="expected"):
        read_rib_file(path)
    with pytest.raises(Refusal) as caught:
        read_polygon_mask(mask_of(path), SHAPE)
    assert caught.value.reason is Reason.MASK_UNREADABLE


def test_a_file_that_is_gone_is_a_missing_mask(tmp_path):
    with pytest.raises(Refusal) as caught:
        read_polygon_mask(mask_of(tmp_path / "gone.json"), SHAPE)
    assert caught.value.reason is Reason.MASK_MISSING
