"""Published tables: CSV files, packed or not, whose columns are checked before a row is believed."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_catalog.refusals import Refusal
from data_catalog.regular_file import read_regular

MAX_BYTES = 512 * 1024**2
"""No published table is larger; more than that is no table but a compression bomb."""

Row = dict[str, str]


def read_table(path: Path, required: Sequence[str], *, delimiter: str = ",") -> Iterator[tuple[int, Row]]:
    """Yield (line number, row) of a CSV or ``.csv.gz`` in UTF-8; values are stripped, missing ones are empty.

    Raises:
        ValueError: it cannot be read, is in another encoding, or lacks a column of ``required``.
    """
    stream = io.StringIO(read_text(path), newline="")
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        missing = [name for name in required if name not in names]
        if missing:
            raise ValueError(
                f"{path}: expected the columns {', '.join(required)}, but {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not among {names}. Use the table as it was published."
            )
        blank = dict.fromkeys(names, "")
        for values in reader:
            if any(values):
                yield reader.line_num, blank | {n: v.strip() for n, v in zip(names, values, strict=False)}
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: expected CSV, but {error}. Download the table again."
        ) from error


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked where its name ends in ``.gz``, without a byte order mark.

    Raises:
        ValueError: it cannot be read, unpacks to more than half a gigabyte, or is no UTF-8.
    """
    try:
        try:
            data = read_regular(path)
        except Refusal as refusal:
            raise ValueError(f"{path}: expected a table. {refusal.sentence}") from refusal
        if path.name.endswith(".gz"):
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"{path}: expected a table, but it unpacks to more than {MAX_BYTES} bytes.")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in UTF-8, but byte {error.start} is none of it. Was it saved by a spreadsheet? "
            "Use the file as it was published."
        ) from error
    except (OSError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: expected a readable table, but got {error}. Download it again.") from error


def number(text: str) -> float | None:
    """A finite decimal number, or None.

    >>> number("0.143"), number("nan"), number("")
    (0.143, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e12 else None
