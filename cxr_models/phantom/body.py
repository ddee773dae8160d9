"""What varies from patient to patient, and the surfaces of rib cage, diaphragm and skin that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr_models.phantom.shapes import Floats, Reals

_SQUARENESS = 2.4  # exponent of the chest's cross-section: 2 is an ellipse, larger is squarer


@dataclass(frozen=True, slots=True)
class Build:
    """One patient's measures. Lengths in mm, angles in degrees; ``left`` is the patient's left, -x.

    Attributes:
        half_width: of the pleural space at its widest.
        half_depth: of the pleural space at its deepest.
        apex: z of the lung apices.
        dome_right: z of the top of the right hemidiaphragm.
        dome_left: z of the top of the left hemidiaphragm.
        fat: thickness under the skin.
        muscle: thickness of the chest wall outside the ribs.
        breast: radius of the breasts, 0 for none.
        heart: size of the heart, 1 is average.
        heart_tilt: of the heart's long axis below the horizontal.
        aorta: radius of the aorta.
        rib_slope: how far a middle rib falls from spine to front.
        rib_height: half the height of a rib's section.
        rib_bow: how much the back part of a rib rises before it falls.
        mineral: density of bone, 1 is average.
        vessels: calibre of the pulmonary vessels, 1 is average.
        lung_density: of lung tissue, 1 is average.
        gas: radius of the gas bubble in the stomach, 0 for none.
        nodules: number of lung nodules.
        scoliosis: sideways bend of the spine.
    """

    half_width: float
    half_depth: float
    apex: float
    dome_right: float
    dome_left: float
    fat: float
    muscle: float
    breast: float
    heart: float
    heart_tilt: float
    aorta: float
    rib_slope: float
    rib_height: float
    rib_bow: float
    mineral: float
    vessels: float
    lung_density: float
    gas: float
    nodules: int
    scoliosis: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Build:
        """A patient from ``rng``: women are smaller, and half of the patients are women."""
        female = rng.random() < 0.5
        size = rng.normal(0.95 if female else 1.03, 0.035)
        dome = rng.uniform(-96, -66)
        return cls(
            half_width=size * rng.uniform(128, 142),
            half_depth=size * rng.uniform(78, 96),
            apex=size * rng.uniform(132, 143),
            dome_right=dome,
            dome_left=dome - rng.uniform(2, 16),
            fat=rng.uniform(5, 18),
            muscle=rng.uniform(9, 15) - 2 * female,
            breast=rng.uniform(24, 48) if female else 0.0,
            heart=size * rng.uniform(0.88, 1.18),
            heart_tilt=rng.uniform(22, 42),
            aorta=rng.uniform(11.5, 16.5),
            rib_slope=rng.uniform(82, 118),
            rib_height=rng.uniform(4.3, 5.6),
            rib_bow=rng.uniform(2, 9),
            mineral=rng.uniform(0.85, 1.15),
            vessels=rng.uniform(0.85, 1.2),
            lung_density=rng.uniform(0.85, 1.25),
            gas=rng.choice([0.0, 1.0], p=[0.35, 0.65]) * rng.uniform(13, 26),
            nodules=int(rng.integers(0, 5)),
            scoliosis=rng.normal(0, 2.5),
        )

    def cage(self, z: npt.ArrayLike, grow: float = 0.0) -> tuple[Reals, Reals, Reals]:
        """Half width, half depth and middle (y) of the pleural surface at height ``z``, moved out by ``grow`` mm."""
        t = np.clip((np.asarray(z, dtype=np.float32) + 40) / (self.apex + 40 + max(grow, 0.0)), 0, 1)
        wide = self.half_width * np.sqrt(np.maximum(1 - t**3.2, 1e-6)) + grow
        deep = self.half_depth * np.sqrt(1 - 0.82 * t**2.2) + grow
        return np.maximum(wide, 1.0), deep, -12 * t**2

    def within_cage(self, x: Floats, y: Floats, z: Floats, fuzz: Floats) -> npt.NDArray[np.bool_]:
        """Whether (x, y, z) in mm, which broadcast, are inside the pleural surface moved out by about ``fuzz`` mm."""
        wide, deep, middle = self.cage(z)
        reach = (np.abs(x) / wide) ** _SQUARENESS + (np.abs(y - middle) / deep) ** _SQUARENESS
        return (reach < 1 + fuzz * np.float32(_SQUARENESS / self.half_width)) & (z < self.apex)

    def on_cage(self, angle: npt.ArrayLike, z: npt.ArrayLike, grow: float) -> tuple[Reals, Reals]:
        """The point (x, y) of the surface at ``angle`` (radians: 0 back, pi/2 side, pi front) and height ``z``."""
        wide, deep, middle = self.cage(z, grow)
        sin, cos = np.sin(angle), np.cos(angle)
        power = 2 / _SQUARENESS
        return wide * np.abs(sin) ** power * np.sign(sin), middle - deep * np.abs(cos) ** power * np.sign(cos)

    def lung_top(self, x: Floats) -> Reals:
        """Height z of the round top of each lung over ``x``: it falls from above the first rib towards the midline."""
        return self.apex - 58 * np.maximum(0, 1 - np.abs(x) / (0.38 * self.half_width)) ** 2

    def diaphragm(self, x: Reals, y: Reals) -> Reals:
        """Height z of the diaphragm over (x, y): two domes that fall steeply to the side and to the back."""
        centre, reach = 0.46 * self.half_width, 0.56 * self.half_width
        across = (np.abs(x) - centre) / np.where(np.abs(x) < centre, 1.75 * reach, reach)
        front = y - 14
        deep = front / np.where(front > 0, 1.15 * self.half_depth, 1.02 * self.half_depth)
        fall = 1 - np.sqrt(np.maximum(1 - across**2 - deep**2, 0))
        blend = 1 / (1 + np.exp(-x / 10))  # from the left dome to the right one, across the midline
        return self.dome_left + (self.dome_right - self.dome_left) * blend - 58 * fall

    def skin(self, z: Floats, less: float = 0.0) -> tuple[Reals, Reals, Reals]:
        """Half width, half depth and middle (y) of the trunk at height ``z``, shrunk by ``less`` mm."""
        wall = 5 + self.muscle + self.fat
        rise = np.clip((z - 35) / 85, 0, 1)
        rise = rise**2 * (3 - 2 * rise)
        wide = self.half_width + wall + rise * (222 - self.half_width - wall)
        deep = self.half_depth + 6 + wall - 45 * rise
        return wide - less, deep - less, -10 * np.clip((z + 40) / 180, 0, 1) ** 2

    def shoulder(self, x: Floats) -> Reals:
        """Height z of the top of the shoulders at ``x``; the neck rises out of them."""
        side = np.abs(x)
        slope = self.apex + 45 - 0.40 * np.maximum(side - 52, 0)
        return slope + 400 / (1 + np.exp((side - 54) / 4))
