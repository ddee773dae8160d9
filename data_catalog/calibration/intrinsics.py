"""A camera's geometry from photographs of a board, after Zhang (IEEE TPAMI 22 (2000) 1330) through OpenCV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.calibration.board import BoardSpec, BoardView, find_checkerboard
from data_catalog.calibration.camera import Camera, PhotoLeftOut, PhotoUsed, opencv_version
from data_catalog.calibration.charuco import CharucoLayout, find_charuco, find_layout
from data_catalog.calibration.photograph import CalibrationError, grey_of, read_photograph
from data_catalog.refusals import Refusal

FEWEST_PHOTOS = 5
SMALLEST_TILT_DEG = 12.0
"""Boards all at one angle leave focal length and distance to trade against each other."""
LARGEST_FOCAL_STD = 0.005
"""Relative: beyond this the photographs do not determine the focal length to half a percent."""
LARGEST_RMS_PX = 2.0
LAYOUT_PHOTOS = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    path: Path
    sha256: str
    size: tuple[int, int]
    view: BoardView


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    rms: float
    matrix: npt.NDArray[np.float64]
    distortion: npt.NDArray[np.float64]
    rotations: list[npt.NDArray[np.float64]]
    focal_std: tuple[float, float]
    per_photo: npt.NDArray[np.float64]


def calibrate_camera(
    paths: Sequence[Path], spec: BoardSpec, on_photo: Callable[[Path], None] = lambda path: None
) -> Camera:
    """The camera that took ``paths``: photographs of one board, at one image size, focus and zoom.

    Photographs in which the board is not found whole enough or sharp enough are left out with the reason; so are
    copies, and those that fit three times worse than the others.

    Args:
        paths: PNG or JPEG.
        spec: the board.
        on_photo: called after each photograph.

    Raises:
        CalibrationError: fewer than five usable photographs, of several sizes, all from one angle, or a fit that is too
            bad; the text says what to do.
    """
    left_out: list[PhotoLeftOut] = []
    seen = _boards_in(paths, spec, left_out, on_photo)
    _check_enough(len(seen), left_out)
    fit = _fitted(seen)
    while fit.per_photo.max() > max(3 * float(np.median(fit.per_photo)), 0.5):
        worst = int(fit.per_photo.argmax())
        item = seen.pop(worst)  # one at a time: a bad photograph makes good ones fit worse
        reason = f"fits badly: {fit.per_photo[worst]:.2f} px, against {np.median(fit.per_photo):.2f} px of the others"
        left_out.append(PhotoLeftOut(name=item.path.name, sha256=item.sha256, reason=reason))
        _check_enough(len(seen), left_out)
        fit = _fitted(seen)
    _check_fit(fit)
    return _record(seen, fit, spec, left_out)


def _record(seen: Sequence[_Seen], fit: _Fit, spec: BoardSpec, left_out: Sequence[PhotoLeftOut]) -> Camera:
    return Camera(
        image_size=seen[0].size,
        matrix=tuple(tuple(float(value) for value in row) for row in fit.matrix),  # type: ignore[arg-type]
        distortion=tuple(float(value) for value in fit.distortion),  # type: ignore[arg-type]
        rms_px=fit.rms,
        focal_std_px=fit.focal_std,
        coverage=_coverage(seen),
        tilt_deg=_largest_tilt(fit.rotations),
        board=spec,
        photos=tuple(
            PhotoUsed(
                name=item.path.name,
                sha256=item.sha256,
                corners=len(item.view.image_points),
                blur_px=round(item.view.blur_px, 2),
                rms_px=round(float(error), 4),
            )
            for item, error in zip(seen, fit.per_photo, strict=True)
        ),
        left_out=tuple(left_out),
        opencv=opencv_version(),
    )


def _boards_in(
    paths: Sequence[Path], spec: BoardSpec, left_out: list[PhotoLeftOut], on_photo: Callable[[Path], None]
) -> list[_Seen]:
    """One photograph in memory at a time, but for the first few of a ChArUco board, whose layout is looked for."""
    sizes: dict[Path, tuple[int, int]] = {}
    seen: list[_Seen] = []
    digests: dict[str, str] = {}
    layout = _layout_of(paths, spec) if spec.kind == "charuco" else None
    for path in paths:
        try:
            photo = read_photograph(path)
        except Refusal as refusal:
            left_out.append(PhotoLeftOut(name=path.name, sha256="", reason=refusal.sentence))
            continue
        finally:
            on_photo(path)
        sizes[path] = photo.size
        if photo.sha256 in digests:
            reason = f"the same file as {digests[photo.sha256]}"
            left_out.append(PhotoLeftOut(name=path.name, sha256=photo.sha256, reason=reason))
            continue
        digests[photo.sha256] = path.name
        try:
            grey = grey_of(photo)
            view = find_checkerboard(grey, spec) if layout is None else find_charuco(grey, layout)
        except CalibrationError as error:
            left_out.append(PhotoLeftOut(name=path.name, sha256=photo.sha256, reason=str(error)))
            continue
        seen.append(_Seen(path, photo.sha256, photo.size, view))
    _check_sizes(sizes)
    return seen


def _layout_of(paths: Sequence[Path], spec: BoardSpec) -> CharucoLayout:
    greys = []
    for path in paths:
        try:
            greys.append(grey_of(read_photograph(path)))
        except Refusal:
            continue
        if len(greys) == LAYOUT_PHOTOS:
            break
    if not greys:
        raise CalibrationError(f"Expected photographs, but none of {len(paths)} files can be read as one.")
    return find_layout(greys, spec)


def _check_sizes(sizes: dict[Path, tuple[int, int]]) -> None:
    counts = Counter(sizes.values())
    if len(counts) <= 1:
        return
    usual = counts.most_common(1)[0][0]
    odd = next(path for path, size in sizes.items() if size != usual)
    raise CalibrationError(
        f"Expected photographs of one size, but {odd.name} is {sizes[odd][0]} x {sizes[odd][1]} and others are "
        f"{usual[0]} x {usual[1]}. Use one camera, one resolution and no zoom, and leave cropped copies out."
    )


def _check_enough(count: int, left_out: Sequence[PhotoLeftOut]) -> None:
    if count >= FEWEST_PHOTOS:
        return
    reasons = "; ".join(f"{item.name}: {item.reason}" for item in left_out[:8])
    raise CalibrationError(
        f"Expected at least {FEWEST_PHOTOS} usable photographs of the board, but got {count}"
        f"{f' ({reasons})' if reasons else ''}. Take 10 to 20, tilted up to 30 degrees in several directions."
    )


def _fitted(seen: Sequence[_Seen]) -> _Fit:
    """The fit with k1, k2, p1, p2; with k3 as well where that takes another 2 % off the squared error."""
    fit = _fitted_with(seen, cv2.CALIB_FIX_K3)
    wider = _fitted_with(seen, 0)
    return wider if wider.rms**2 < 0.98 * fit.rms**2 else fit


def _fitted_with(seen: Sequence[_Seen], flags: int) -> _Fit:
    try:
        rms, matrix, distortion, rotations, _, deviations, _, per_photo = cv2.calibrateCameraExtended(  # type: ignore[call-overload]
            [item.view.board_points for item in seen],
            [item.view.image_points for item in seen],
            seen[0].size,
            None,
            None,
            flags=flags,
        )
    except cv2.error as error:
        raise CalibrationError(_TOO_ALIKE.format(how="OpenCV finds no solution")) from error
    spread = np.asarray(deviations).ravel()
    return _Fit(
        float(rms), np.asarray(matrix), np.asarray(distortion).ravel()[:5], list(rotations),
        (float(spread[0]), float(spread[1])), np.asarray(per_photo).ravel(),
    )  # fmt: skip


_TOO_ALIKE = (
    "The photographs do not determine the camera: {how}. Take more of them, with the board tilted by 20 to 30 degrees "
    "to the left, to the right, up and down, and near every edge of the picture."
)


def _check_fit(fit: _Fit) -> None:
    focal = fit.matrix[0, 0], fit.matrix[1, 1]
    numbers = [fit.rms, *focal, *fit.focal_std]
    if not np.isfinite(numbers).all() or min(focal) <= 0:
        raise CalibrationError(_TOO_ALIKE.format(how="the fit has no finite solution"))
    tilt = _largest_tilt(fit.rotations)
    if tilt < SMALLEST_TILT_DEG:
        raise CalibrationError(_TOO_ALIKE.format(how=f"the board is seen at angles that differ by {tilt:.0f} degrees"))
    if fit.rms > LARGEST_RMS_PX:
        raise CalibrationError(
            f"Expected a reprojection error of at most {LARGEST_RMS_PX} px, but got {fit.rms:.2f}. Is the board flat, "
            "are its counts right (--squares), and was neither zoom nor focus changed? Take the photographs again."
        )
    uncertain = max(std / value for std, value in zip(fit.focal_std, focal, strict=True))
    if uncertain > LARGEST_FOCAL_STD:
        raise CalibrationError(_TOO_ALIKE.format(how=f"the focal length is uncertain by {uncertain:.1%}"))


def _largest_tilt(rotations: Sequence[npt.NDArray[np.float64]]) -> float:
    """Largest angle between the normals of two boards, degrees."""
    normals = np.array([cv2.Rodrigues(vector)[0][:, 2] for vector in rotations])
    cosines = np.abs(normals @ normals.T)  # a board found from the other side has its normal turned round
    return float(np.degrees(np.arccos(np.clip(cosines.min(), 0, 1))))


def _coverage(seen: Sequence[_Seen]) -> float:
    hull = cv2.convexHull(np.concatenate([item.view.image_points for item in seen]))
    width, height = seen[0].size
    return float(min(1.0, cv2.contourArea(hull) / (width * height)))
