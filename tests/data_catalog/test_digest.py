"""Digests: the same content, the same key; any other content or code, another."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import data_catalog
from data_catalog import digest
from data_catalog.digest import digest_of, source_digest
from data_catalog.images import geometry
from data_catalog.preprocess import PreprocessConfig

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(plain, plain)
def test_equal_content_and_only_that_has_an_equal_digest(a, b):
    import json

    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (digest_of(a) == digest_of(b)) == same


def test_configs_enter_by_their_values():
    assert digest_of(PreprocessConfig()) == digest_of(PreprocessConfig(size=256))
    assert digest_of(PreprocessConfig()) != digest_of(PreprocessConfig(clahe=True))


def test_what_cannot_be_digested_is_an_error():
    with pytest.raises(TypeError, match="got object"):
        digest_of(object())


def test_an_edited_source_changes_the_digest(tmp_path):
    def load(text: str):
        path = tmp_path / "module_under_test.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("module_under_test", path)
        return importlib.util.module_from_spec(spec)

    before = source_digest(load("x = 1\n"))
    assert source_digest(load("x = 2\n")) != before
    assert source_digest(load("x = 1\n")) == before


def test_a_package_covers_its_modules():
    assert source_digest(data_catalog) != source_digest(digest, geometry)
    assert source_digest(digest, geometry) == source_digest(geometry, digest)
    assert Path(str(digest.__file__)).is_relative_to(Path(next(iter(data_catalog.__path__))))
