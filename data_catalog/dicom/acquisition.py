"""How an image was taken, where its source says so in a sidecar: the JSON in ``Sample.acquisition``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_catalog.radiograph import Spacing
from data_catalog.refusals import Reason, Refusal


class Acquisition(BaseModel):
    """Acquisition of one digital radiograph, in the terms of the DICOM DX IOD. Other keys are ignored.

    Attributes:
        bits_stored: bits that count in each pixel of a 16-bit PNG; its levels run from 0 to 2^bits - 1.
        imager_pixel_spacing_mm: (row, column) at the detector, mm.
        distance_source_to_detector_mm: X-ray source to detector, mm.
        distance_source_to_patient_mm: X-ray source to the middle of the patient, mm.
        kvp: peak tube voltage, kV.
        exposure_mas: exposure, mAs.
        view: "PA" or "AP".
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    bits_stored: int = Field(ge=8, le=16)
    imager_pixel_spacing_mm: tuple[float, float]
    distance_source_to_detector_mm: float = Field(gt=0)
    distance_source_to_patient_mm: float = Field(gt=0)
    kvp: float | None = Field(default=None, gt=0)
    exposure_mas: float | None = Field(default=None, ge=0)
    view: Literal["PA", "AP"]

    @property
    def magnification(self) -> float:
        """Size on the detector over size in the patient."""
        return self.distance_source_to_detector_mm / self.distance_source_to_patient_mm

    @property
    def spacing(self) -> Spacing:
        """Spacing in the patient, mm: at the detector over the magnification."""
        row, column = self.imager_pixel_spacing_mm
        source = "ImagerPixelSpacing/(DistanceSourceToDetector/DistanceSourceToPatient)"
        return Spacing(row / self.magnification, column / self.magnification, source)


def parse_acquisition(text: str | None, path: Path) -> Acquisition:
    """Read ``Sample.acquisition`` of the image ``path``.

    Raises:
        Refusal: MANIFEST_ROW_INVALID where it is missing, is no JSON, or lacks a field.
    """
    try:
        return Acquisition.model_validate_json(text or "")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the JSON"
        raise Refusal(
            Reason.MANIFEST_ROW_INVALID,
            f"{path}: expected the acquisition of a phantom as JSON, but {where}: {first['msg']}. "
            "Render the cohort again.",
            path,
        ) from error
