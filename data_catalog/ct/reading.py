"""A CT case to a CT in memory: DICOM or NIfTI, labels given or found by density, nodules by the readers' consensus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_catalog.ct.anatomy import label_by_density
from data_catalog.ct.case import CtCase
from data_catalog.ct.hounsfield import as_hu, check_hu
from data_catalog.ct.labels import read_labels
from data_catalog.ct.lidc_consensus import find_consensus, grid_of
from data_catalog.ct.lidc_xml import read_lidc_xml
from data_catalog.ct.nifti import Grid, is_nifti, read_nifti
from data_catalog.ct.plausible_labels import check_labels
from data_catalog.ct.series import CtSeries, read_series
from data_catalog.ct.volume import CtNodule, CtVolume
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal

ROUGH = (Structure.STERNUM, Structure.CLAVICLE)
"""Found by density only so that they are not called ribs: no ground truth, so they are not passed on."""

Labels = tuple[npt.NDArray[np.uint16], Mapping[int, tuple[Structure, str]]]


def read_ct(case: CtCase) -> CtVolume:
    """Read a CT with what is known of its anatomy.

    ``hu`` is clipped to [-1024, 32767]: padding such as -2048 counts as air. Where the case names no label map, lungs,
    ribs and the like are found by density. Nodules are those that at least half of the readers drew
    (:mod:`data_catalog.ct.lidc_consensus`).

    Raises:
        Refusal: what :func:`~data_catalog.ct.series.read_series` or :func:`~data_catalog.ct.nifti.read_nifti` refuse;
            NOT_HOUNSFIELD; WRONG_BODY_PART (no lung); MASK_MISSING, MASK_UNREADABLE, MASK_SIZE_MISMATCH, MASK_INVALID
            of the labels (also where the CT shows something else at their place); ANNOTATION_INVALID, UNSAFE_XML,
            TRUNCATED of the readers' XML.
    """
    first = Path(case.image_paths[0])
    series: CtSeries | None = None
    if is_nifti(first):
        values, grid = read_nifti(first)
        hu = as_hu(values)
    else:
        series = read_series([Path(path) for path in case.image_paths])
        hu = series.hu
        grid = Grid(hu.shape, series.affine)
    check_hu(hu, first if is_nifti(first) else first.parent)
    labels, names = _labels(case, hu, grid)
    if not any(structure is Structure.LUNG for structure, _ in names.values()):
        raise Refusal(
            Reason.WRONG_BODY_PART,
            f"{first}: expected a CT of the chest, but no voxel of it is labelled lung; it has "
            f"{sorted({str(structure) for structure, _ in names.values()})}. Leave it out.",
            first,
        )
    return CtVolume(hu, grid.affine, labels, names, _nodules(case, series), bool(case.annotation_paths))


def _labels(case: CtCase, hu: npt.NDArray[np.int16], grid: Grid) -> Labels:
    if not case.labels_path:
        labels, names = label_by_density(hu, grid.affine)
        return labels, {label: name for label, name in names.items() if name[0] not in ROUGH}
    path = Path(case.labels_path)
    labels, names = read_labels(path, Path(case.structures_path) if case.structures_path else None, grid)
    check_labels(path, hu, labels, names, grid.affine)
    return labels, names


def _nodules(case: CtCase, series: CtSeries | None) -> tuple[CtNodule, ...]:
    nodules: list[CtNodule] = []
    for path in map(Path, case.annotation_paths):
        reading = read_lidc_xml(path)
        if series is None or reading.series_uid != series.slices[0].series_uid:
            raise Refusal(
                Reason.ANNOTATION_INVALID,
                f"{path}: expected the reading of series "
                f"{series.slices[0].series_uid if series else '(none: the CT is no DICOM)'}, but it is of "
                f"{reading.series_uid}. Put each XML beside the series that it names.",
                path,
            )
        nodules.extend(find_consensus(reading, grid_of(series.slices, series.affine)).nodules)
    return tuple(nodules)
