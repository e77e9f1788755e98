"""A quantity in another unit is the same quantity, or it is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.units import GRAMS_PER_LITRE, MOLAR_MASS_G_MOL, MOLES_PER_LITRE, PASCALS, factor

CONCENTRATIONS = sorted(GRAMS_PER_LITRE | MOLES_PER_LITRE)


@pytest.mark.parametrize(
    ("value", "unit", "to", "loinc", "expected"),
    [
        (5.2, "mmol/L", "mg/dL", "2093-3", 201.1),  # cholesterol: 1 mmol/L is 38.67 mg/dL
        (200, "mg/dL", "mmol/L", "2093-3", 5.17),
        (100, "mg/dL", "mmol/L", "2345-7", 5.55),  # glucose: 1 mmol/L is 18.02 mg/dL
        (1, "mg/dL", "umol/L", "2160-0", 88.4),  # creatinine
        (1, "mg/dL", "umol/L", "1975-2", 17.1),  # bilirubin
        (16, "kPa", "mm[Hg]", None, 120.01),
        (1, "g/dL", "mg/L", None, 10_000),
        (1, "mmol/L", "umol/L", None, 1000),
    ],
)
def test_a_value_from_a_textbook_comes_out(value, unit, to, loinc, expected):
    assert value * factor(unit, to, loinc) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("unit", "to", "loinc"),
    [
        ("mmol/L", "mg/dL", None),
        ("mmol/L", "mg/dL", "718-7"),  # haemoglobin: no molar mass here
        ("kPa", "mg/dL", "2093-3"),
        ("mm[Hg]", "mmol/L", "2093-3"),
        ("MG/DL", "mg/dL", "2093-3"),  # UCUM minds capitals
        ("", "mg/dL", "2093-3"),
        ("/min", "Hz", None),
    ],
)
def test_a_pair_that_is_not_known_is_never_guessed(unit, to, loinc):
    assert factor(unit, to, loinc) is None


@given(st.text())
def test_any_unit_is_itself(unit):
    assert factor(unit, unit, None) == 1.0


@given(
    st.floats(min_value=1e-6, max_value=1e6),
    st.sampled_from(CONCENTRATIONS),
    st.sampled_from(CONCENTRATIONS),
    st.sampled_from(sorted(MOLAR_MASS_G_MOL)),
)
def test_there_and_back_is_the_same_amount(value, unit, to, loinc):
    there, back = factor(unit, to, loinc), factor(to, unit, loinc)

    assert math.isclose(value * there * back, value, rel_tol=1e-12)


@given(st.sampled_from(CONCENTRATIONS), st.sampled_from(CONCENTRATIONS), st.sampled_from(CONCENTRATIONS))
def test_a_way_round_is_the_direct_way(first, second, third):
    loinc = "2093-3"

    assert math.isclose(factor(first, second, loinc) * factor(second, third, loinc), factor(first, third, loinc))


def test_pressures_convert_both_ways():
    assert factor("kPa", "mm[Hg]", None) * factor("mm[Hg]", "kPa", None) == pytest.approx(1, rel=1e-15)
    assert set(PASCALS) == {"kPa", "mm[Hg]"}
