"""``cxr calibrate``: a camera from photographs of a board, and a photographed film as calibrated DICOM."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.home import UsageError
from flows.outcome import DONE, PARTLY, AsJson, Quiet, reporting_errors

if TYPE_CHECKING:
    from data_catalog.calibration.board import BoardSpec
    from data_catalog.calibration.camera import Camera

calibrate_app = typer.Typer(
    name="calibrate", help="Photographed film: calibrate the camera, then the film.", no_args_is_help=True
)


class Board(StrEnum):
    """What was photographed."""

    checkerboard = "checkerboard"
    charuco = "charuco"


class White(StrEnum):
    """What is white."""

    box = "box"
    film = "film"


class ToneName(StrEnum):
    """What grey levels mean."""

    displayed = "displayed"
    transmission = "transmission"
    density = "density"


@calibrate_app.command()
def camera(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTOS...", help="PNG or JPEG photographs of the board, or folders of them."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The JSON file to write.")],
    board: Annotated[Board, typer.Option(help="What was photographed.")] = Board.checkerboard,
    squares: Annotated[str, typer.Option(help="COLUMNSxROWS of squares (of a checkerboard, inner corners do too).")] = (
        "10x7"
    ),
    square_mm: Annotated[float, typer.Option("--square-mm", help="Side of a square, mm.")] = 25.0,
    marker_mm: Annotated[
        float | None,
        typer.Option(
            "--marker-mm", help="ChArUco: side of a marker, mm.  \\[default: 0.75 squares]", show_default=False
        ),
    ] = None,
    dictionary: Annotated[str, typer.Option(help="ChArUco: such as DICT_5X5_100; auto finds it.")] = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Find a camera's focal length, centre and distortion from photographs of a board."""
    from data_catalog.calibration.camera import write_camera
    from data_catalog.calibration.intrinsics import calibrate_camera
    from flows.console import showing_progress
    from tasks.progress import sink

    with reporting_errors(as_json):
        spec = _board_spec(board, squares, square_mm, marker_mm, dictionary)
        files = _photographs(photos)
        with showing_progress(quiet or as_json):
            sink().start("photographs", len(files))
            found = calibrate_camera(files, spec, lambda path: sink().advance("photographs"))
            sink().finish("photographs", f"{len(found.photos)} used, {len(found.left_out)} left out")
        write_camera(found, out)
    if as_json:
        print(json.dumps({"camera": str(out), "sha256": found.digest, **found.model_dump(mode="json", by_alias=True)}))
    elif not quiet:
        _show_camera(found, out)
    raise typer.Exit(PARTLY if found.left_out else DONE)


@calibrate_app.command()
def film(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="PNG or JPEG photograph of a film on a light box.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The DICOM file to write; a JSON record goes beside it.")],
    camera: Annotated[
        Path | None,
        typer.Option(help="What `cxr calibrate camera` wrote. Without it, distortion stays.", show_default=False),
    ] = None,
    flat: Annotated[
        Path | None,
        typer.Option(
            help="Photograph of the empty light box.  \\[default: from the light around the film]", show_default=False
        ),
    ] = None,
    width_mm: Annotated[
        float | None, typer.Option("--width-mm", help="Width of the film, mm.", show_default=False)
    ] = None,
    height_mm: Annotated[
        float | None, typer.Option("--height-mm", help="Height of the film, mm.", show_default=False)
    ] = None,
    tone: Annotated[
        ToneName, typer.Option(help="Grey levels: as a display shows the film, its transmission, or its density.")
    ] = ToneName.displayed,
    white: Annotated[White, typer.Option(help="What is white: the open light box, or the film's brightest part.")] = (
        White.box
    ),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Undistort, rectify and even the photograph of a film, and write it as DICOM with its calibration."""
    from pydantic import ValidationError

    from data_catalog.calibration.camera import read_camera
    from data_catalog.calibration.film import FilmConfig, rectify_film
    from data_catalog.calibration.film_dicom import write_film
    from data_catalog.calibration.photograph import read_photograph
    from data_catalog.refusals import Refusal

    with reporting_errors(as_json):
        try:
            config = FilmConfig(width_mm=width_mm, height_mm=height_mm, white=white.value, tone=tone.value)
        except ValidationError as error:
            raise UsageError(f"Expected a film of 20 to 1000 mm, but got {error.errors()[0]['input']!r}.") from error
        if out.suffix.lower() == ".json":
            raise UsageError(f"Expected --out to name a DICOM file, such as film.dcm, but got {out}.")
        try:
            lens = read_camera(camera) if camera else None
            photograph, empty = read_photograph(photo), read_photograph(flat) if flat else None
        except Refusal as refusal:
            raise ValueError(refusal.sentence) from refusal
        try:
            rectified = rectify_film(photograph, config, lens, empty)
        except ValueError as error:
            raise ValueError(f"{photo}: {error}") from error
        record = write_film(rectified, photograph, config, lens, out)
    if as_json:
        print(json.dumps(record))
    elif not quiet:
        for note in record["notes"]:
            print(f"note: {note}.")
        spacing = record["spacing_mm"]
        size = f", {spacing['column']:.3f} mm a pixel on the film" if spacing else ""
        print(f"{record['columns']} x {record['rows']} pixels{size}; see {out} and {out.with_suffix('.json').name}")
    raise typer.Exit(DONE)


def _board_spec(board: Board, squares: str, square_mm: float, marker_mm: float | None, dictionary: str) -> BoardSpec:
    from pydantic import ValidationError

    from data_catalog.calibration.board import BoardSpec

    counts = re.fullmatch(r"(\d{1,3})\s*[xX×,]\s*(\d{1,3})", squares.strip())
    if counts is None:
        raise UsageError(f"Expected --squares COLUMNSxROWS, such as 10x7, but got {squares!r}.")
    try:
        return BoardSpec(
            kind=board.value,
            squares=(int(counts[1]), int(counts[2])),
            square_mm=square_mm,
            marker_mm=marker_mm,
            dictionary=dictionary,
        )
    except ValidationError as error:
        raise UsageError(error.errors()[0]["msg"].removeprefix("Value error, ") + ".") from error


def _photographs(paths: list[Path]) -> list[Path]:
    """The files behind ``paths``, folders one level deep, in order of name; each once."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"Expected photographs, but there is nothing at {path}.")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        names = (".png", ".jpg", ".jpeg")
        found |= dict.fromkeys(
            item for item in inside if item == path or (item.suffix.lower() in names and not item.name.startswith("."))
        )
    if not found:
        raise UsageError(f"Expected PNG or JPEG photographs in {', '.join(map(str, paths))}, but there are none.")
    return list(found)


def _show_camera(found: Camera, out: Path) -> None:
    (fx, _, cx), (_, fy, cy), _ = found.matrix
    for item in found.left_out:
        print(f"left out {item.name}: {item.reason}.")
    print(
        f"focal length {fx:.1f} x {fy:.1f} px (± {max(found.focal_std_px):.1f}), centre {cx:.1f}, {cy:.1f}, "
        f"reprojection error {found.rms_px:.3f} px over {len(found.photos)} photographs"
    )
    if found.coverage < 0.4:
        print(f"note: the board covers {found.coverage:.0%} of the picture; distortion near its edges is a guess.")
    print(f"see {out}")
