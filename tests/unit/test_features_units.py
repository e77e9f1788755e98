"""A quantity in another unit is the same quantity, or it is refused."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import units
from features.units import ANALYTES, AS_IT_IS, MET, NO_MOLAR_MASS, beside, conversion, impossible, unfit, unreadable

BY_MASS = ("mg/dL", "g/L", "g/dL", "mg/L", "ug/mL", "ng/L")
BY_AMOUNT = ("mmol/L", "umol/L", "nmol/mL")
KINDS = (
    (*BY_MASS,),
    (*BY_AMOUNT,),
    ("mm[Hg]", "kPa", "cm[H2O]", "bar", "[psi]"),
    ("Cel", "[degF]", "K"),
    ("a", "mo", "wk", "d", "h", "min", "s"),
    ("10*9/L", "10*3/uL", "/mL", "/uL"),
    ("[iU]/L", "k[IU]/L", "[iU]/mL"),
    ("U/L", "ukat/L", "nkat/mL"),
    ("[lb_av]", "kg", "g", "[oz_av]", "[stone_av]"),
    ("meq/L", "eq/m3"),
    ("mL/min/{1.73_m2}", "L/h/{1.73_m2}"),
    ("mL/min", "L/d"),
    ("mg/L{FEU}", "ug/mL{FEU}"),
    ("1", "%", "[ppm]"),
    ("Cel/h", "[degF]/d"),
    ("[arb'U]/mL", "[arb'U]/L"),
)
ALL = [unit for kind in KINDS for unit in kind]
CODES = st.sampled_from([None, "718-7", *(code for analyte in ANALYTES for code in analyte.loinc)])


@pytest.mark.parametrize(
    ("value", "unit", "to", "loinc", "expected"),
    [
        # Factors as in the SI conversion table of the AMA Manual of Style; from memory, not looked up.
        (1, "mmol/L", "mg/dL", "2093-3", 38.67),
        (1, "mmol/L", "mg/dL", "2085-9", 38.67),
        (1, "mmol/L", "mg/dL", "2345-7", 18.016),
        (1, "mg/dL", "umol/L", "2160-0", 88.4),
        (1, "mg/dL", "umol/L", "1975-2", 17.1),
        (1, "mg/dL", "mmol/L", "3094-0", 0.357),
        (1, "mg/dL", "mmol/L", "3091-6", 0.1665),
        (1, "mg/dL", "umol/L", "3084-1", 59.48),
        (1, "mg/dL", "mmol/L", "2524-7", 0.111),
        (1, "mg/dL", "mmol/L", "17861-6", 0.2495),
        (1, "mg/dL", "mmol/L", "2777-1", 0.3229),
        (1, "mg/dL", "mmol/L", "19123-9", 0.4114),
        (1, "ug/dL", "umol/L", "2498-4", 0.179),
        (140, "meq/L", "mmol/L", "2951-2", 140),
        (5, "meq/L", "mmol/L", "17861-6", 2.5),
        (5, "meq/L", "mg/dL", "17861-6", 10.02),
        (16, "kPa", "mm[Hg]", None, 120.01),
        (98.6, "[degF]", "Cel", None, 37),
        (37, "Cel", "[degF]", None, 98.6),
        (310.15, "K", "Cel", None, 37),
        (1.8, "[degF]/h", "Cel/h", None, 1),  # a fall of temperature knows no zero
        (18, "mo", "a", None, 1.5),
        (1, "g/dL", "mg/L", None, 10_000),
        (1, "10*3/uL", "10*9/L", None, 1),
        (1, "k[IU]/L", "[iU]/mL", None, 1),
        (60, "U/L", "ukat/L", None, 1),
        (1, "mg/(24.h)", "g/d", None, 0.001),
        (1, "mL/min/m2", "L/h/m2", None, 0.06),
        (100, "%", "1", None, 1),
    ],
)
def test_a_value_from_a_textbook_comes_out(value, unit, to, loinc, expected):
    assert conversion(unit, to, loinc)(value) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("unit", "to", "loinc", "said"),
    [
        ("mmol/L", "mg/dL", None, "write the `loinc` code of an analyte"),
        ("mmol/L", "mg/dL", "4548-4", "LOINC 4548-4 is none of an analyte"),
        ("mmol/L", "g/dL", "718-7", "haemoglobin is told by the mole of its tetramer"),
        ("mmol/L", "mg/dL", "2571-8", "triglycerides are a mixture"),
        ("meq/L", "mmol/L", None, "write the `loinc` code of an analyte"),
        ("kPa", "mg/dL", "2093-3", "measure different things"),
        ("mm[Hg]", "mmol/L", "2093-3", "measure different things"),
        ("[iU]/L", "g/L", None, "measure different things"),
        ("[iU]/L", "[arb'U]/L", None, "measure different things"),  # UCUM's own atoms would make both a plain number
        ("[iU]/L", "/L", None, "measure different things"),
        ("mmol/mol", "%", "4548-4", "measure different things"),  # haemoglobin A1c: 48 mmol/mol are 6.5 %, not 4.8
        ("mol/mol", "1", None, "measure different things"),
        ("mmol/L", "/L", None, "measure different things"),
        ("osm/L", "mol/L", None, "measure different things"),
        ("mL/min", "mL/min/{1.73_m2}", None, "measure different things"),
        ("mg/L{FEU}", "mg/L{DDU}", None, "measure different things"),  # D-dimer: one is twice the other
        ("Cel", "Cel/h", None, "measure different things"),
        ("Gy", "Sv", None, "measure different things"),
        ("MG/DL", "mg/dL", "2093-3", "'MG/DL' is no unit of UCUM"),  # UCUM minds capitals
        ("", "mg/dL", "2093-3", "'1' is."),
        ("/min", "beats", None, "'beats' is no unit"),
    ],
)
def test_a_pair_that_is_not_known_is_never_guessed_and_says_what_would_help(unit, to, loinc, said):
    assert conversion(unit, to, loinc) is None
    assert conversion(to, unit, loinc) is None
    assert said in impossible(unit, to, loinc)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *(("mmHg", "mm[Hg]"), ("µmol/L", "umol/L"), ("mEq/L", "meq/L"), ("IU/mL", "[iU]/mL"), ("years", "a")),
        *(("°C", "Cel"), ("C", "Cel"), ("mcg/kg/min", "ug/kg/min"), ("bpm", "/min"), ("", "1")),
    ],
)
def test_a_unit_as_people_write_it_is_refused_with_ucums_word_for_it(written, meant):
    assert unreadable(written).endswith(f"; {meant!r} is.")
    assert unreadable(meant) is None


@pytest.mark.parametrize(
    "written",
    [
        *(
            "mg//dL",
            "mg/",
            "(mg",
            "mg)",
            "()",
            "{a}{b}",
            ".mg",
            "0",
            "mg dL",
            "mg{a b}",
            "mg-",
            "kCel",
            "k%",
            "m2{",
            "TODO",
        ),
        "(" * 200 + "m" + ")" * 200,
    ],
)
def test_what_is_no_unit_is_refused_by_name(written):
    assert unreadable(written).startswith(f"{written!r} is no unit of UCUM")
    assert conversion(written, "mg/dL", None) is None


def test_a_unit_beyond_all_numbers_cannot_be_converted():
    huge = ".".join(["10*999"] * 3)
    assert unreadable(huge) is None
    assert conversion(huge, "1", None) is None
    assert conversion("1", huge, None) is None


@given(st.text())
def test_any_unit_is_itself(unit):
    assert conversion(unit, unit, None) == AS_IT_IS


@given(st.text(alphabet="mgdLkPa/.()[]{}10*9H%ul' -", max_size=12))
def test_a_unit_is_read_or_refused_and_nothing_else_happens(unit):
    why = unreadable(unit)
    assert why is None or why.startswith(f"{unit!r} is no unit of UCUM")


@given(st.floats(-1e6, 1e6), st.sampled_from(ALL), st.sampled_from(ALL), CODES)
def test_there_and_back_is_the_same_amount_and_a_refusal_is_one_both_ways(value, unit, to, loinc):
    there, back = conversion(unit, to, loinc), conversion(to, unit, loinc)

    assert (there is None) == (back is None) == (impossible(unit, to, loinc) is not None)
    if there is not None:
        assert back(there(value)) == pytest.approx(value, rel=1e-12, abs=1e-9)


@given(st.floats(0, 1e6), st.sampled_from(ALL), st.sampled_from(ALL), st.sampled_from(ALL), CODES)
def test_a_way_round_is_the_direct_way(value, first, second, third, loinc):
    one, two, direct = (conversion(*pair, loinc) for pair in ((first, second), (second, third), (first, third)))
    if one is not None and two is not None:
        assert direct is not None
        assert two(one(value)) == pytest.approx(direct(value), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_units_of_one_kind_convert_without_a_code(kind):
    assert all(conversion(unit, to, None) for unit in kind for to in kind)


@given(st.sampled_from(ALL), st.sampled_from(ALL))
def test_without_a_code_units_of_two_kinds_do_not(unit, to):
    same = any(unit in kind and to in kind for kind in KINDS)
    assert same == (conversion(unit, to, None) is not None)


@pytest.mark.parametrize("analyte", ANALYTES, ids=lambda analyte: analyte.name)
def test_every_code_of_an_analyte_weighs_its_mole(analyte):
    for code in analyte.loinc:
        assert conversion("mol/L", "g/L", code).scale == float(analyte.g_mol)
        assert conversion("g/L", "mol/L", code)(float(analyte.g_mol)) == pytest.approx(1, rel=1e-15)


@pytest.mark.parametrize(
    ("unit", "loinc", "why"),
    [
        *(("mg/dL", "2345-7", None), ("ng/mL", "2345-7", None), ("mmol/L", "14749-6", None), ("meq/L", "2951-2", None)),
        *(("banana", None, None), ("/min", "8867-4", None)),
        (
            "mmol/L",
            "3084-1",
            "LOINC 3084-1 is urate by mass, which 'mmol/L' does not tell; by amount of substance it is 14933-6.",
        ),
        (
            "mg/dL",
            "2524-7",
            "LOINC 2524-7 is lactate by amount of substance, which 'mg/dL' does not tell; by mass it is 14118-4.",
        ),
        ("mg/dL", "2951-2", "LOINC 2951-2 is sodium by amount of substance, which 'mg/dL' does not tell."),
        (
            "g/kg",
            "2345-7",
            "LOINC 2345-7 is glucose by mass, which 'g/kg' does not tell; by amount of substance it is 14749-6 or",
        ),
    ],
)
def test_a_code_by_mass_is_not_one_by_amount(unit, loinc, why):
    found = unfit(unit, loinc)

    assert found is None if why is None else found.startswith(why)


def test_a_code_is_of_one_analyte():
    codes = [code for analyte in ANALYTES for code in analyte.loinc] + list(NO_MOLAR_MASS)
    assert len(set(codes)) == len(codes)


def test_a_conversion_is_of_arrays_too():
    assert conversion("Cel", "[degF]", None)(np.array([0.0, 100.0, math.nan])).tolist()[:2] == [32.0, 212.0]


def test_what_may_have_been_written_instead_is_met_in_hospitals_or_accepted():
    assert set(beside("mg/dL", (), "2093-3")) == {"g/L", "g/dL", "mg/L", "mmol/L", "umol/L"}
    assert set(beside("mg/dL", (), None)) == {"g/L", "g/dL", "mg/L"}
    assert set(beside("Cel", ("K",), None)) == {"K", "[degF]"}
    assert beside("mm[Hg]", (), None)["kPa"](16) == pytest.approx(120.01, abs=0.01)
    assert beside("[arb'U]/mL", (), None) == {}
    assert not any(unreadable(unit) for unit in MET)


def test_a_value_of_the_contracts_own_unit_needs_no_pint():
    asked = (
        "import sys; from features import units; units.conversion('mg/dL', 'mg/dL', None); print('pint' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_every_atom_can_be_defined_and_read():
    for atom in (*units.BASE, *units.METRIC, *units.PLAIN, *units.DEGREES, *units.ARBITRARY):
        assert conversion(f"1000.{atom}" if atom not in units.DEGREES else "K", atom, None) is not None
