"""Images per second from files to shards, side by side with a plain loop over the same files.

The last line is one line of JSON. Ratios are plain time / our time: above 1, ours is faster. See docs/benchmarks.md.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _catalogue import PUBLISHED, catalogue
from _data import Files, files
from _measure import arguments, interleaved, machine, parse, report
from _plain import preprocess as plain_preprocess
from _plain import read as plain_read
from _plain import read_picture as plain_read_picture
from _plain import write_dicom as plain_write_dicom

from data_catalog.dicom.write import convert_to_dicom
from data_catalog.digest import file_digest
from data_catalog.manifest import Sample, sample_id_of
from data_catalog.preprocess import PreprocessConfig, preprocess
from data_catalog.reading import read_levels, read_radiograph
from data_catalog.shards import write_shard

SIZES = (256, 512)
Row = tuple[Sample, Path, str]
"""Manifest row, file, kind."""


def main() -> None:
    """Measure each step alone, then all of them from file to shard."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, default=PUBLISHED, help="of the catalogue (default: as ChestX-ray14); 0: skip"
    )
    args = parse(parser)
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as name:
        (folder := Path(name) / "files").mkdir()
        found = files(args.data, folder, args.images, args.side)
        bench = Ingest(found, Path(name) / "work", args.repeats)
        figures = (
            bench.end_to_end()
            | bench.with_dicom()
            | bench.decode()
            | bench.convert()
            | bench.preprocess()
            | bench.shard()
            | catalogue(Path(name), min(args.rows, 500) if args.quick else args.rows)
        )
    source = "synthetic" if args.data is None else "real"
    counts = {kind: len(paths) for kind, paths in found.items()}
    report(
        {"bench": "ingest", **figures, "data": source, "files": counts, "quick": args.quick} | machine(), args.json_only
    )


class Ingest:
    """The files to measure on, and a work folder that is emptied before each pass that writes."""

    def __init__(self, found: Files, work: Path, repeats: int) -> None:
        self.found = found
        self.rows = [(row_of(path, kind), path, kind) for kind, paths in found.items() for path in paths]
        self.work, self.repeats = work, repeats

    def end_to_end(self) -> dict[str, Any]:
        """File to shard: decode, normalise, letterbox to 512, write. All formats together, then each alone."""
        figures = self.compare("end_to_end", *self.both_ways(self.rows), len(self.rows))
        for kind in self.found:
            rows = [row for row in self.rows if row[2] == kind]
            figures |= self.compare(f"end_to_end_{kind}", *self.both_ways(rows), len(rows))
        return figures

    def both_ways(self, rows: list[Row]) -> tuple[Callable[[], None], Callable[[], None]]:
        """One pass of ours, as ``tasks/preprocess.py`` does it, and one of the plain loop: an array file per image."""
        config = PreprocessConfig(size=512)

        def ours(work: Path) -> None:
            images = np.empty((len(rows), 512, 512), np.float32)
            for index, (_, path, _) in enumerate(rows):
                images[index] = preprocess(read_levels(path), config)
            write_shard(work / "shard", images, labels_like(images), [sample for sample, _, _ in rows])

        def plain(work: Path) -> None:
            for index, (_, path, kind) in enumerate(rows):
                np.save(work / f"{index}.npy", plain_preprocess(plain_read(path, kind), 512))

        return self.fresh(ours), self.fresh(plain)

    def with_dicom(self) -> dict[str, Any]:
        """The same with a DICOM object between: pictures are converted first, and the object is read."""
        config = PreprocessConfig(size=512)

        def ours(work: Path) -> None:
            images = np.empty((len(self.rows), 512, 512), np.float32)
            for index, (sample, path, kind) in enumerate(self.rows):
                dicom = kind.startswith("dicom")
                source = path if dicom else convert_to_dicom(sample, work / "dicom").path
                images[index] = preprocess(read_levels(source), config)
            write_shard(work / "shard", images, labels_like(images), [sample for sample, _, _ in self.rows])

        def plain(work: Path) -> None:
            for index, (_, path, kind) in enumerate(self.rows):
                if not kind.startswith("dicom"):
                    plain_write_dicom(plain_read_picture(path), work / f"{index}.dcm")
                    path, kind = work / f"{index}.dcm", "dicom"
                np.save(work / f"{index}.npy", plain_preprocess(plain_read(path, kind), 512))

        return self.compare("end_to_end_with_dicom", self.fresh(ours), self.fresh(plain), len(self.rows))

    def decode(self) -> dict[str, Any]:
        """File to (H, W) float32 in [0, 1], per format; null where there is no file of it."""
        figures: dict[str, Any] = {}
        for kind, paths in self.found.items():
            figures |= self.compare(
                f"decode_{kind}",
                lambda paths=paths: [read_radiograph(path) for path in paths],
                lambda paths=paths, kind=kind: [plain_read(path, kind) for path in paths],
                len(paths),
            )
        return figures

    def convert(self) -> dict[str, Any]:
        """Picture to DICOM file."""
        pictures = [(sample, path) for sample, path, kind in self.rows if not kind.startswith("dicom")]

        def ours(work: Path) -> None:
            for sample, _ in pictures:
                convert_to_dicom(sample, work)

        def plain(work: Path) -> None:
            for index, (_, path) in enumerate(pictures):
                plain_write_dicom(plain_read_picture(path), work / f"{index}.dcm")

        return self.compare("convert", self.fresh(ours), self.fresh(plain), len(pictures))

    def preprocess(self) -> dict[str, Any]:
        """Decoded image to network input: percentiles, then the letterbox."""
        radiographs = [read_radiograph(path) for _, path, _ in self.rows]
        figures: dict[str, Any] = {}
        for size in SIZES:
            config = PreprocessConfig(size=size)
            figures |= self.compare(
                f"preprocess_{size}",
                lambda config=config: [preprocess(radiograph, config) for radiograph in radiographs],
                lambda size=size: [plain_preprocess(radiograph.pixels, size) for radiograph in radiographs],
                len(radiographs),
            )
        return figures

    def shard(self) -> dict[str, Any]:
        """Arrays of 256 x 256 to disk: ours with manifest and sync, plain with ``np.save`` of an image at a time."""
        images = np.random.default_rng(0).random((64, 256, 256), np.float32)
        labels, samples = labels_like(images), [shard_row(number) for number in range(64)]

        def plain(work: Path) -> None:
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                np.save(work / f"{index}.npy", image)
                np.save(work / f"{index}-labels.npy", label)

        ours = self.fresh(lambda work: write_shard(work / "shard", images, labels, samples))
        return self.compare("write_shard", ours, self.fresh(plain), 64)

    def fresh(self, one_pass: Callable[[Path], object]) -> Callable[[], None]:
        """``one_pass`` in an empty folder; making and removing the folder is timed in both loops alike."""

        def run() -> None:
            self.work.mkdir()
            try:
                one_pass(self.work)
            finally:
                shutil.rmtree(self.work)

        return run

    def compare(
        self, name: str, ours: Callable[[], object], plain: Callable[[], object], images: int
    ) -> dict[str, Any]:
        """Figures of one comparison; all null where there is no image to compare on."""
        if not images:
            return dict.fromkeys(f"{name}_{what}" for what in ("ratio", "ratio_quartiles", "per_s", "plain_per_s"))
        return interleaved(ours, plain, images, self.repeats).figures(name)


def row_of(path: Path, kind: str) -> Sample:
    """The manifest row of a file."""
    digest = file_digest(path)
    return Sample(sample_id_of(digest), "bench", path.stem, str(path), digest, kind.partition("_")[0], "none")


def shard_row(number: int) -> Sample:
    """A manifest row of no file."""
    return Sample(f"{number:016x}", "bench", f"p{number}", f"{number}.png", f"{number:064x}", "png", "none")


def labels_like(images: np.ndarray) -> np.ndarray:
    """Label planes (N, 1, size, size) uint8 for images (N, size, size)."""
    return np.zeros((len(images), 1, *images.shape[1:]), np.uint8)


if __name__ == "__main__":
    main()
