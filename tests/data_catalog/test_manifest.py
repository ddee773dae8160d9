"""The manifest: it round-trips, and a wrong one is refused with the column, the count and the key."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.manifest import (
    ENCODINGS,
    FORMATS,
    SCHEMA,
    SEXES,
    Lesion,
    ManifestError,
    MaskFile,
    Sample,
    read_manifest,
    to_table,
    write_manifest,
)
from data_catalog.radiograph import Spacing, Structure
from data_catalog.vocabulary import Convention

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
digest = st.text("0123456789abcdef", min_size=64, max_size=64)
masks = st.lists(
    st.builds(
        MaskFile,
        st.sampled_from(Structure),
        text,
        digest,
        st.sampled_from(Convention),
        part=text,
        encoding=st.sampled_from(ENCODINGS),
        key=text,
    ),
    max_size=3,
).map(tuple)
sizes = st.none() | st.floats(0.1, 5000)
lesions = st.lists(
    st.builds(
        Lesion, text, st.floats(0, 5000), st.floats(0, 5000), sizes, sizes, sizes, st.none() | st.floats(1, 5), text
    ),
    max_size=2,
).map(tuple)
spacings = st.builds(Spacing, st.floats(0.01, 2), st.floats(0.01, 2), text)
samples = st.builds(
    Sample,
    sample_id=text,
    source=text,
    patient_id=text,
    image_path=text.map("/{}".format),
    image_sha256=digest,
    image_format=st.sampled_from(FORMATS),
    licence=text,
    masks=masks,
    lesions=st.none() | lesions,
    spacing=st.none() | spacings,
    findings=st.lists(text, max_size=3).map(tuple),
    age_years=st.none() | st.floats(0, 120),
    sex=st.sampled_from(SEXES),
    fold=text,
    split=st.sampled_from([None, "train", "val", "test"]),
    height=st.none() | st.integers(1, 5000),
    flags=st.lists(text, max_size=3).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(samples, max_size=6, unique_by=lambda s: s.sample_id))
def test_a_manifest_round_trips(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("m") / "manifest.parquet"
    assert read_manifest(write_manifest(rows, path)) == rows


def row(name="a") -> Sample:
    return Sample(name, "pairs", "p", "/x.png", "0" * 64, "png", "MIT")


def test_repeated_ids_are_named(tmp_path):
    with pytest.raises(ManifestError, match=r"`sample_id` repeats in 1 keys, first 'a'"):
        write_manifest([row(), row()], tmp_path / "m.parquet")


def test_a_missing_column_is_named(tmp_path):
    pq.write_table(to_table([row()]).drop(["licence"]), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"`licence` is missing from all 1 rows"):
        read_manifest(tmp_path / "m.parquet")


def test_an_empty_cell_is_counted_and_its_key_named(tmp_path):
    table = to_table([row("a"), row("b")])
    loose = pa.schema([field.with_nullable(True) for field in SCHEMA], SCHEMA.metadata)
    index = table.column_names.index("licence")
    table = table.cast(loose).set_column(index, loose.field(index), pa.array(["MIT", None]))
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"`licence` is empty in 1 rows, first in sample 'b'"):
        read_manifest(tmp_path / "m.parquet")


def test_another_version_says_what_to_do(tmp_path):
    table = to_table([row()]).replace_schema_metadata({"cxr.schema": "manifest", "cxr.schema_version": "0"})
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"version 2, but got version 0.*cxr run"):
        read_manifest(tmp_path / "m.parquet")


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "m.parquet").write_text("image,mask\n")
    with pytest.raises(ManifestError, match="expected a Parquet manifest"):
        read_manifest(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_sha256": "xyz"},
        {"image_format": "bmp"},
        {"split": "holdout"},
        {"licence": ""},
        {"sex": "male"},
        {"age_years": 412},
    ],
)
def test_a_row_that_is_not_valid_cannot_be_made(wrong):
    with pytest.raises(ValueError, match="Expected"):
        row().with_(**wrong)


def test_a_manifest_beside_its_files_can_be_moved(tmp_path):
    home = tmp_path / "one"
    mask = MaskFile(Structure.LUNG, str(home / "masks/a.png"), "b" * 64, Convention.V7)
    row = Sample("a", "pairs", "p", str(home / "images/a.png"), "a" * 64, "png", "MIT", masks=(mask,)).with_(
        dicom_path=str(home / "dicom/a.dcm"), soft_tissue_path=str(home / "soft_tissue/a.png")
    )
    write_manifest([row], home / "m.parquet", root=home)
    assert read_manifest(home / "m.parquet") == [row]

    home.rename(tmp_path / "two")

    moved = read_manifest(tmp_path / "two" / "m.parquet")[0]
    assert moved.image_path == str(tmp_path / "two/images/a.png")
    assert moved.masks[0].path == str(tmp_path / "two/masks/a.png")
    assert str(home).encode() not in (tmp_path / "two" / "m.parquet").read_bytes()
