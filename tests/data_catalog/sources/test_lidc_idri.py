"""The adapter of LIDC-IDRI: layouts, and what is wrong with single files while the rest goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from data_catalog.ct.case import CtCase
from data_catalog.digest_index import DigestIndex
from data_catalog.examples.ct_chest import SHAPE, SPACING, draw_thorax
from data_catalog.examples.lidc_idri import build
from data_catalog.manifest import Sample
from data_catalog.refusals import Reason, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources import lidc_idri_files
from data_catalog.sources.lidc_idri import check, scan


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("lidc"), 3)


@pytest.fixture
def root(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "in"))


def context(path: Path | None = None) -> ScanContext:
    return ScanContext(Path("no-archives-here"), DigestIndex(path))


def scanned(root: Path):
    found = list(scan(root, context()))
    return tuple([item for item in found if isinstance(item, kind)] for kind in (CtCase, Sample, Rejected))


def folder_of(root: Path, patient: int, kind: str) -> Path:
    """The series folder of one patient: "CT" has many images, "DX" one."""
    folders = {path.parent for path in (root / "LIDC-IDRI" / f"LIDC-IDRI-{patient:04d}").rglob("*.dcm")}
    return next(f for f in folders if (len(list(f.glob("*.dcm"))) > 1) == (kind == "CT"))


def reasons(rejected) -> list[Reason]:
    return sorted(row.reason for row in rejected)


def test_cts_and_radiographs_are_found(root):
    cases, samples, rejected = scanned(root)
    assert not rejected
    assert [case.patient_id for case in cases] == [f"lidc-idri/LIDC-IDRI-000{n}" for n in (1, 2, 3)]
    assert [len(case.image_paths) for case in cases] == [SHAPE[0]] * 3
    assert [len(case.annotation_paths) for case in cases] == [1, 1, 1]
    assert [(case.sex, case.age_years) for case in cases] == [("F", 50), ("M", 51), ("F", 52)]
    assert len({case.sha256 for case in cases}) == len({case.case_id for case in cases}) == 3
    heights = [float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in cases[0].image_paths]
    assert heights == sorted(heights)
    assert {sample.patient_id for sample in samples} <= {case.patient_id for case in cases}
    assert all(sample.view == "PA" and sample.image_format == "dicom" for sample in samples)


def test_marks_of_most_readers_are_lesions_with_the_size_that_the_ct_has(root):
    _, (first, third), _ = scanned(root)
    nodules = draw_thorax(0).nodules
    (lesion,) = first.lesions  # the other one is seen by one reader of four
    across, down = round(SHAPE[2] * SPACING[2]) / SHAPE[2], round(SHAPE[0] * SPACING[0]) / SHAPE[0]
    assert lesion.column == pytest.approx((nodules[0].centre[2] + 0.5) * across, abs=1.5)
    assert lesion.row == pytest.approx((SHAPE[0] - nodules[0].centre[0] - 0.5) * down, abs=1.5)
    assert (lesion.readers, lesion.subtlety) == (4, 4.0)
    assert lesion.diameter_mm == pytest.approx(2 * max(nodules[0].radii[1:]), rel=0.25)
    assert first.spacing.row == pytest.approx(1.0)
    assert third.lesions[0].diameter_mm is not None  # outlined by one reader only, but he gave it the name


def test_the_root_may_be_the_folder_itself_or_one_patient(root):
    whole = scanned(root)
    assert scanned(root / "LIDC-IDRI") == whole
    cases, samples, rejected = scanned(root / "LIDC-IDRI" / "LIDC-IDRI-0001")
    assert (len(cases), len(samples), len(rejected)) == (1, 1, 0)


def test_names_of_folders_and_files_mean_nothing(root):
    """The layout of TCIA's older tool: dates and numbers; and XML apart, as LIDC-XML-only is."""
    before = {case.patient_id: case.sha256 for case in scanned(root)[0]}
    apart = root / "LIDC-XML-only" / "tcia-lidc-xml" / "185"
    apart.mkdir(parents=True)
    for number, path in enumerate(sorted(root.rglob("*.xml"))):
        shutil.move(path, apart / f"{number:03d}.xml")
    for patient in sorted((root / "LIDC-IDRI").iterdir()):
        for study in sorted(patient.iterdir()):
            series = next(study.iterdir())
            for number, path in enumerate(sorted(series.iterdir(), reverse=True)):
                path.rename(series / f"{number + 1:06d}.dcm")
            series.rename(study / "3000566.000000-NA-03192")
            study.rename(patient / f"01-01-2000-NA-NA-{study.name[-5:]}")
    cases, samples, rejected = scanned(root)
    assert not rejected
    assert {case.patient_id: case.sha256 for case in cases} == before
    assert all(case.annotation_paths for case in cases)
    assert all(sample.lesions is not None for sample in samples)


def test_readings_of_series_that_are_not_here_are_left_alone(root):
    shutil.rmtree(root / "LIDC-IDRI" / "LIDC-IDRI-0002")
    apart = root / "tcia-lidc-xml" / "185"
    apart.mkdir(parents=True)
    cases, _, _ = scanned(root)
    extra = folder_of(root, 1, "CT").glob("*.xml")
    text = next(extra).read_text()
    (apart / "070.xml").write_text(text.replace("<SeriesInstanceUid>", "<SeriesInstanceUid>9.9"))
    assert scanned(root)[0] == cases
    assert not scanned(root)[2]
    items = {item.what: item for item in check(root, context())}
    assert items["XML of series that are not here"].found == "1"


def test_a_missing_slice_costs_one_case(root):
    folder = folder_of(root, 2, "CT")
    (folder / "1-030.dcm").unlink()
    cases, samples, rejected = scanned(root)
    assert len(cases) == 2
    assert len(samples) == 2
    (row,) = rejected
    assert (row.reason, row.path) == (Reason.SLICES_MISSING, str(folder))


def test_a_truncated_slice_is_named(root):
    path = folder_of(root, 2, "CT") / "1-030.dcm"
    path.write_bytes(path.read_bytes()[:-1000])
    cases, _, rejected = scanned(root)
    assert len(cases) == 2
    assert reasons(rejected) == [Reason.SLICES_MISSING, Reason.TRUNCATED]
    assert str(path) in {row.path for row in rejected}


def test_what_comes_along_is_left_alone_and_the_rest_is_refused(root):
    folder = folder_of(root, 1, "CT")
    for name in ("LICENSE", "metadata.csv", "md5hashes.csv", ".DS_Store", "lidc-idri-nodule-counts-6-23-2015.xlsx"):
        (folder / name).write_bytes(b"x")
    assert not scanned(root)[2]
    (folder / "1-999.dcm").write_bytes(b"not DICOM " * 50)
    ds = pydicom.dcmread(folder / "1-001.dcm")
    ds.Modality, ds.SOPInstanceUID = "SEG", "1.2.3.4"
    ds.save_as(folder / "1-998.dcm")
    cases, _, rejected = scanned(root)
    assert len(cases) == 3
    assert reasons(rejected) == [Reason.NOT_AN_IMAGE, Reason.WRONG_MODALITY]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.replace(b"<Lidc", b'<!DOCTYPE x [<!ENTITY a "b">]><Lidc', 1), Reason.UNSAFE_XML),
        (lambda data: data[: len(data) // 2], Reason.TRUNCATED),
        (lambda data: data.replace(b"read</", b"gr\xf6\xdfer</"), Reason.ANNOTATION_INVALID),
        (lambda data: data.replace(b"<SeriesInstanceUid>", b"<SeriesInstanceUid>9.9"), Reason.ANNOTATION_INVALID),
        (lambda data: data.replace(b"LidcReadMessage", b"Report"), Reason.ANNOTATION_INVALID),
        (lambda data: data.replace(b"<xCoord>", b"<xCoord>9"), Reason.ANNOTATION_INVALID),  # off the image
        (lambda data: b"", Reason.EMPTY_FILE),
    ],
)
def test_a_ct_whose_xml_is_refused_has_unknown_nodules(root, change, reason):
    path = next(folder_of(root, 1, "CT").glob("*.xml"))
    path.write_bytes(change(path.read_bytes()))
    cases, samples, rejected = scanned(root)
    assert [len(case.annotation_paths) for case in cases] == [0, 1, 1]
    assert len(samples) == 2
    assert [(row.reason, row.path) for row in rejected] == [(reason, str(path))]


def test_the_xml_of_another_series_goes_to_that_series(root):
    """Readings find their series by UID, wherever they lie; a second one of the same series is refused."""
    one, other = (next(folder_of(root, number, "CT").glob("*.xml")) for number in (1, 2))
    text = one.read_text()
    one.write_text(other.read_text())
    other.write_text(text)
    cases, _, rejected = scanned(root)
    assert not rejected
    assert cases[0].annotation_paths == (str(other),)
    other.write_text(text.replace("<malignancy>2", "<malignancy>5"))
    (one.parent / "second.xml").write_text(text)
    assert reasons(scanned(root)[2]) == [Reason.ANNOTATION_INVALID]


def test_the_reading_of_a_radiograph_is_none_of_a_ct(root):
    ct, dx = (next(folder_of(root, 1, kind).glob("*.xml")) for kind in ("CT", "DX"))
    series = pydicom.dcmread(ct.parent / "1-001.dcm").SeriesInstanceUID
    own = pydicom.dcmread(dx.parent / "1-1.dcm").SeriesInstanceUID
    text = dx.read_text().replace(f"<CXRSeriesInstanceUid>{own}", f"<CXRSeriesInstanceUid>{series}")
    ct.write_text(text)
    cases, _, rejected = scanned(root)
    assert reasons(rejected) == [Reason.ANNOTATION_INVALID]
    assert not cases[0].annotation_paths


def test_a_patient_copied_under_another_name_counts_once(root):
    """A renamed patient would be on both sides of a split; one row says so, not one per slice."""
    before = scanned(root)
    shutil.copytree(root / "LIDC-IDRI" / "LIDC-IDRI-0001", root / "LIDC-IDRI" / "LIDC-IDRI-0999")
    cases, samples, rejected = scanned(root)
    assert (cases, samples) == before[:2]
    assert reasons(rejected) == [Reason.DUPLICATE_IMAGE] * 2  # its CT and its radiograph
    assert all("LIDC-IDRI-0999" in row.path for row in rejected)


def add_image(folder: Path, name: str, **attrs) -> Path:
    ds = pydicom.dcmread(folder / "1-1.dcm")
    for key, value in attrs.items():
        setattr(ds, key, value)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    ds.save_as(folder / name)
    return folder / name


@pytest.mark.parametrize("attrs", [{"ViewPosition": "LL"}, {"ViewPosition": None}])
def test_the_lateral_of_a_pair_is_refused(root, attrs):
    """Also where no view is stated: the readers marked the other image."""
    path = add_image(folder_of(root, 1, "DX"), "1-2.dcm", **attrs)
    _, samples, rejected = scanned(root)
    assert len(samples) == 2
    assert [(row.reason, row.path) for row in rejected] == [(Reason.NOT_FRONTAL, str(path))]


def test_marks_on_an_image_that_is_missing_are_no_lesions(root):
    folder = folder_of(root, 1, "DX")
    add_image(folder, "1-2.dcm")
    (folder / "1-1.dcm").unlink()
    _, samples, rejected = scanned(root)
    assert reasons(rejected) == [Reason.ANNOTATION_INVALID]
    assert [sample.lesions is None for sample in samples] == [True, False]


def test_without_xml_nobody_looked(root):
    for path in root.rglob("*.xml"):
        path.unlink()
    cases, samples, rejected = scanned(root)
    assert not rejected
    assert not any(case.annotation_paths for case in cases)
    assert all(sample.lesions is None for sample in samples)


def test_nobody_sees_a_nodule_is_an_answer(root):
    path = next(folder_of(root, 1, "DX").glob("*.xml"))
    path.write_text(path.read_text().replace("<confidence>3", "<confidence>1"))
    _, samples, _ = scanned(root)
    assert samples[0].lesions == ()


def test_the_digest_covers_every_file(root):
    before = {case.patient_id: case.sha256 for case in scanned(root)[0]}
    xml = next(folder_of(root, 1, "CT").glob("*.xml"))
    xml.write_text(xml.read_text().replace("<malignancy>2", "<malignancy>5", 1))
    path = folder_of(root, 2, "CT") / "1-030.dcm"
    ds = pydicom.dcmread(path)
    ds.PixelData = (np.frombuffer(ds.PixelData, np.int16) ^ 1).tobytes()
    ds.save_as(path)
    after = {case.patient_id: case.sha256 for case in scanned(root)[0]}
    changed = {patient for patient in before if before[patient] != after[patient]}
    assert changed == {"lidc-idri/LIDC-IDRI-0001", "lidc-idri/LIDC-IDRI-0002"}


def test_a_second_look_reads_no_image(root, tmp_path, monkeypatch):
    with DigestIndex(tmp_path / "index.sqlite") as index:
        first = list(scan(root, ScanContext(tmp_path, index)))
    monkeypatch.setattr(lidc_idri_files, "header_note", lambda path: pytest.fail(f"{path} was read again"))
    assert list(scan(root, ScanContext(tmp_path, DigestIndex(tmp_path / "index.sqlite")))) == first


def test_another_adapters_note_is_not_believed(root):
    shared = context()
    for path in root.rglob("*.dcm"):
        shared.digests.noted(path, lambda: '["dicom", 1, 1, []]')
    assert list(scan(root, shared)) == list(scan(root, context()))


@pytest.mark.parametrize("kind", ["empty", "images"])
def test_another_folder_is_no_lidc(tmp_path, kind):
    if kind == "images":
        (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="expected LIDC-IDRI with folders"):
        list(scan(tmp_path, context()))


def test_check_counts_against_what_is_published(root):
    (folder_of(root, 2, "CT") / "1-030.dcm").unlink()
    items = {item.what: item for item in check(root, context())}
    assert (items["patients"].expected, items["patients"].found, items["patients"].status) == ("1010", "2", "warn")
    assert (items["CT series"].expected, items["CT series"].found) == ("1018", "2")
    assert (items["frontal radiographs"].expected, items["frontal radiographs"].found) == ("290", "2")
    assert items["CTs with their readers' XML"].status == "ok"
    assert items["refused: slices_missing"].found == "1"
    shutil.rmtree(root / "LIDC-IDRI")
    (root / "1.xml").write_text("<x/>")
    items = {item.what: item for item in check(root, context())}
    assert items["CT series"].status == "fail"


def test_a_folder_that_cannot_be_listed(root, lock_folder):
    folder = folder_of(root, 2, "CT")
    lock_folder(folder)
    cases, _, rejected = scanned(root)
    assert len(cases) == 2
    assert [(row.reason, row.path) for row in rejected if row.reason is Reason.UNREADABLE] == [
        (Reason.UNREADABLE, str(folder))
    ]
    assert {item.what: item.status for item in check(root, context())}["folders that cannot be listed"] == "fail"
    lock_folder(root)
    with pytest.raises(ValueError, match="Permission denied"):
        scanned(root)
