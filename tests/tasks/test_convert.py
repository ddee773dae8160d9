"""What a cohort's digests see: a corrected box or reading is never answered from the cache."""

import pytest

from data_catalog.digest import digest_of
from data_catalog.manifest import SCHEMA, Lesion, Sample, content_of
from data_catalog.radiograph import Spacing
from tasks.convert import cohort_digest

BOX = Lesion("nodule", 10.0, 20.0, height=5.0, width=5.0)
ROW = Sample("a", "node21", "p", "/a.mha", "a" * 64, "mha", "x", lesions=(BOX,), split="test")
CHANGES = (
    {"lesions": (Lesion("nodule", 11.0, 20.0, height=5.0, width=5.0),)},
    {"lesions": ()},
    {"lesions": None},
    {"spacing": Spacing(0.2, 0.2, "PixelSpacing")},
)


@pytest.mark.parametrize("change", CHANGES)
def test_scores_depend_on_what_lesions_are_drawn_from(change):
    assert cohort_digest([ROW]) != cohort_digest([ROW.with_(**change)])


@pytest.mark.parametrize("change", [*CHANGES, {"age_years": 50.0}, {"sex": "F"}, {"fold": "fold1"}, {"flags": ("x",)}])
def test_the_content_of_a_row_is_all_of_it(change):
    assert set(content_of(ROW)) == set(SCHEMA.names)
    assert digest_of(content_of(ROW)) != digest_of(content_of(ROW.with_(**change)))
