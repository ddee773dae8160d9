"""Sizes in mm: with a spacing, against scikit-image's region properties; without one, none."""

import numpy as np
import pytest
from skimage.measure import regionprops

from data_catalog.radiograph import Spacing
from data_catalog.sizes import area_mm2, extent_mm, length_mm, spacing_record

SPACING = Spacing(0.2, 0.5, "PixelSpacing", "GEOMETRY")


def disc() -> np.ndarray:
    rows, columns = np.mgrid[0:60, 0:80]
    return ((rows - 25) / 12) ** 2 + ((columns - 40) / 20) ** 2 < 1


def test_area_and_extent_as_scikit_image_has_them():
    (region,) = regionprops(disc().astype(int), spacing=(0.2, 0.5))
    top, left, bottom, right = region.bbox
    assert area_mm2(disc(), SPACING) == pytest.approx(region.area)
    assert extent_mm(disc(), SPACING) == pytest.approx(((bottom - top) * 0.2, (right - left) * 0.5))


def test_length_counts_rows_and_columns_by_their_own_spacing():
    assert length_mm((0, 0), (10, 0), SPACING) == pytest.approx(2)
    assert length_mm((5, 2), (5, 12), SPACING) == pytest.approx(5)


def test_no_spacing_no_sizes():
    assert (area_mm2(disc(), None), extent_mm(disc(), None), length_mm((0, 0), (1, 1), None)) == (None, None, None)
    assert spacing_record(None) is None
    assert extent_mm(np.zeros((4, 4), bool), SPACING) is None


def test_the_record_says_where_the_millimetres_hold():
    record = spacing_record(Spacing(0.15, 0.15, "ImagerPixelSpacing"))
    assert record is not None
    assert (record["plane"], record["source"]) == ("detector", "ImagerPixelSpacing")
