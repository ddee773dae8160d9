"""What adapters of image files share: headers, digests, each image once, and errors that stay with their file."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from data_catalog.digest import file_digest
from data_catalog.digest_index import DigestIndex
from data_catalog.intake import Intake, missing, picture_header
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import ScanContext
from data_catalog.vocabulary import Convention


@pytest.fixture
def intake(tmp_path):
    return Intake("test", ScanContext(tmp_path / "work"))


@pytest.fixture
def png(tmp_path, make_chest_image):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), make_chest_image(96, 0)[0][:, :80])
    return path


def test_header_and_digest(intake, png):
    facts = intake.image(png)
    assert (facts.format, facts.height, facts.width, facts.flags) == ("png", 96, 80, ())
    assert facts.sha256 == file_digest(png)


def test_jpeg_and_dicom_whatever_their_names(tmp_path, intake, make_chest_image, make_dicom):
    image = make_chest_image(96, 1)[0]
    cv2.imwrite(str(tmp_path / "b.jpg"), image)
    (tmp_path / "b.jpg").rename(tmp_path / "b.png")
    make_dicom(tmp_path / "c.png", image.astype(np.uint16) * 16)
    assert intake.image(tmp_path / "b.png").format == "jpeg"
    facts = intake.image(tmp_path / "c.png")
    assert (facts.format, facts.height, facts.width) == ("dicom", 96, 96)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"some text that is long enough", Reason.NOT_AN_IMAGE),
        (b"\x89PNG\r\n\x1a\n", Reason.TRUNCATED),
    ],
)
def test_what_is_no_image(tmp_path, data, reason):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(Refusal) as caught:
        picture_header(tmp_path / "a.png")
    assert caught.value.reason is reason


def test_sizes_are_checked(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20), np.uint8))
    with pytest.raises(Refusal) as caught:
        picture_header(tmp_path / "a.png")
    assert caught.value.reason is Reason.TOO_SMALL


def test_the_same_bytes_twice(tmp_path, intake, png):
    shutil.copy(png, tmp_path / "b.png")
    first = intake.image(png)
    assert intake.image(png) == first  # the same file is the same file
    with pytest.raises(Refusal, match=r"the same bytes as .*a\.png") as caught:
        intake.image(tmp_path / "b.png")
    assert caught.value.reason is Reason.DUPLICATE_IMAGE


def test_a_kept_note_saves_the_header(tmp_path, png):
    with DigestIndex(tmp_path / "i") as digests:
        Intake("test", ScanContext(tmp_path, digests)).image(png)
    looked = []

    def header(path):
        looked.append(path)
        return picture_header(path)

    with DigestIndex(tmp_path / "i") as digests:
        facts = Intake("test", ScanContext(tmp_path, digests), header).image(png)
    assert looked == []
    assert (facts.height, facts.width) == (96, 80)
    assert json.loads(digests.noted(png, lambda: "")[1]) == ["png", 96, 80, []]


def test_a_header_of_ones_own(tmp_path, png):
    intake = Intake("test", ScanContext(tmp_path), lambda path: ("jsrt", 2048, 2048, ("odd",)))
    assert intake.image(png).flags == ("odd",)


def test_masks(tmp_path, intake, png):
    mask = intake.mask(png, Structure.LUNG, Convention.NLM, "left")
    assert (mask.path, mask.sha256, mask.part, mask.convention) == (str(png), file_digest(png), "left", "nlm")
    with pytest.raises(Refusal) as caught:
        intake.mask(tmp_path / "none.png", Structure.LUNG, Convention.NLM)
    assert caught.value.reason is Reason.MASK_MISSING


def test_one_bad_item_never_ends_a_scan(tmp_path, intake):
    def make(number):
        if number == 1:
            raise missing(tmp_path / "mask of 1", "the list")
        if number == 2:
            raise PermissionError("not yours")
        return number

    rows = list(intake.rows(range(4), make, lambda number: tmp_path / str(number)))
    assert rows[0] == 0
    assert rows[3] == 3
    assert all(isinstance(row, Rejected) and (row.source, row.stage) == ("test", "ingest") for row in rows[1:3])
    assert [row.reason for row in rows[1:3]] == [Reason.FILE_MISSING, Reason.UNREADABLE]
    assert [row.path for row in rows[1:3]] == [str(tmp_path / "1"), str(tmp_path / "2")]
    assert "mask of 1" in rows[1].sentence


def test_errors_of_the_program_are_not_hidden(intake, tmp_path):
    with pytest.raises(ZeroDivisionError):
        list(intake.rows([0], lambda number: 1 // number, lambda number: tmp_path))
