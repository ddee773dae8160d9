"""CTs with their labels, as the simulation gets them."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset

from data_catalog.ct import reading
from data_catalog.ct.case import CtCase
from data_catalog.ct.reading import read_ct
from data_catalog.examples.ct_chest import NAMES, SPACING, draw_thorax
from data_catalog.examples.ct_labels import write_masks, write_names, write_volume
from data_catalog.examples.lidc_idri import ct_xml, jittered, write_ct
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal


@pytest.fixture
def thorax():
    return draw_thorax(3)


@pytest.fixture
def case(tmp_path, thorax):
    write_volume(tmp_path / "ct.nii.gz", thorax.hu, thorax)
    write_volume(tmp_path / "mask.nii.gz", thorax.labels.astype(np.uint8), thorax)
    write_names(tmp_path / "structures.csv")
    return CtCase(
        source="ct-labels",
        case_id="a",
        patient_id="ct-labels/a",
        image_paths=(str(tmp_path / "ct.nii.gz"),),
        labels_path=str(tmp_path / "mask.nii.gz"),
        structures_path=str(tmp_path / "structures.csv"),
        sha256="0" * 64,
        licence="CC0",
    )


def changed(case, **values):
    return case.model_copy(update=values)


def reason(case) -> Reason:
    with pytest.raises(Refusal) as caught:
        read_ct(case)
    assert caught.value.sentence.startswith("/")
    return caught.value.reason


def test_a_nifti_comes_as_it_was_written(case, thorax):
    volume = read_ct(case)
    np.testing.assert_array_equal(volume.hu, np.maximum(thorax.hu, -1024))
    np.testing.assert_array_equal(volume.labels, thorax.labels)
    np.testing.assert_allclose(volume.affine, thorax.affine, atol=1e-4)
    assert volume.spacing == pytest.approx(SPACING)
    assert volume.names[95] == (Structure.RIB, "left_4")
    assert not volume.nodules_known
    assert set(volume.names) == set(NAMES)


def test_the_affine_is_lps_where_nibabel_says_ras(case):
    ras = nibabel.load(case.image_paths[0]).affine
    np.testing.assert_allclose(read_ct(case).affine, np.diag([-1, -1, 1, 1]) @ ras, atol=1e-4)


@pytest.mark.parametrize("kind", ["folder", "map"])
def test_dicom_and_nifti_of_one_ct_are_the_same(case, thorax, tmp_path, kind):
    (tmp_path / "dicom").mkdir()
    base = Dataset()
    base.SeriesInstanceUID, base.StudyInstanceUID, base.PatientID = "1.2.3", "1.2", "P"
    write_ct(tmp_path / "dicom", thorax, base)
    if kind == "folder":
        write_masks(tmp_path / "segmentations", thorax)
        case = changed(case, labels_path=str(tmp_path / "segmentations"), structures_path="")
    one = read_ct(case)
    other = read_ct(changed(case, image_paths=tuple(map(str, (tmp_path / "dicom").iterdir()))))
    np.testing.assert_array_equal(one.hu, other.hu)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-4)
    np.testing.assert_array_equal(one.labels, other.labels)
    left_4 = next(label for label, name in one.names.items() if name == (Structure.RIB, "left_4"))
    np.testing.assert_array_equal(one.labels == left_4, thorax.labels == 95)


def test_a_mask_without_a_voxel_names_nothing(case, thorax, tmp_path):
    write_masks(tmp_path / "segmentations", thorax)
    write_volume(tmp_path / "segmentations" / "scapula_left.nii.gz", np.zeros(thorax.hu.shape, np.uint8), thorax)
    volume = read_ct(changed(case, labels_path=str(tmp_path / "segmentations"), structures_path=""))
    assert Structure.SCAPULA not in {structure for structure, _ in volume.names.values()}
    assert len(volume.names) == len(NAMES)


def test_nodules_come_from_the_readers_who_agree(thorax, case, tmp_path):
    base = Dataset()
    base.SeriesInstanceUID, base.StudyInstanceUID, base.PatientID = "1.2.3", "1.2", "P"
    (tmp_path / "dicom").mkdir()
    uids = write_ct(tmp_path / "dicom", thorax, base)
    rng = np.random.default_rng(0)
    masks = [[jittered(nodule, rng) for nodule in thorax.nodules] for _ in range(4)]
    xml = tmp_path / "dicom" / "readers.xml"
    xml.write_text(ct_xml("1.2.3", masks, uids, np.arange(64.0)))  # heights are wrong, UIDs win
    dicom = changed(
        case,
        image_paths=tuple(map(str, (tmp_path / "dicom").glob("*.dcm"))),
        annotation_paths=(str(xml),),
    )
    volume = read_ct(dicom)
    assert volume.nodules_known
    assert len(volume.nodules) == 2
    for number in range(2):
        votes = sum(reader[number].astype(int) for reader in masks)
        drawn = np.zeros(volume.hu.shape, bool)
        nodule = max(volume.nodules, key=lambda n, votes=votes: (votes[n.box] * n.mask).sum())
        drawn[nodule.box] = nodule.mask
        np.testing.assert_array_equal(drawn, votes >= 2)
        assert volume.hu[drawn].mean() > -500  # where it was drawn into the CT

    assert reason(changed(dicom, image_paths=case.image_paths)) is Reason.ANNOTATION_INVALID  # XML of a NIfTI
    xml.write_text(ct_xml("1.2.4", masks, uids, np.arange(64.0)))
    assert reason(dicom) is Reason.ANNOTATION_INVALID  # of another series


def test_without_labels_they_are_found_by_density(case, thorax, monkeypatch):
    def label(hu, affine):
        np.testing.assert_array_equal(hu, np.maximum(thorax.hu, -1024))
        np.testing.assert_allclose(affine, thorax.affine, atol=1e-4)
        return (hu < -500).astype(np.uint16), {1: (Structure.LUNG, ""), 2: (Structure.STERNUM, "")}

    monkeypatch.setattr(reading, "label_by_density", label)
    volume = read_ct(changed(case, labels_path="", structures_path=""))
    assert dict(volume.names) == {1: (Structure.LUNG, "")}
    np.testing.assert_array_equal(volume.labels == 1, thorax.hu < -500)


def test_padding_and_overflow_do_not_wrap(case, thorax):
    values = thorax.hu.astype(np.float32)
    values[:, :4], values[:, 4:6] = -3024.6, 1e6
    write_volume(Path(case.image_paths[0]), values, thorax)
    hu = read_ct(case).hu
    assert (hu[:, :4] == -1024).all()
    assert (hu[:, 4:6] == 32_767).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_is_no_number_is_refused(case, thorax, wrong, kind):
    """ITK would read it as 0 HU: water where the scanner saw nothing."""
    values = thorax.hu.astype(kind)
    values[-1, -1, -1] = wrong
    write_volume(Path(case.image_paths[0]), values, thorax)
    assert reason(case) is Reason.UNDECODABLE


def cut(path: Path, kept: float) -> None:
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_truncated_volume_is_refused(case, kept):
    cut(Path(case.image_paths[0]), kept)
    assert reason(case) is Reason.TRUNCATED


def test_a_truncated_volume_without_gzip_is_refused(case, thorax, tmp_path):
    path = tmp_path / "ct.nii"
    path.write_bytes(gzip.decompress(Path(case.image_paths[0]).read_bytes()))
    case = changed(case, image_paths=(str(path),))
    np.testing.assert_array_equal(read_ct(case).hu, np.maximum(thorax.hu, -1024))
    cut(path, 0.9)
    assert reason(case) is Reason.TRUNCATED
    path.write_bytes(b"not NIfTI" * 100)
    assert reason(case) is Reason.NOT_AN_IMAGE
    path.write_bytes(b"")
    assert reason(case) is Reason.EMPTY_FILE


def test_a_header_that_lies_is_refused(case, tmp_path):
    data = bytearray(gzip.decompress(Path(case.image_paths[0]).read_bytes()))
    data[42:44] = (-5).to_bytes(2, "little", signed=True)
    path = tmp_path / "ct.nii"
    path.write_bytes(data)
    assert reason(changed(case, image_paths=(str(path),))) is Reason.UNDECODABLE
    data[42:50] = b"\xff\x7f" * 4  # 32767 voxels along each axis
    path.write_bytes(data)
    assert reason(changed(case, image_paths=(str(path),))) is Reason.OVERSIZED


def test_four_axes_and_thin_slabs_are_refused(case, thorax):
    path = Path(case.image_paths[0])
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(thorax.hu)] * 2), str(path))
    assert reason(case) is Reason.MULTI_FRAME
    write_volume(path, thorax.hu[:8], thorax)
    assert reason(case) is Reason.TOO_SMALL


@pytest.mark.parametrize("change", [lambda hu: (hu + 1024) / 3000, lambda hu: hu + 2000, lambda hu: np.zeros_like(hu)])
def test_what_is_not_in_hounsfield_units_is_refused(case, thorax, change):
    write_volume(Path(case.image_paths[0]), change(thorax.hu.astype(np.float32)), thorax)
    assert reason(case) is Reason.NOT_HOUNSFIELD


def moved(image: sitk.Image, how: str) -> sitk.Image:
    if how == "size":
        return image[:-1, :, :]
    if how == "shifted":
        image.SetOrigin((image.GetOrigin()[0] + 3.5, *image.GetOrigin()[1:]))
    if how == "spacing":
        image.SetSpacing((3.5, 3.5, 4.1))
    if how == "flipped":
        image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    return image


@pytest.mark.parametrize("how", ["size", "shifted", "spacing", "flipped"])
def test_labels_on_another_grid_are_refused(case, how):
    image = sitk.ReadImage(case.labels_path)
    sitk.WriteImage(moved(image, how), case.labels_path)
    assert reason(case) is Reason.MASK_SIZE_MISMATCH


def test_labels_that_are_no_labels_are_refused(case, thorax, tmp_path):
    path = Path(case.labels_path)
    write_volume(path, thorax.labels + np.float32(0.5), thorax)
    assert reason(case) is Reason.MASK_INVALID
    write_volume(path, np.zeros(thorax.hu.shape, np.uint8), thorax)
    assert reason(case) is Reason.MASK_INVALID
    write_volume(path, (thorax.labels == 116).astype(np.uint8) * 116, thorax)  # a sternum, but no lung
    assert reason(case) is Reason.WRONG_BODY_PART
    cut(path, 0.5)
    assert reason(case) is Reason.MASK_UNREADABLE
    path.unlink()
    assert reason(case) is Reason.MASK_MISSING


@pytest.mark.parametrize(
    "text",
    [
        "group,structure_name,id\nx,lung_upper_lobe_left,10\n",  # a changed column name
        "structure,id\nlung_upper_lobe_left,ten\n",
        "structure,id\nlung_upper_lobe_left,0\n",
        "structure,id\nlung_upper_lobe_left,70000\n",
        "structure,id\nlung_upper_lobe_left,10\nrib_left_4,10\n",
    ],
)
def test_a_wrong_structures_csv_is_refused(case, text):
    Path(case.structures_path).write_text(text)
    assert reason(case) is Reason.MANIFEST_ROW_INVALID


def test_structures_csv_in_another_encoding_or_missing_is_refused(case):
    Path(case.structures_path).write_bytes("structure,id\nlung_upper_lobe_left,10\nMilz größer,2\n".encode("cp1252"))
    assert reason(case) is Reason.MANIFEST_ROW_INVALID
    assert reason(changed(case, structures_path="")) is Reason.FILE_MISSING
    Path(case.structures_path).write_bytes(b"")
    assert reason(case) is Reason.MANIFEST_ROW_INVALID


def test_names_without_a_word_are_left_out(case):
    Path(case.structures_path).write_text("structure,id\nlung_upper_lobe_left,10\nspleen,11\n")
    volume = read_ct(case)
    assert dict(volume.names) == {10: (Structure.LUNG, "left_upper_lobe")}
    assert set(np.unique(volume.labels)) == {0, 10}


@pytest.mark.shared_data
def test_the_real_ct_is_read(shared_data):
    folder = shared_data / "ct-chest"
    volume = read_ct(
        CtCase(
            source="ct-labels",
            case_id="ct-chest",
            patient_id="ct-labels/ct-chest",
            image_paths=(str(folder / "cxr.nii.gz"),),
            labels_path=str(folder / "mask.nii.gz"),
            structures_path=str(folder / "structures.csv"),
            sha256="0" * 64,
            licence="MIT",
        )
    )
    assert volume.hu.shape == (133, 512, 512)
    assert (volume.hu.min(), volume.hu.max()) == (-1024, 3071)
    assert volume.spacing == pytest.approx((2.5, 0.703125, 0.703125))
    named = {structure for structure, _ in volume.names.values()}
    assert {Structure.LUNG, Structure.RIB, Structure.HEART, Structure.STERNUM, Structure.COSTAL_CARTILAGE} <= named
    lung = np.isin(volume.labels, [label for label, (s, _) in volume.names.items() if s is Structure.LUNG])
    assert 2.0 < lung.sum() * np.prod(volume.spacing) / 1e6 < 9.0  # litres
    assert np.median(volume.hu[lung]) < -700
    left = np.isin(volume.labels, [k for k, (s, p) in volume.names.items() if s is Structure.LUNG and "left" in p])
    right = lung & ~left
    x = [volume.affine[0] @ [*np.argwhere(side).mean(0)[::-1], 1] for side in (left, right)]
    assert x[0] > x[1]  # LPS: the patient's left has the larger x
