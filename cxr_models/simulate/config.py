"""What is asked of a simulation: how many radiographs per CT, how large, and within which ranges they vary."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cxr_models.simulate.camera import SOURCE_TO_DETECTOR_MM, Display, Exposure, Tone, View
from cxr_models.simulate.spans import Positive, Span, above, within
from cxr_models.simulate.thorax import Thorax
from cxr_models.simulate.variation import VariationConfig


class SimulationConfig(BaseModel):
    """How radiographs are simulated from CTs. Radiograph ``i`` of a CT depends on everything but ``count``.

    Attributes:
        count: radiographs per CT.
        size: rows and columns, pixels; even.
        seed: another seed, other bodies, exposures, noise and nodules.
        bodies: different bodies per CT, over which the radiographs are spread: radiograph ``i`` is of body
            ``i`` modulo this; 0 for the CT as it is.
        views: drawn from evenly: "PA" (source behind the patient) or "AP".
        kvp: tube voltage, kV.
        mas: exposure, mAs.
        patient_mm: from the source to the middle of the patient, mm; the detector is 1800 mm from the source.
        rotation_deg: standard deviation of each of three angles between patient and beam, degrees.
        shift_mm: standard deviation of the beam's shift across and along the patient, mm.
        field: edge of the field, as a multiple of one that holds the lungs with a margin.
        scatter: scattered share of the light behind the patient.
        quanta_per_mas_mm2: quanta of the bare beam that the detector counts; fewer are more noise.
        contrast: steepness of the display curve, 1 is average.
        brightness: standard deviation of the display curve's shift.
        detail: how much detail of a few millimetres is raised for display.
        tones: curves from signal to grey, drawn from evenly: "logistic" or "linear".
        steepness: of that curve, before ``contrast``.
        gamma: grey in [0, 1] to this power; above 1 is darker.
        compression: how much of what changes over centimetres is taken away for display.
        unsharp: how much of an unsharp mask of some pixels is added.
        blur: standard deviation of the detector's blur, pixels.
        veil: share of the bare beam's light that the detector spreads over the image.
        nodules: most nodules that are set into one radiograph; 0 to this many are drawn, where patches are given.
        nodule_patches: folder of CT patches of nodules with their masks; "" for none.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(default=4, ge=1, le=10_000)
    size: int = Field(default=512, ge=64, le=2048, multiple_of=2)
    seed: int = Field(default=0, ge=0)
    bodies: int = Field(default=0, ge=0, le=10_000)
    views: tuple[View, ...] = Field(default=("PA",), min_length=1)
    kvp: Annotated[Span, AfterValidator(lambda span: above(span, 40.0))] = (102.0, 128.0)
    mas: Positive = (1.6, 5.0)
    patient_mm: Annotated[Span, AfterValidator(lambda span: within(span, 800.0, 1750.0))] = (1630.0, 1665.0)
    rotation_deg: float = Field(default=1.5, ge=0, le=15)
    shift_mm: float = Field(default=5.0, ge=0, le=100)
    field: Positive = (0.97, 1.08)
    scatter: Annotated[Span, AfterValidator(lambda span: within(span, 0.0, 0.95))] = (0.2, 0.4)
    quanta_per_mas_mm2: float = Field(default=2.5e5, gt=0)
    contrast: Positive = (0.9, 1.15)
    brightness: float = Field(default=0.03, ge=0, le=1)
    detail: Annotated[Span, AfterValidator(lambda span: within(span, 0.0, 5.0))] = (0.5, 1.1)
    tones: tuple[Tone, ...] = Field(default=("logistic",), min_length=1)
    steepness: Positive = (4.2, 4.2)
    gamma: Positive = (1.0, 1.0)
    compression: Annotated[Span, AfterValidator(lambda span: within(span, 0.0, 1.0))] = (0.5, 0.5)
    unsharp: Annotated[Span, AfterValidator(lambda span: within(span, 0.0, 10.0))] = (0.7, 0.7)
    blur: Positive = (0.45, 0.45)
    veil: Annotated[Span, AfterValidator(lambda span: within(span, 0.0, 1.0))] = (0.0, 0.0)
    nodules: int = Field(default=2, ge=0, le=20)
    nodule_patches: str = ""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    variation: VariationConfig = VariationConfig()

    @model_validator(mode="after")
    def _bodies_vary(self) -> SimulationConfig:
        if (self.bodies > 0) != (self.variation != VariationConfig()):
            raise ValueError(
                f"Expected `bodies` and `variation` together, but got {self.bodies} bodies and "
                f"{'none' if self.variation == VariationConfig() else 'some'} of the ways in which bodies vary"
            )
        return self

    def exposure(self, thorax: Thorax, rng: np.random.Generator) -> Exposure:
        """One exposure of ``thorax``, from ``rng``: centred a little above the lungs, as far as the CT reaches."""
        display = rng.spawn(1)[0]  # a stream of its own: other draws are what they were without it
        patient = float(rng.uniform(*self.patient_mm))
        first, second, third = rng.normal(0, self.rotation_deg, 3)
        across, along = rng.normal(0, self.shift_mm, 2)
        field = float(thorax.field_mm * rng.uniform(*self.field))
        low, high = thorax.ends[0] + 0.5 * field, thorax.ends[1] - 0.5 * field
        above = float(along) + 0.03 * thorax.field_mm
        return Exposure(
            rotation=(float(first), float(second), float(third)),
            shift=(float(across), 0.0, float(np.clip(above, low, high)) if low < high else 0.5 * (low + high)),
            field_mm=field * SOURCE_TO_DETECTOR_MM / patient,
            patient_mm=patient,
            kvp=float(np.round(rng.uniform(*self.kvp))),
            mas=float(np.round(np.exp(rng.uniform(*np.log(self.mas))), 2)),
            scatter=float(rng.uniform(*self.scatter)),
            contrast=float(rng.uniform(*self.contrast)),
            brightness=float(rng.normal(0, self.brightness)),
            view=self.views[int(rng.integers(len(self.views)))],
            detail=float(rng.uniform(*self.detail)),
            display=self._display(display),
        )

    def _display(self, rng: np.random.Generator) -> Display:
        tone = self.tones[int(rng.integers(len(self.tones)))]
        spans = (self.steepness, self.gamma, self.compression, self.unsharp, self.blur, self.veil)
        steepness, gamma, compression, unsharp, blur, veil = (float(rng.uniform(*span)) for span in spans)
        return Display(tone, steepness, gamma, compression, unsharp, blur, veil)
