"""Pseudonyms and moved dates: the same for the same, unlike for unlike, and intervals as they were."""

from __future__ import annotations

from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID, ComputedRadiographyImageStorage

from data_catalog.deidentification.dates import has_written_date, shifted
from data_catalog.deidentification.pseudonyms import Pseudonyms
from data_catalog.deidentification.words import IdentifyingWords
from tests.data_catalog.deidentification.deid_corpus import header

DAYS = st.dates(date(1900, 1, 1), date(2099, 12, 31))
KEYS = st.binary(min_size=32, max_size=32)


@given(key=KEYS, one=st.text(min_size=1), other=st.text(min_size=1))
def test_pseudonyms(key, one, other):
    pseudonyms = Pseudonyms(key)
    for make in (pseudonyms.uid, pseudonyms.patient):
        assert (make(one) == make(other)) == (one == other)
        assert make(one) == getattr(Pseudonyms(key), make.__name__)(one)
        assert make(one) != getattr(Pseudonyms(bytes(31) + b"x"), make.__name__)(one) or key == bytes(31) + b"x"
    uid = pseudonyms.uid(one)
    assert UID(uid).is_valid
    assert len(uid) <= 64
    assert -3650 <= pseudonyms.shift_days(one) <= -1
    assert key.hex() not in repr(pseudonyms)


def test_registered_uids_stay():
    assert Pseudonyms(bytes(32)).uid(ComputedRadiographyImageStorage) == ComputedRadiographyImageStorage


def test_shifts_are_spread_over_ten_years():
    shifts = [Pseudonyms(bytes(32)).shift_days(str(n)) for n in range(2000)]
    assert len(set(shifts)) > 1400
    assert min(shifts) < -3600
    assert max(shifts) > -50


@given(one=DAYS, other=DAYS, days=st.integers(-3650, -1))
def test_intervals_stay_and_order_too(one, other, days):
    moved = [datetime.strptime(shifted(day.strftime("%Y%m%d"), "DA", days), "%Y%m%d").date() for day in (one, other)]
    assert moved[1] - moved[0] == other - one
    assert moved[0] != one


@given(day=DAYS, days=st.integers(-3650, -1), digits=st.sampled_from([4, 6, 8, 10, 12, 14]))
def test_dt_keeps_its_precision_and_agrees_with_da(day, days, digits):
    text = f"{day:%Y%m%d}101112"[:digits]
    moved = shifted(text, "DT", days)
    assert len(moved) == digits
    if digits >= 8:
        assert moved[:8] == shifted(text[:8], "DA", days)
        assert moved[8:] == text[8:]


@pytest.mark.parametrize(
    ("text", "vr"),
    [("20191301", "DA"), ("20190230", "DA"), ("2019", "DA"), ("Smith", "DA"), ("20190101-20190201", "DA"),
     ("00010101", "DA"), ("Smith", "DT"), ("20190101Smith", "DT"), ("2019013", "DT"), ("25", "TM"), ("Smith", "TM"),
     ("101112.1234567", "TM")],
)  # fmt: skip
def test_what_is_no_date_is_none(text, vr):
    assert shifted(text, vr, -400) is None


@pytest.mark.parametrize(
    "text", ["19560704", "1956-07-04", "04.07.1956", "7/4/56", "04071956", "4 Jul 1956", "on 1956.07.04.", "x19560704y"]
)
def test_written_dates(text):
    assert has_written_date(text)


@pytest.mark.parametrize("text", ["", "500 x 500", "Upper,1349", "0.1Cu 1Al", "121320", "Type 9840 500 70201", "PA"])
def test_other_numbers(text):
    assert not has_written_date(text)


def test_words_of_a_file():
    ds = header("japanese", "CR")
    ds.OtherPatientNames = "Li^Bo"
    words = IdentifyingWords.of(ds)
    for text in ("for YAMASHITA", "x山下x", "77880123", "id-acc4711xq", "Li, room 2", "Hollensteins list"):
        assert words.are_in(text), text
    for text in ("Philips", "Lithium", "LI2 plate", "Thorax", "77880", ""):
        assert not words.are_in(text), text
    assert words.are_number("77880123.0")
    assert words.are_number("+77880123")
    assert not words.are_number("77880124")
    assert not words.are_number("many")


def words_of(name: str, patient_id: str = "1") -> IdentifyingWords:
    ds = header("utf8", "CR")
    ds.PatientName, ds.PatientID = name, patient_id
    return IdentifyingWords.of(ds)


@pytest.mark.parametrize(
    ("name", "text"),
    [("Li^Wei", "LI_WEI"), ("Li^Wei", "x_li"), ("Li^Wei", "\uff2c\uff29 2"),
     ("M\u00fcller\u00dfen^A", "Mu\u0308llerssen"),
     ("Mu\u0308ller\u00dfen^A", "M\u00dcLLER\u1e9eEN"), ("Mu\u0308ller\u00dfen^A", "m\u00fcller\u00dfen_2")],
)  # fmt: skip
def test_names_in_another_spelling(name, text):
    assert words_of(name).are_in(text)
    assert words_of(name).are_in_code(text)


@pytest.mark.parametrize("text", ["Lithium", "Philips", "LI2", "Weight"])
def test_short_names_are_whole_words(text):
    assert not words_of("Li^Wei").are_in(text)


def test_digits_of_an_identifier():
    words = words_of("Li^Wei", "PQ-7748213")
    assert words.are_in("plate 7748213")
    assert words.are_number("07748213")
    assert not words.are_number("774821")
    assert words_of("A^B", str(2**24 + 1)).are_number(float(2**24), single=True)
    assert not words_of("A^B", str(2**24 + 1)).are_number(float(2**24))
