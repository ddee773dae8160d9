"""Published tables: what is read is what was written, and what is broken is said."""

from __future__ import annotations

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog import tables
from data_catalog.tables import number, read_table, read_text

cell = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r\n"), max_size=8).map(str.strip)


@given(st.lists(st.tuples(cell, cell, cell).filter(any), max_size=6), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_what_is_written_is_read(tmp_path_factory, rows, packed, end):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=end)
    writer.writerow(("a", "b", "c"))
    writer.writerows(rows)
    data = stream.getvalue().encode()
    path = tmp_path_factory.mktemp("tables") / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert [tuple(row.values()) for _, row in read_table(path, ("a", "c"))] == rows


def table(tmp_path, text, **options):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return list(read_table(path, ("a", "b"), **options))


def test_lines_are_numbered_as_an_editor_shows_them(tmp_path):
    assert table(tmp_path, "a,b\n1,2\n\n3,4\n") == [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": "4"})]


def test_short_and_long_lines_spaces_and_a_byte_order_mark(tmp_path):
    rows = [row for _, row in table(tmp_path, "\ufeff a ,b,c\n 1 \n1,2,3,4\n")]
    assert rows == [{"a": "1", "b": "", "c": ""}, {"a": "1", "b": "2", "c": "3"}]


def test_a_split_header_keeps_its_halves(tmp_path):
    rows = table(tmp_path, "a,b,OriginalImage[Width,Height],,\n1,2,3,4,,\n")
    assert rows[0][1]["OriginalImage[Width"] == "3"
    assert rows[0][1]["Height]"] == "4"


def test_other_delimiters(tmp_path):
    assert table(tmp_path, "a\tb\n1\t2,5\n", delimiter="\t") == [(2, {"a": "1", "b": "2,5"})]


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"t\.csv: expected the columns a, b, but b is not among"):
        table(tmp_path, "a,B\n1,2\n")
    with pytest.raises(ValueError, match="a, b are not among"):
        table(tmp_path, "\n")


def test_what_is_no_file(tmp_path):
    for make in (lambda path: path.touch(), lambda path: path.unlink(), lambda path: path.mkdir()):
        make(tmp_path / "t.csv")
        with pytest.raises(ValueError, match=r"t\.csv: expected a table"):
            list(read_table(tmp_path / "t.csv", ("a",)))


def test_a_broken_quote_names_the_line(tmp_path):
    with pytest.raises(ValueError, match=r"t\.csv, line 3: expected CSV"):
        table(tmp_path, 'a,b\n1,2\n"3"x,4\n')


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_other_encodings(tmp_path, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes("a,b\ncaf\u00e9,2\n".encode(encoding))
    with pytest.raises(ValueError, match=r"t\.csv: expected"):
        list(read_table(path, ("a", "b")))


@pytest.mark.parametrize("damage", [lambda data: data[:-6], lambda data: b"x" + data, lambda data: data[:20] + b"zz"])
def test_a_damaged_gzip(tmp_path, damage):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(damage(gzip.compress(b"a,b\n1,2\n" * 50)))
    with pytest.raises(ValueError, match="expected a readable table"):
        read_text(path)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_BYTES", 1000)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(ValueError, match="unpacks to more than 1000 bytes"):
        read_text(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), (" 2.5e3 ", 2500.0), ("", None), ("x", None), ("nan", None), ("inf", None), ("1e300", None)],
)
def test_numbers(text, value):
    assert number(text) == value
