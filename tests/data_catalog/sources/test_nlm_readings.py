"""Clinical readings as radiologists typed them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.sources.nlm_readings import parse_reading, read_reading


@pytest.mark.parametrize(
    ("text", "sex", "age", "finding"),
    [
        ("Patient's Sex: F \nPatient's Age: 027Y\nnormal", "F", 27, "normal"),
        ("Patient\u2019s Sex: M\r\nPatient\u2019s Age: 031Y\r\ncavitary nodular infiltrate in RUL; active TB", "M", 31,
         "cavitary nodular infiltrate in RUL; active TB"),
        ("Patient's Sex: F\nPatient's Age: 000Y\nnormal", "F", None, "normal"),
        ("Patient's Sex: O\nPatient's Age: 006M\nnormal", "O", 0.5, "normal"),
        ("male 45yrs\nnormal", "M", 45, "normal"),
        ("female  24yrs\n\nPTB in the  right\n upper field", "F", 24, "PTB in the right upper field"),
        ("Female, 28yrs \nbilateral PTB ", "F", 28, "bilateral PTB"),
        ("femal 32yrs\nnormal", "F", 32, "normal"),
        ("male 16month\nnormal", "M", 16 / 12, "normal"),
        ("male 1 month\nnormal", "M", 1 / 12, "normal"),
        ("female 64days\nSTB", "F", 64 / 365.25, "STB"),
        ("male\nnormal", "M", None, "normal"),
        ("male 30yrs", "M", 30, ""),
    ],
)  # fmt: skip
def test_what_readings_say(text, sex, age, finding):
    reading = parse_reading(text)
    assert (reading.sex, reading.finding, reading.flags) == (sex, finding, ())
    assert reading.age_years == (None if age is None else pytest.approx(age))


@pytest.mark.parametrize("text", ["", "normal", "\0m\0a\0l\0e", "45yrs", "females only"])
def test_what_says_neither_sex_nor_age(text):
    reading = parse_reading(text)
    assert (reading.sex, reading.age_years, reading.flags) == ("", None, ("no_clinical_reading",))


def test_ages_that_cannot_be():
    reading = parse_reading("male 450yrs\nnormal")
    assert (reading.age_years, reading.flags) == (None, ("implausible_age",))


@given(st.text())
def test_no_text_is_too_odd(text):
    reading = parse_reading(text)
    assert reading.sex in ("", "F", "M", "O")
    assert reading.age_years is None or 0 < reading.age_years <= 120
    assert "\n" not in reading.finding


@given(st.binary())
def test_no_file_is_too_odd(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("readings") / "r.txt"
    path.write_bytes(data)
    reading = read_reading(path)
    assert bool(reading.sex) is (reading.flags != ("no_clinical_reading",))


def test_no_file_at_all(tmp_path):
    for path in (None, tmp_path / "missing.txt", tmp_path):
        assert read_reading(path).flags == ("no_clinical_reading",)
