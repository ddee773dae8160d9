"""Adapter of CTs with label maps: a folder per case with a NIfTI or DICOM CT, labels on its grid, and their names.

Names are those of TotalSegmentator: as a label map with ``structures.csv``, or as its data set lays them out, one mask
per structure in ``segmentations/`` (Wasserthal 2023), with age, sex and split from its ``meta.csv`` where there is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_catalog.ct.case import CtCase
from data_catalog.ct.labels import names_in_folder, read_names
from data_catalog.digest import digest_of
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, Source
from data_catalog.sources.ct_labels_files import IMAGES, LABELS, Case, check_grids, find_cases, image_digests
from data_catalog.tables import number, read_table

KIND = "ct-labels"
STAGE = "ingest"
LICENCE = "as supplied by the user"
META = "meta.csv"
_SEX = {"m": "M", "f": "F"}
_SPLIT = {"train": "train", "val": "val", "test": "test"}


def scan(root: Path, context: ScanContext) -> Iterator[CtCase | Rejected]:
    """Yield a case per folder with a CT, or why it cannot be used.

    Headers are compared: labels must lie on the CT's own grid. Voxels are read where they are projected.

    Args:
        root: one case, or a folder of cases.
        context: for its digests.

    Raises:
        ValueError: no CT in it, or a ``meta.csv`` without its columns.
    """
    root = root.resolve()
    meta = _meta(root)
    seen: dict[str, Path] = {}
    cases = find_cases(root)
    if not cases:
        raise ValueError(
            f"{root}: expected a CT ({', '.join(f'{name}.nii.gz' for name in IMAGES)}, or DICOM files) with labels "
            f"({', '.join(f'{name}.nii.gz' for name in LABELS)}, or a folder segmentations), here or in its folders, "
            "but there is none. See docs/datasets.md for the layout."
        )
    for case in cases:
        try:
            found, image = _case(case, meta.get(case.folder.name, {}), context)
            first = seen.setdefault(image, case.folder)
            if first != case.folder:
                raise Refusal(
                    Reason.DUPLICATE_IMAGE,
                    f"{case.folder}: expected each CT once, but its image is that of {first}. The first is kept.",
                    case.folder,
                )
            yield found
        except Refusal as refusal:
            yield Rejected(str(case.folder), KIND, STAGE, refusal.reason, refusal.sentence)
        except OSError as error:
            sentence = f"{case.folder}: expected readable files, but got {error}. Check their permissions."
            yield Rejected(str(case.folder), KIND, STAGE, Reason.UNREADABLE, sentence)
        for path in case.extra:
            sentence = f"{path}: expected no other volume in a case. Remove it, or rename it to what it is."
            yield Rejected(str(path), KIND, STAGE, Reason.MANIFEST_ROW_INVALID, sentence)


def _case(case: Case, meta: dict[str, str], context: ScanContext) -> tuple[CtCase, str]:
    """The case, and the digest of its image alone."""
    if not case.images:
        raise Refusal(
            Reason.FILE_MISSING,
            f"{case.folder}: expected a CT named {', '.join(f'{name}.nii.gz' for name in IMAGES)}, or DICOM files, but "
            "there is none. Copy it again, or rename it.",
            case.folder,
        )
    if case.labels is None:
        raise Refusal(
            Reason.MASK_MISSING,
            f"{case.folder}: expected labels named {', '.join(f'{name}.nii.gz' for name in LABELS)}, or a folder "
            "segmentations, but there is none. Make them with TotalSegmentator.",
            case.folder,
        )
    names = {} if case.labels.is_dir() else _names(case)
    digests, patient = image_digests(case, context.digests)
    labels = check_grids(case, context.digests)
    if case.structures is not None and names:
        labels[case.structures.name] = context.digests.of(case.structures)
    found = CtCase(
        source=KIND,
        case_id=case.folder.name,
        patient_id=f"{KIND}/{patient or case.folder.name}",
        image_paths=tuple(str(path) for path in case.images),
        sha256=digest_of(sorted(digests), labels),
        licence=LICENCE,
        labels_path=str(case.labels),
        structures_path=str(case.structures) if names else "",
        split=_SPLIT.get(meta.get("split", "")),
        age_years=_age(meta.get("age", "")),
        sex=_SEX.get(meta.get("gender", "").lower(), ""),
    )
    return found, digest_of(sorted(digests))


def _names(case: Case) -> dict[int, tuple[Structure, str]]:
    if case.structures is None:
        raise Refusal(
            Reason.FILE_MISSING,
            f"{case.folder}: expected structures.csv (columns structure, id) beside the label map, but there is none. "
            "Add it: numbers alone do not say what they show.",
            case.folder,
        )
    names = read_names(case.structures)
    if not names:
        raise Refusal(
            Reason.MASK_INVALID,
            f"{case.structures}: expected names such as lung_upper_lobe_left or rib_left_4, but it has none of the "
            "chest. Use TotalSegmentator's names.",
            case.structures,
        )
    return names


def _age(text: str) -> float | None:
    years = number(text)
    return years if years is not None and 0 <= years <= 120 else None


def _meta(root: Path) -> dict[str, dict[str, str]]:
    path = root / META
    if not path.is_file():
        return {}
    return {row["image_id"]: row for _, row in read_table(path, ("image_id",), delimiter=";")}


def check(root: Path, context: ScanContext) -> Iterator[CheckItem]:
    """Count cases, the structures that they name, and refusals by reason.

    Raises:
        ValueError: as :func:`scan`.
    """
    found = list(scan(root, context))
    cases = [item for item in found if isinstance(item, CtCase)]
    advice = "" if cases else "No CT can be used: see the refusals."
    yield CheckItem("CTs with labels", "at least 1", str(len(cases)), "ok" if cases else "fail", advice)
    named: Counter[Structure] = Counter()
    for case in cases:
        labels = Path(case.labels_path)
        names = names_in_folder(labels) if labels.is_dir() else read_names(Path(case.structures_path))
        named.update({structure for structure, _ in names.values()})
    for structure in (Structure.LUNG, Structure.RIB):
        enough = named[structure] == len(cases)
        why = "" if enough else "Cases without it give radiographs without its mask."
        yield CheckItem(
            f"CTs that name {structure}", str(len(cases)), str(named[structure]), "ok" if enough else "warn", why
        )
    rejected = [item for item in found if isinstance(item, Rejected)]
    for reason, count in sorted(Counter(row.reason for row in rejected).items()):
        first = next(row for row in rejected if row.reason is reason)
        yield CheckItem(f"refused: {reason}", "0", str(count), "warn", first.sentence)


SOURCE = Source(
    kind=KIND,
    title="CTs with label maps",
    gives="simulated radiographs with masks of lungs, ribs, heart and whatever else is labelled; rib-free image",
    licence=LICENCE,
    url="https://doi.org/10.5281/zenodo.6802613",
    obtain="Any chest CT with TotalSegmentator's labels, or TotalSegmentator's own data set (CC BY 4.0).",
    structures=(Structure.LUNG, Structure.RIB),
    scan=scan,
    check=check,
    is_ct=True,
)
