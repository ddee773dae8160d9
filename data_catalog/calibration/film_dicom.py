"""A rectified film as DICOM Secondary Capture (PS3.3 A.8.1), with the calibration in it, and as a JSON record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from data_catalog.atomic import replacing
from data_catalog.calibration.camera import Camera
from data_catalog.calibration.film import FilmConfig, RectifiedFilm
from data_catalog.calibration.photograph import Photograph, srgb_from_light
from data_catalog.dicom.write import add_pixels, derived_uid, encoded
from data_catalog.refusals import text_of

WRITER_VERSION = "1"
"""Part of every UID: raise it when the bytes that come out for one photograph change."""
DENSITY_STEPS = 1000
"""Stored value of optical density 1 (RescaleType OD, PS3.3 C.11.1.1.2: thousands of optical density)."""
DENSITY_BITS = 12


def stored_levels(film: RectifiedFilm, tone: str) -> tuple[npt.NDArray[np.uint8 | np.uint16], int]:
    """Stored values (H, W) and their bits: 8 for "displayed", 12 for "transmission" and "density".

    White, the highest level, is the open light box; nothing is stretched. Of density the highest value is the darkest.
    """
    if tone == "displayed":
        return (srgb_from_light(film.transmission) * 255).round().astype(np.uint8), 8
    if tone == "transmission":
        return (np.clip(film.transmission, 0, 1) * 4095).round().astype(np.uint16), 12
    density = -np.log10(np.clip(film.transmission, 10 ** -(4095 / DENSITY_STEPS), 1))
    return (density * DENSITY_STEPS).round().astype(np.uint16), DENSITY_BITS


def write_film(
    film: RectifiedFilm, photo: Photograph, config: FilmConfig, camera: Camera | None, out: Path
) -> dict[str, Any]:
    """Write ``out`` (DICOM) and the JSON record beside it, each atomically; the same input gives the same bytes.

    Returns:
        The record.

    Raises:
        OSError: the folder cannot be written.
    """
    levels, bits = stored_levels(film, config.tone)
    ds = _dataset(film, photo, config, camera)
    add_pixels(ds, levels, bits)
    if config.tone == "density":
        ds.PhotometricInterpretation = "MONOCHROME1"
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "OD"
    if bits > 8:
        ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = str(1 << (bits - 1)), str(1 << bits), "LINEAR"
    data = encoded(ds)
    with replacing(out) as part:
        part.write_bytes(data)
    record = film_record(film, photo, config, camera) | {
        "dicom": out.name, "sop_instance_uid": str(ds.SOPInstanceUID), "rows": int(ds.Rows), "columns": int(ds.Columns),
    }  # fmt: skip
    with replacing(out.with_suffix(".json")) as part:
        part.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


def film_record(film: RectifiedFilm, photo: Photograph, config: FilmConfig, camera: Camera | None) -> dict[str, Any]:
    """What was found, as JSON values."""
    spacing = spacing_mm(film)
    return {
        "schema": "cxr-film",
        "schema_version": 1,
        "photograph": {
            "name": text_of(photo.path.name), "sha256": photo.sha256, "size": list(photo.size),
            "orientation": photo.orientation,
        },
        "camera_sha256": camera.digest if camera else None,
        "corners_px": [[round(float(value), 3) for value in corner] for corner in film.corners],
        "side_residual_px": [round(value, 3) for value in film.outline.residual_px],
        "size_mm": None if film.size_mm is None else {"height": film.size_mm[0], "width": film.size_mm[1]},
        "spacing_mm": None if spacing is None else {"row": spacing[0], "column": spacing[1], "plane": "film"},
        "light_box": {
            "source": film.flat.source, "evenness": round(film.flat.evenness, 4),
            "residual": round(film.flat.residual, 4), "saturated": round(film.flat.saturated, 4),
        },
        "tone": config.tone,
        "white": config.white,
        "notes": list(film.notes),
    }  # fmt: skip


def spacing_mm(film: RectifiedFilm) -> tuple[float, float] | None:
    """(row, column) on the film, or None where its size is unknown."""
    if film.size_mm is None:
        return None
    rows, columns = film.transmission.shape
    return film.size_mm[0] / rows, film.size_mm[1] / columns


def _dataset(film: RectifiedFilm, photo: Photograph, config: FilmConfig, camera: Camera | None) -> Dataset:
    """Everything but the pixels. No dates and no random UIDs: all follows from the photograph and how it was read."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = SecondaryCaptureImageStorage
    identity = (photo.sha256, camera.digest if camera else "", config, film.flat.source, WRITER_VERSION)
    ds.SOPInstanceUID = derived_uid("film instance", *_texts(identity))
    ds.StudyInstanceUID = derived_uid("film study", photo.sha256)
    ds.SeriesInstanceUID = derived_uid("film series", photo.sha256)
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
        "AccessionNumber", "ReferringPhysicianName", "ContentDate", "ContentTime", "Manufacturer",
        "PatientOrientation", "Laterality",
    ):  # fmt: skip
        setattr(ds, keyword, None)
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.Modality = "RG"  # conventional film (PS3.3 C.7.3.1.1.1)
    ds.ConversionType = "DF"  # digitized film (PS3.3 C.8.6.1)
    ds.BodyPartExamined = "CHEST"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.SecondaryCaptureDeviceSoftwareVersions = "cxr calibrate film"
    if camera:
        ds.SecondaryCaptureDeviceID = camera.digest
    ds.DerivationDescription = _derivation(film, config, camera)
    # BurnedInAnnotation is left out: films carry names, and nobody looked.
    start = photo.path.open("rb").read(3)
    if start == b"\xff\xd8\xff":
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio = f"{photo.pixels.nbytes / photo.path.stat().st_size:.2f}"
        ds.LossyImageCompressionMethod = "ISO_10918_1"
    _add_spacing(ds, film)
    return ds


def _add_spacing(ds: Dataset, film: RectifiedFilm) -> None:
    """Spacing on the film (PS3.3 C.8.6.2, 10.7): the film itself is the object of known size."""
    spacing = spacing_mm(film)
    if spacing is None or film.size_mm is None:
        return
    ds.NominalScannedPixelSpacing = [f"{value:.8g}" for value in spacing]
    ds.PixelSpacing = [f"{value:.8g}" for value in spacing]
    ds.PixelSpacingCalibrationType = "FIDUCIAL"
    height, width = film.size_mm
    ds.PixelSpacingCalibrationDescription = f"Film {width:.4g} x {height:.4g} mm; mm on the film, not in patient"


def _derivation(film: RectifiedFilm, config: FilmConfig, camera: Camera | None) -> str:
    lens = f"lens distortion corrected with camera {camera.digest[:16]}" if camera else "lens distortion not corrected"
    even = {
        "photograph": "light box evened with a photograph of it",
        "light box around the film": "light box evened from its light around the film",
        "none": "light not evened",
    }[film.flat.source]
    grey = {
        "displayed": "grey is the sRGB value of transmission",
        "transmission": "grey is transmission",
        "density": "stored value is 1000 times optical density",
    }[config.tone]
    return (
        f"Photographed film: {lens}; rectified from its four corners; {even}; sharpness restored (Wiener filter); "
        f"{grey}, 1 is {'the open light box' if config.white == 'box' else 'the brightest part of the film'}"
    )


def _texts(parts: tuple[Any, ...]) -> list[str]:
    return [part.model_dump_json() if hasattr(part, "model_dump_json") else str(part) for part in parts]
