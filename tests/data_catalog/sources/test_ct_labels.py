"""The adapter of CTs with label maps: layouts, and what is wrong with single cases while the rest goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from data_catalog.ct.case import CtCase
from data_catalog.ct.reading import read_ct
from data_catalog.digest_index import DigestIndex
from data_catalog.examples.ct_labels import build
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources.ct_labels import check, scan


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("ct-labels"), 3)


@pytest.fixture
def root(built, tmp_path):
    """s0001: a mask per structure; s0002: NIfTI with a label map; s0003: DICOM with a label map."""
    return Path(shutil.copytree(built, tmp_path / "in"))


def context() -> ScanContext:
    return ScanContext(Path("no-archives-here"), DigestIndex())


def scanned(root: Path):
    found = list(scan(root, context()))
    return [x for x in found if isinstance(x, CtCase)], [x for x in found if isinstance(x, Rejected)]


def only_refusal(root: Path, case: str) -> Rejected:
    """The one refusal; the two other cases go on."""
    cases, rejected = scanned(root)
    assert sorted({"s0001", "s0002", "s0003"} - {case}) == [item.case_id for item in cases]
    (row,) = rejected
    assert row.path == str(root / case)
    return row


def test_each_layout_gives_a_case_that_can_be_read(root):
    cases, rejected = scanned(root)
    assert not rejected
    assert [case.case_id for case in cases] == ["s0001", "s0002", "s0003"]
    assert [case.patient_id for case in cases] == ["ct-labels/s0001", "ct-labels/s0002", "ct-labels/CT00002"]
    assert [len(case.image_paths) for case in cases] == [1, 1, 64]
    for case in cases:
        structures = {structure for structure, _ in read_ct(case).names.values()}
        assert {Structure.LUNG, Structure.RIB, Structure.HEART, Structure.CLAVICLE} <= structures


@pytest.mark.parametrize("case", ["s0001", "s0002", "s0003"])
def test_the_root_may_be_one_case(root, case):
    (found,), rejected = scanned(root / case)
    assert not rejected
    assert found.case_id == case


@pytest.mark.parametrize(
    ("image", "label"),
    [("ct", "segmentations"), ("image", "labels"), ("cxr", "mask"), ("ct", "mask"), ("CT", "Mask")],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_names_of_files(root, image, label, suffix):
    folder = root / "s0002"
    for old, new in (("cxr", image), ("mask", label)):
        volume = sitk.ReadImage(str(folder / f"{old}.nii.gz"))
        (folder / f"{old}.nii.gz").unlink()
        sitk.WriteImage(volume, str(folder / f"{new}{suffix}"))
    assert not scanned(root)[1]
    assert len(scanned(folder)[0]) == 1


def test_dicom_files_may_lie_in_the_case_itself(root):
    folder = root / "s0003"
    for path in (folder / "dicom").iterdir():
        path.rename(folder / path.name)
    (folder / "dicom").rmdir()
    assert len(scanned(root)[0]) == 3


def test_a_published_table_gives_age_sex_and_split(root):
    (root / "meta.csv").write_text("image_id;age;gender;split\ns0001;62;m;train\ns0002;71.5;f;test\ns0009;1;m;val\n")
    cases, _ = scanned(root)
    assert [(c.age_years, c.sex, c.split) for c in cases] == [(62, "M", "train"), (71.5, "F", "test"), (None, "", None)]
    (root / "meta.csv").write_text("image;age\ns0001;62\n")
    with pytest.raises(ValueError, match="image_id"):
        scanned(root)


def shifted(image: sitk.Image) -> sitk.Image:
    image.SetOrigin((image.GetOrigin()[0] + 5, *image.GetOrigin()[1:]))
    return image


def flipped(image: sitk.Image) -> sitk.Image:
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    return image


@pytest.mark.parametrize("change", [lambda image: image[:, :, 1:], shifted, flipped])
@pytest.mark.parametrize("name", ["s0001/segmentations/rib_left_4", "s0002/mask", "s0003/mask"])
def test_labels_on_another_grid_are_refused(root, change, name):
    path = str(root / f"{name}.nii.gz")
    sitk.WriteImage(change(sitk.ReadImage(path)), path)
    assert only_refusal(root, name.split("/")[0]).reason is Reason.MASK_SIZE_MISMATCH


@pytest.mark.parametrize(
    ("case", "lost", "reason"),
    [
        ("s0002", "cxr.nii.gz", Reason.FILE_MISSING),
        ("s0002", "mask.nii.gz", Reason.MASK_MISSING),
        ("s0002", "structures.csv", Reason.FILE_MISSING),
        ("s0003", "dicom/1-030.dcm", Reason.SLICES_MISSING),
        ("s0001", "ct.nii.gz", Reason.FILE_MISSING),
    ],
)
def test_a_missing_file_costs_one_case(root, case, lost, reason):
    (root / case / lost).unlink()
    assert only_refusal(root, case).reason is reason


def test_a_renamed_ct_is_missed(root):
    (root / "s0002" / "cxr.nii.gz").rename(root / "s0002" / "patient.nii.gz")
    row = only_refusal(root, "s0002")
    assert row.reason is Reason.FILE_MISSING
    assert "ct.nii.gz, cxr.nii.gz, image.nii.gz" in row.sentence


@pytest.mark.parametrize(
    ("case", "name"),
    [("s0002", "cxr.nii.gz"), ("s0002", "mask.nii.gz"), ("s0003", "dicom/1-030.dcm"), ("s0001", "ct.nii.gz")],
)
def test_a_truncated_file_costs_one_case(root, case, name):
    path = root / case / name
    path.write_bytes(path.read_bytes()[:-600])
    assert only_refusal(root, case).reason in (Reason.TRUNCATED, Reason.MASK_UNREADABLE)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"name,id\nlung_upper_lobe_left,10\n", Reason.MANIFEST_ROW_INVALID),
        ("structure,id\ngrößer,10\n".encode("cp1252"), Reason.MANIFEST_ROW_INVALID),
        (b"structure,id\nlung_upper_lobe_left,x\n", Reason.MANIFEST_ROW_INVALID),
        (b"structure,id\nspleen,1\n", Reason.MASK_INVALID),
    ],
)
def test_a_wrong_structures_csv_costs_one_case(root, data, reason):
    (root / "s0002" / "structures.csv").write_bytes(data)
    assert only_refusal(root, "s0002").reason is reason


def test_a_ct_twice_counts_once(root):
    """Also with other labels: one patient's CT must not be on both sides of a split."""
    shutil.copytree(root / "s0002", root / "s0009")
    (root / "s0009" / "structures.csv").write_text("structure,id\nlung_upper_lobe_left,10\n")
    cases, rejected = scanned(root)
    assert len(cases) == 3
    assert [(row.reason, row.path) for row in rejected] == [(Reason.DUPLICATE_IMAGE, str(root / "s0009"))]


def test_another_volume_beside_a_case_is_named(root):
    shutil.copy(root / "s0001" / "ct.nii.gz", root / "s0002" / "contrast.nii.gz")
    (root / "s0002" / "notes.txt").write_text("x")
    (root / "elsewhere").mkdir()
    cases, rejected = scanned(root)
    assert len(cases) == 3
    assert [(row.reason, Path(row.path).name) for row in rejected] == [(Reason.MANIFEST_ROW_INVALID, "contrast.nii.gz")]


def test_slices_of_two_series_are_refused(root):
    extra = root / "s0003" / "dicom"
    other = build(root.parent / "other", 3, seed=1) / "s0003" / "dicom"
    for path in list(other.iterdir())[:3]:
        shutil.copy(path, extra / f"x{path.name}")
    assert only_refusal(root, "s0003").reason is Reason.MIXED_SERIES


def test_the_digest_covers_image_labels_and_names(root):
    before = [case.sha256 for case in scanned(root)[0]]
    mask = str(root / "s0002" / "mask.nii.gz")
    image = sitk.ReadImage(mask)
    image[3, 3, 3] = 1
    sitk.WriteImage(image, mask)
    names = root / "s0003" / "structures.csv"
    names.write_text(names.read_text().replace("spleen", "liver"))
    single = str(root / "s0001" / "segmentations" / "heart.nii.gz")
    image = sitk.ReadImage(single)
    image[3, 3, 3] = 1
    sitk.WriteImage(image, single)
    after = [case.sha256 for case in scanned(root)[0]]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_a_folder_without_cts_is_no_source(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="expected a CT"):
        list(scan(tmp_path, context()))


def test_check_counts_what_is_named(root):
    items = {item.what: item for item in check(root, context())}
    assert items["CTs with labels"].found == "3"
    assert all(item.status == "ok" for item in items.values())
    for path in (root / "s0001" / "segmentations").glob("rib_*"):
        path.unlink()
    (root / "s0002" / "mask.nii.gz").unlink()
    items = {item.what: item for item in check(root, context())}
    assert (items["CTs that name rib"].found, items["CTs that name rib"].status) == ("1", "warn")
    assert items["refused: mask_missing"].status == "warn"


def test_the_drawn_thorax_is_a_chest(root):
    volume = read_ct(scanned(root)[0][1])
    lung = np.isin(volume.labels, [k for k, (s, _) in volume.names.items() if s is Structure.LUNG])
    rib = np.isin(volume.labels, [k for k, (s, _) in volume.names.items() if s is Structure.RIB])
    assert 2 < lung.sum() * np.prod(volume.spacing) / 1e6 < 7  # litres
    assert volume.hu[lung].mean() < -750
    assert volume.hu[rib].mean() > 200
    for number in range(1, 13):  # 24 ribs, left on the patient's left
        sides = [
            np.argwhere(volume.labels == k).mean(0)[2]
            for k, name in sorted(volume.names.items(), key=lambda item: item[1][1])
            if name in ((Structure.RIB, f"left_{number}"), (Structure.RIB, f"right_{number}"))
        ]
        assert sides[0] > sides[1]


@pytest.mark.shared_data
def test_the_real_ct_is_a_case(shared_data):
    for root in (shared_data / "ct-chest", shared_data):
        cases, _ = scanned(root)
        assert [case.case_id for case in cases] == ["ct-chest"]
