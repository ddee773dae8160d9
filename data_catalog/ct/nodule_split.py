"""CT patches of nodules, split by patient: who trains a network is never tested with a nodule of the same CT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from data_catalog.split import SplitConfig, side_of


class NoduleSplitConfig(SplitConfig):
    """Shares of CT patients whose nodules are held back.

    Attributes:
        test, val: shares of the patients, not of the nodules.
        salt: another salt, another draw. The default was chosen on counts alone, before any training with it: of the
            eleven tried it gives 70 patients of LIDC-IDRI the shares nearest to those asked for (43, 11 and 16
            patients with 76, 21 and 23 nodules, of which 35, 6 and 13 of at least 10 mm).
    """

    test: float = Field(default=0.25, gt=0, lt=1)
    val: float = Field(default=0.15, gt=0, lt=1)
    salt: str = "7"


def series_of(path: Path) -> str:
    """The CT series of a patch: what its file name has before ``_dcm_``, as NODE21 names them.

    It stands for the patient: the patches are of LIDC-IDRI, whose 1,018 series are of 1,010 patients (Armato 2011, Med
    Phys 38:915-931), so that hardly any patient has two.

    >>> series_of(Path("1.3.6.1_dcm_0.mha"))
    '1.3.6.1'
    """
    return path.name.partition("_dcm_")[0]


def patches_of_side(paths: Sequence[Path], side: str, config: NoduleSplitConfig) -> list[Path]:
    """Those of ``paths`` whose patients are on ``side``, in their order.

    Raises:
        ValueError: no such side, or no patch is on it.
    """
    if side not in ("train", "val", "test"):
        raise ValueError(f"Expected `side` to be train, val or test, but got {side!r}")
    chosen = [path for path in paths if side_of(series_of(path), config) == side]
    if not chosen:
        raise ValueError(
            f"Expected nodule patches of {side} patients, but none of {len(paths)} is of one. "
            "Give a folder with more CT patients, or another `salt`."
        )
    return chosen
