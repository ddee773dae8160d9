"""A small LIDC-IDRI as TCIA lays it out: CTs with four readers' XML, and radiographs of some of the patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from data_catalog.dicom.write import derived_uid
from data_catalog.examples.ct_chest import SHAPE, SPACING, Ellipsoid, Thorax, draw_thorax

READERS = 4
Mask = npt.NDArray[np.bool_]


def build(folder: Path, images: int = 3, seed: int = 0) -> Path:
    """Write at least three patients with a CT each, every second one with a radiograph.

    Each of four readers outlines each nodule a little differently; some leave one out. Everything is invented.
    """
    for number in range(max(images, 3)):
        _patient(folder / "LIDC-IDRI" / f"LIDC-IDRI-{number + 1:04d}", seed, number)
    return folder


def _patient(folder: Path, seed: int, number: int) -> None:
    thorax = draw_thorax(1000 * seed + number)
    rng = np.random.default_rng([seed, number])
    base = Dataset()
    base.PatientID, base.PatientSex, base.PatientAge = folder.name, "FM"[number % 2], f"{50 + number:03d}Y"
    base.StudyInstanceUID = derived_uid("lidc study", str(seed), str(number))
    base.SeriesInstanceUID = derived_uid("lidc series", str(seed), str(number))
    series = folder / base.StudyInstanceUID / base.SeriesInstanceUID
    series.mkdir(parents=True, exist_ok=True)
    uids = write_ct(series, thorax, base)
    heights = thorax.affine[2, 3] + SPACING[0] * np.arange(SHAPE[0])
    readings = [[jittered(nodule, rng) for nodule in thorax.nodules] for _ in range(READERS)]
    if number % 3 == 2:
        readings = [readings[0], [], [], []]  # what one reader alone sees is no consensus
    (series / f"{69 + number:03d}.xml").write_text(ct_xml(base.SeriesInstanceUID, readings, uids, heights))
    if number % 2 == 0:
        _radiograph(folder, thorax, base, seed, number)


def write_ct(folder: Path, thorax: Thorax, base: Dataset) -> list[str]:
    """Write ``1-001.dcm`` and so on, from the head down; gives the SOPInstanceUID of each slice from the feet up."""
    uids = [derived_uid("lidc slice", base.SeriesInstanceUID, str(index)) for index in range(SHAPE[0])]
    for index, uid in enumerate(uids):
        ds = _image(base, CTImageStorage, uid)
        ds.Modality, ds.BodyPartExamined, ds.ImageType = "CT", "CHEST", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.InstanceNumber = SHAPE[0] - index
        ds.ImagePositionPatient = [float(v) for v in thorax.affine[:3] @ [0, 0, index, 1]]
        ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = (
            [1, 0, 0, 0, 1, 0],
            list(SPACING[1:]),
            SPACING[0],
        )
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.PixelPaddingValue = -2000 + 1024
        _pixels(ds, (thorax.hu[index].astype(np.int32) + 1024).astype("<i2"), 16)
        ds.PixelRepresentation = 1
        ds.save_as(folder / f"1-{SHAPE[0] - index:03d}.dcm", enforce_file_format=True)
    return [str(uid) for uid in uids]


def jittered(nodule: Ellipsoid, rng: np.random.Generator) -> Mask:
    """(D, H, W) bool: one reader's idea of a nodule."""
    centre = np.array(nodule.centre) + rng.uniform(-0.5, 0.5, 3)
    radii = np.array(nodule.radii) * rng.uniform(0.85, 1.15, 3)
    return Ellipsoid(tuple(centre), tuple(radii)).mask()


def outlines(mask: Mask) -> dict[int, npt.NDArray[np.int32]]:
    """Slice -> (N, 2) of (x, y): the outer border of a mask without holes, first pixels outside, in order."""
    found = {}
    for index in np.flatnonzero(mask.any((1, 2))):
        grown = cv2.dilate(mask[index].astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
        border, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        points = border[0][:, 0]
        found[int(index)] = np.concatenate([points, points[:1]])  # closed, as the published ones are
    return found


def ct_xml(series: str, readings: Sequence[Sequence[Mask]], uids: Sequence[str], heights: Sequence[float]) -> str:
    """A ``LidcReadMessage``: per reader the masks that he outlined, a small nodule and another finding."""
    sessions = "".join(_ct_session(reader, masks, uids, heights) for reader, masks in enumerate(readings))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<LidcReadMessage uid="2.25.1" xmlns="http://www.nih.gov" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n<ResponseHeader>\n<Version>1.8.1</Version>\n'
        "<TaskDescription>Second unblinded read</TaskDescription>\n"
        f"<SeriesInstanceUid>{series}</SeriesInstanceUid>\n</ResponseHeader>\n{sessions}</LidcReadMessage>\n"
    )


def _ct_session(reader: int, masks: Sequence[Mask], uids: Sequence[str], heights: Sequence[float]) -> str:
    parts = ["<readingSession>\n<annotationVersion>3.12</annotationVersion>\n",
             f"<servicingRadiologistID>{reader + 1}</servicingRadiologistID>\n"]  # fmt: skip
    for number, mask in enumerate(masks):
        ratings = (
            f"<subtlety>{3 + (reader + number) % 3}</subtlety>\n<malignancy>{2 + (reader * number) % 3}</malignancy>\n"
        )
        rois = "".join(_roi(uids[index], heights[index], points) for index, points in outlines(mask).items())
        parts.append(
            f"<unblindedReadNodule>\n<noduleID>R{reader}_{number}</noduleID>\n<characteristics>\n{ratings}"
            f"</characteristics>\n{rois}</unblindedReadNodule>\n"
        )
    place = f"<imageZposition>{heights[20]:.6f} </imageZposition>\n<imageSOP_UID>{uids[20]}</imageSOP_UID>\n"
    point = "<xCoord>30</xCoord>\n<yCoord>50</yCoord>\n"
    parts.append(
        f"<unblindedReadNodule>\n<noduleID>small</noduleID>\n<roi>\n{place}<inclusion>TRUE</inclusion>\n<edgeMap>\n"
        f"{point}</edgeMap>\n</roi>\n</unblindedReadNodule>\n"
        f"<nonNodule>\n<nonNoduleID>other</nonNoduleID>\n{place}<locus>\n{point}</locus>\n</nonNodule>\n"
        "</readingSession>\n"
    )
    return "".join(parts)


def _roi(uid: str, height: float, points: npt.NDArray[np.int32]) -> str:
    edge = "".join(f"<edgeMap>\n<xCoord>{x}</xCoord>\n<yCoord>{y}</yCoord>\n</edgeMap>\n" for x, y in points)
    return (
        f"<roi>\n<imageZposition>{height:.6f} </imageZposition>\n<imageSOP_UID>{uid}</imageSOP_UID>\n"
        f"<inclusion>TRUE</inclusion>\n{edge}</roi>\n"
    )


def _radiograph(folder: Path, thorax: Thorax, base: Dataset, seed: int, number: int) -> None:
    ct_series = str(base.SeriesInstanceUID)
    base.SeriesInstanceUID = derived_uid("lidc radiograph series", str(seed), str(number))
    base.StudyInstanceUID = derived_uid("lidc radiograph study", str(seed), str(number))
    path = folder / base.StudyInstanceUID / base.SeriesInstanceUID
    path.mkdir(parents=True, exist_ok=True)
    ds = _image(base, DigitalXRayImageStorageForPresentation, derived_uid("lidc radiograph", str(seed), str(number)))
    levels, per_voxel = projected(thorax)
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition, ds.ImageType = "DX", "CHEST", "PA", ["ORIGINAL", "PRIMARY"]
    ds.PatientOrientation, ds.InstanceNumber, ds.ImagerPixelSpacing = ["L", "F"], 1, [1.0, 1.0]
    ds.PresentationIntentType = "FOR PRESENTATION"
    _pixels(ds, levels.astype("<u2"), 12)
    ds.save_as(path / "1-1.dcm", enforce_file_format=True)
    marks = [
        (f"R0_{index}", (nodule.centre[2] + 0.5) * per_voxel[1], (SHAPE[0] - nodule.centre[0] - 0.5) * per_voxel[0])
        for index, nodule in enumerate(thorax.nodules)
    ]
    xml = cxr_xml(str(base.SeriesInstanceUID), ct_series, str(ds.SOPInstanceUID), marks)
    (path / f"{68 + number:03d}.xml").write_text(xml)


def projected(thorax: Thorax) -> tuple[npt.NDArray[np.uint16], tuple[float, float]]:
    """A radiograph of 1 mm pixels by parallel rays from back to front, 12 bits, and its pixels per voxel (z, x)."""
    dense = np.maximum(thorax.hu.astype(float) + 1000, 0).sum(1)[::-1] * SPACING[1] / 1000  # mm of water; head up
    size = (round(SHAPE[2] * SPACING[2]), round(SHAPE[0] * SPACING[0]))
    grown = np.clip(cv2.resize(dense, size, interpolation=cv2.INTER_LINEAR) / np.percentile(dense, 99.5), 0, 1)
    return np.rint(grown**0.7 * 4000).astype(np.uint16), (size[1] / SHAPE[0], size[0] / SHAPE[2])


def cxr_xml(series: str, ct_series: str, image: str, marks: Sequence[tuple[str, float, float]]) -> str:
    """An ``IdriReadMessage``: four readers, a point each; the last mark is seen by one of them only."""
    sessions = []
    for reader in range(READERS):
        reads = []
        for number, (name, x, y) in enumerate(marks):
            seen = number + 1 < len(marks) or reader == 0
            rated = "<confidence>3</confidence>\n<subtlety>4</subtlety>\n" if seen else "<confidence>1</confidence>\n"
            reads.append(
                f"<unblindedRead>\n<noduleID>{name}</noduleID>\n<characteristics>\n{rated}</characteristics>\n<roi>\n"
                f"<imageSOP_UID>{image}</imageSOP_UID>\n<edgeMap>\n<xCoord>{round(x) + reader % 2}</xCoord>\n"
                f"<yCoord>{round(y) - reader % 2}</yCoord>\n</edgeMap>\n</roi>\n</unblindedRead>\n"
            )
        sessions.append(
            "<CXRreadingSession>\n<servicingRadiologistID>anonymous</servicingRadiologistID>\n"
            f"{''.join(reads)}</CXRreadingSession>\n"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<IdriReadMessage uid="2.25.2" xmlns="http://www.nih.gov/idri">\n'
        "<ResponseHeader>\n<Version>1.4</Version>\n<TaskDescription>CXR read</TaskDescription>\n"
        f"<CTSeriesInstanceUid>{ct_series}</CTSeriesInstanceUid>\n<CXRSeriesInstanceUid>{series}</CXRSeriesInstanceUid>\n"
        f"<Modality>CXR</Modality>\n</ResponseHeader>\n{''.join(sessions)}</IdriReadMessage>\n"
    )


def _image(base: Dataset, sop_class: UID, uid: UID) -> Dataset:
    ds = Dataset()
    ds.update(base)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    for keyword in ("PatientName", "PatientBirthDate", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
                    "ReferringPhysicianName", "Manufacturer", "Laterality"):  # fmt: skip
        setattr(ds, keyword, None)
    ds.SeriesNumber = 1
    return ds


def _pixels(ds: Dataset, values: npt.NDArray[np.integer], bits: int) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, 0
    ds.PixelData = values.tobytes()
