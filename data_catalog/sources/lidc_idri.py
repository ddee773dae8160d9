"""Adapter of LIDC-IDRI: thoracic CTs with the outlines of four readers, and radiographs of some of the patients.

Layouts: ``LIDC-IDRI/LIDC-IDRI-0001/<study>/<series>/*.dcm`` with one ``*.xml`` beside the images, whatever study and
series folders are called (UIDs, or dates and numbers as TCIA's own tool names them), and ``tcia-lidc-xml/185/*.xml`` of
LIDC-XML-only apart. Series and readings find each other by SeriesInstanceUID, never by a name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_catalog.ct.case import CtCase
from data_catalog.ct.lidc_consensus import SliceGrid, check_slices, find_consensus, grid_of
from data_catalog.ct.lidc_radiograph import CtSize, lesions_on, sizes_by_name
from data_catalog.ct.lidc_xml import Reading
from data_catalog.ct.series import order_slices, stack_affine
from data_catalog.ct.slices import Slice
from data_catalog.digest import digest_of
from data_catalog.manifest import Lesion, Sample, sample_id_of
from data_catalog.radiograph import Spacing, Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, Source
from data_catalog.sources.lidc_idri_files import KIND, STAGE, Files, Image, find_files

LICENCE = "CC BY 3.0"
URL = "https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX"
PATIENTS, CTS, RADIOGRAPHS = 1010, 1018, 290
"""As The Cancer Imaging Archive states them; Armato 2011 has 1,018 CTs as well."""


def scan(root: Path, context: ScanContext) -> Iterator[Sample | CtCase | Rejected]:
    """Yield a case per CT series, a row per frontal radiograph, and a refusal per file or series that cannot be used.

    Headers of all slices are read: a series with a gap is refused here, not when it is projected. A CT whose XML is
    refused is still a case; its nodules are then unknown.

    Args:
        root: the folder with the patients' folders, or one above.
        context: for its digests.

    Raises:
        ValueError: this is not LIDC-IDRI.
    """
    yield from _scan(find_files(root.resolve(), context.digests))


def _scan(files: Files) -> Iterator[Sample | CtCase | Rejected]:
    yield from files.refused
    sizes: dict[str, dict[str, CtSize]] = {}
    by_kind = sorted(files.series.items(), key=lambda item: (item[1][0].header["slice"] is None, str(item[1][0].path)))
    for uid, images in by_kind:
        reading = files.readings.get(uid)
        is_ct = images[0].header["slice"] is not None
        try:
            if any((image.header["slice"] is not None) != is_ct for image in images):
                raise _mixed(images[0].path.parent)
            if is_ct:
                yield from _ct(uid, images, reading, sizes)
            else:
                yield from _radiographs(images, reading, sizes)
        except Refusal as refusal:
            yield Rejected.of(refusal, path=images[0].path.parent, source=KIND, stage=STAGE)


def _ct(
    uid: str, images: list[Image], found: tuple[Reading, str] | None, sizes: dict[str, dict[str, CtSize]]
) -> Iterator[CtCase | Rejected]:
    slices = order_slices([image.slice for image in images])
    if found is not None:
        grid = _grid(slices)
        try:
            check_slices(found[0], grid)
            sizes[uid] = sizes_by_name(find_consensus(found[0], grid).groups, grid.spacing)
        except Refusal as refusal:
            yield Rejected.of(refusal, path=found[0].path, source=KIND, stage=STAGE)
            found = None
    first = images[0]
    yield CtCase(
        source=KIND,
        case_id=f"{first.patient}-{digest_of(uid)[:8]}",
        patient_id=f"{KIND}/{first.patient}",
        image_paths=tuple(str(item.path) for item in slices),
        sha256=digest_of(sorted(image.sha256 for image in images), found[1] if found else ""),
        licence=LICENCE,
        source_url=URL,
        annotation_paths=(str(found[0].path),) if found else (),
        age_years=first.header["age"],
        sex=first.header["sex"],
    )


def _grid(slices: list[Slice]) -> SliceGrid:
    return grid_of(slices, stack_affine(slices))


def _radiographs(
    images: list[Image], found: tuple[Reading, str] | None, sizes: dict[str, dict[str, CtSize]]
) -> Iterator[Sample | Rejected]:
    marked = set()
    if found is not None:
        findings = [finding for session in found[0].sessions for finding in session.nodules]
        marked = {contour.sop_instance_uid for finding in findings for contour in finding.contours}
        if marked and not marked & {image.header["sop"] for image in images}:
            yield Rejected(
                str(found[0].path),
                KIND,
                STAGE,
                Reason.ANNOTATION_INVALID,
                f"{found[0].path}: expected marks on an image of the series, but they are on {sorted(marked)[0]}. "
                "Copy the whole series again.",
            )
            found = None
    for image in images:
        view = image.header["radiograph"]["view"]
        if found is not None and marked and image.header["sop"] not in marked and not view:
            yield Rejected(
                str(image.path),
                KIND,
                STAGE,
                Reason.NOT_FRONTAL,
                f"{image.path}: expected a frontal view, but it states none, and the readers marked the other image of "
                "its series. Leave it out.",
            )
            continue
        lesions = None
        if found is not None and (not marked or image.header["sop"] in marked):
            lesions = lesions_on(found[0], image.header["sop"], sizes.get(found[0].ct_series_uid, {}))
        yield _sample(image, lesions)


def _sample(image: Image, lesions: tuple[Lesion, ...] | None) -> Sample:
    header, stated = image.header, image.header["radiograph"]
    return Sample(
        sample_id=sample_id_of(image.sha256),
        source=KIND,
        patient_id=f"{KIND}/{image.patient}",
        image_path=str(image.path),
        image_sha256=image.sha256,
        image_format="dicom",
        licence=LICENCE,
        source_url=URL,
        view=stated["view"],
        age_years=header["age"],
        sex=header["sex"],
        spacing=Spacing(*stated["spacing"]) if stated["spacing"] else None,
        lesions=lesions,
        dicom_path=str(image.path),
        sop_instance_uid=header["sop"] or None,
        height=stated["shape"][0],
        width=stated["shape"][1],
        flags=tuple(stated["flags"]),
    )


def _mixed(folder: Path) -> Refusal:
    return Refusal(
        Reason.MIXED_SERIES,
        f"{folder}: expected CT slices or radiographs under one SeriesInstanceUID, but got both. Copy it again.",
        folder,
    )


def check(root: Path, context: ScanContext) -> Iterator[CheckItem]:
    """Count patients, series and readings against what was published, and refusals by reason.

    Raises:
        ValueError: as :func:`scan`.
    """
    files = find_files(root.resolve(), context.digests)
    found = list(_scan(files))
    cases = [item for item in found if isinstance(item, CtCase)]
    samples = [item for item in found if isinstance(item, Sample)]
    patients = {case.patient_id for case in cases} | {sample.patient_id for sample in samples}
    yield _counted("patients", PATIENTS, len(patients))
    yield _counted("CT series", CTS, len(cases))
    with_reading = sum(bool(case.annotation_paths) for case in cases)
    yield _counted("CTs with their readers' XML", len(cases), with_reading, "Get LIDC-XML-only.zip and unpack it here.")
    yield _counted("frontal radiographs", RADIOGRAPHS, len(samples))
    yield CheckItem("radiographs with marks", "", str(sum(sample.lesions is not None for sample in samples)), "ok")
    yield from files.listing.items()
    if files.unmatched:
        advice = "Download their series too, or leave it so: they are not used."
        yield CheckItem("XML of series that are not here", "0", str(len(files.unmatched)), "warn", advice)
    rejected = [item for item in found if isinstance(item, Rejected)]
    for reason, count in sorted(Counter(row.reason for row in rejected).items()):
        first = next(row for row in rejected if row.reason is reason)
        yield CheckItem(f"refused: {reason}", "0", str(count), "warn", first.sentence)


PART = "Part of it is there, and that can be used; `cxr data fetch lidc-idri` gets the rest."


def _counted(what: str, expected: int, count: int, advice: str = PART) -> CheckItem:
    if count == expected and count:
        return CheckItem(what, str(expected), str(count), "ok")
    if what == "CT series" and not count:
        return CheckItem(what, str(expected), "0", "fail", "No CT can be used: see the refusals.")
    return CheckItem(what, str(expected), str(count), "warn", advice)


SOURCE = Source(
    kind=KIND,
    title="LIDC-IDRI",
    gives="CT with nodules of four readers: simulated radiographs with lung, rib and nodule masks; CR/DX with marks",
    licence=LICENCE,
    url=URL,
    obtain="`cxr data fetch lidc-idri`, or TCIA's own tool (125 GB in all).",
    structures=(Structure.LUNG, Structure.RIB, Structure.NODULE),
    scan=scan,
    check=check,
    is_ct=True,
)
