"""One quantity in another unit, or a refusal.

Units are written in UCUM (Unified Code for Units of Measure, version 2.2); pint knows what each is made of. Stricter
than UCUM where it would guess: an arbitrary unit (`[iU]`, `[arb'U]`) and a remark in braces (`{1.73_m2}`, `{FEU}`) are
quantities of their own, and moles and equivalents are none of plain numbers. Between mass and amount of substance lies
the analyte's molar mass, so the analyte is named by its LOINC code; a pair that cannot be converted is never guessed.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", float, NDArray[np.float64], NDArray[np.float32])


class Conversion(NamedTuple):
    """What a number is multiplied by, and what is then added, to stand in another unit."""

    scale: float
    offset: float

    def __call__(self, value: Number) -> Number:
        return value * self.scale + self.offset


AS_IT_IS = Conversion(1.0, 0.0)


@dataclass(frozen=True)
class Analyte:
    """A substance that laboratories tell by mass or by amount, under LOINC codes of its own for each: `g_mol` grams a
    mole, `eq_mol` equivalents a mole."""

    name: str
    by_mass: tuple[str, ...]
    by_amount: tuple[str, ...]
    g_mol: str
    source: str
    eq_mol: int | None = None

    @property
    def loinc(self) -> tuple[str, ...]:
        return self.by_mass + self.by_amount


# Concentrations in serum, plasma, blood or urine: a molar mass does not mind which.
IUPAC = "IUPAC abridged standard atomic weight"
ANALYTES = (
    Analyte(
        "cholesterol",  # total, HDL, LDL (measured, calculated, direct) and non-HDL: each is told as cholesterol
        ("2093-3", "2085-9", "2089-1", "13457-7", "18262-6", "43396-1"),
        ("14647-2", "14646-4", "22748-8", "39469-2", "70204-3"),
        "386.65",
        "C27H46O; PubChem CID 5997",
    ),
    Analyte(
        "glucose",
        ("2345-7", "2339-0", "1558-6", "2340-8", "41653-7"),
        ("14749-6", "15074-8", "14771-0"),
        "180.16",
        "C6H12O6; PubChem CID 5793",
    ),
    Analyte(
        "creatinine",
        ("2160-0", "38483-4", "2161-8"),
        ("14682-9", "59826-8", "14683-7"),
        "113.12",
        "C4H7N3O; PubChem CID 588",
    ),
    Analyte(
        "bilirubin",  # total, direct, indirect: direct bilirubin, though conjugated, is told as bilirubin
        ("1975-2", "1968-7", "1971-1"),
        ("14631-6", "14629-0", "14630-8"),
        "584.7",
        "C33H36N4O6; PubChem CID 5280352",
    ),
    Analyte("urea", ("3091-6",), ("22664-7",), "60.056", "CH4N2O; PubChem CID 1176"),
    # By mass the nitrogen alone is weighed, by amount the urea is counted, which holds two of it.
    Analyte("urea nitrogen", ("3094-0",), ("14937-7",), "28.014", f"N twice; {IUPAC}"),
    Analyte("urate", ("3084-1",), ("14933-6",), "168.11", "C5H4N4O3; PubChem CID 1175"),
    Analyte("lactate", ("14118-4",), ("2524-7",), "90.08", "told as lactic acid, C3H6O3; PubChem CID 612"),
    Analyte("calcium", ("17861-6",), ("2000-8",), "40.078", f"Ca; {IUPAC}", 2),
    Analyte("magnesium", ("19123-9",), ("2601-3",), "24.305", f"Mg; {IUPAC}", 2),
    Analyte("phosphate", ("2777-1",), ("14879-1",), "30.974", f"told as phosphorus, P; {IUPAC}"),
    Analyte("iron", ("2498-4",), ("14798-3",), "55.845", f"Fe; {IUPAC}"),
    Analyte("sodium", (), ("2951-2",), "22.990", f"Na; {IUPAC}", 1),
    Analyte("potassium", (), ("2823-3",), "39.098", f"K; {IUPAC}", 1),
    Analyte("chloride", (), ("2075-0",), "35.45", f"Cl; {IUPAC}", 1),
    Analyte("bicarbonate", (), ("1963-8",), "61.017", "CHO3-; PubChem CID 769", 1),
)
NO_MOLAR_MASS = {
    **dict.fromkeys(("2571-8", "14927-8"), "triglycerides are a mixture, and have no molar mass of their own"),
    "718-7": "haemoglobin is told by the mole of its tetramer or of a fourth of it, and the code does not say which",
}
"""Codes whose mass and amount are often converted all the same, by a factor that somebody chose."""
_BY_LOINC = {code: analyte for analyte in ANALYTES for code in analyte.loinc}


def _table(rows: str) -> dict[str, tuple[str, str]]:
    """Rows of atom, number, unit."""
    split = [row.split() for row in rows.strip().splitlines()]
    return {atom: (number, unit) for atom, number, unit in split}


_POWERS = (24, 21, 18, 15, 12, 9, 6, 3, 2, -1, -2, -3, -6, -9, -12, -15, -18, -21, -24)
PREFIXES = {"da": 1} | dict(zip("YZEPTGMkhdcmunpfazy", _POWERS, strict=True))

BASE = ("m", "g", "s", "K", "A", "rad", "mol", "eq", "osm", "B", "Sv", "[iU]")
"""What is made of nothing else, and takes a prefix."""
METRIC = _table(
    """
    L      1                 dm3
    l      1                 dm3
    Hz     1                 /s
    Bq     1                 /s
    N      1                 kg.m/s2
    dyn    1                 g.cm/s2
    Pa     1                 N/m2
    bar    1e5               Pa
    m[Hg]  133.3220          kPa
    m[H2O] 9.80665           kPa
    J      1                 N.m
    cal    4.184             J
    W      1                 J/s
    V      1                 W/A
    Ohm    1                 V/A
    S      1                 A/V
    T      1                 V.s/m2
    Gy     1                 J/kg
    P      1                 dyn.s/cm2
    St     1                 cm2/s
    u      1.66053906660e-24 g
    kat    1                 mol/s
    U      1                 umol/min
    [IU]   1                 [iU]
    """
)
"""Units that take a prefix: so many of another unit. The values are UCUM's own."""
PLAIN = _table(
    """
    10*        10                 1
    10^        10                 1
    %          1e-2               1
    [ppth]     1e-3               1
    [ppm]      1e-6               1
    [ppb]      1e-9               1
    [pptr]     1e-12              1
    min        60                 s
    h          60                 min
    d          24                 h
    wk         7                  d
    a          365.25             d
    mo         1                  a/12
    [in_i]     2.54               cm
    [ft_i]     12                 [in_i]
    [Ch]       1                  mm/3
    [gr]       64.79891           mg
    [lb_av]    7000               [gr]
    [oz_av]    1                  [lb_av]/16
    [stone_av] 14                 [lb_av]
    [car_m]    0.2                g
    g%         1                  g/dL
    [drp]      1                  mL/20
    [Cal]      1                  kcal
    [MET]      3.5                mL/min/kg
    atm        101325             Pa
    [psi]      6894.757293168361  Pa
    [PRU]      1                  mm[Hg].s/mL
    [wood'U]   1                  mm[Hg].min/L
    [diop]     1                  /m
    deg        0.0174532925199433 rad
    """
)
"""Units that take no prefix."""
DEGREES = {"Cel": (Fraction(1), Fraction("273.15")), "[degF]": (Fraction(5, 9), Fraction("459.67") * 5 / 9)}
"""Kelvins in a degree, and at its zero."""
ARBITRARY = (
    *("[arb'U]", "[USP'U]", "[GPL'U]", "[MPL'U]", "[APL'U]", "[beth'U]", "[anti'Xa'U]", "[todd'U]", "[ka'U]"),
    *("[tb'U]", "[CFU]", "[PFU]", "[FFU]", "[TCID_50]", "[CCID_50]", "[BAU]", "[AU]", "[EU]", "[ELU]", "[FEU]"),
    *("[pH]", "[hnsf'U]", "[HPF]", "[LPF]", "[NTU]"),
)
"""What only a procedure defines: made of nothing else, and no prefix."""
SHARED = {"mol", "eq", "osm", "[iU]", *ARBITRARY}
"""Of what only the substance or the procedure says how much it is."""
MEANT = {
    **dict.fromkeys(("year", "years", "yr"), "a"),
    **dict.fromkeys(("month", "months"), "mo"),
    **dict.fromkeys(("week", "weeks"), "wk"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("hour", "hours", "hr"), "h"),
    "minutes": "min",
    "sec": "s",
    "percent": "%",
    "bpm": "/min",
    **dict.fromkeys(("C", "°C"), "Cel"),
    **dict.fromkeys(("F", "°F"), "[degF]"),
    "lb": "[lb_av]",
    "in": "[in_i]",
    "cc": "mL",
    "": "1",
}
"""What people write, and UCUM's word for it."""
MEANT_WITHIN = {"µ": "u", "μ": "u", "mcg": "ug", "mEq": "meq", "IU": "[iU]", "mmHg": "mm[Hg]", "cmH2O": "cm[H2O]"}

# The units in which one quantity is met in hospitals, for whoever suspects that a value was written in another one.
MET = (
    *("mg/dL", "g/L", "g/dL", "mg/L", "mmol/L", "umol/L", "mm[Hg]", "kPa", "Cel", "[degF]"),
    *("cm", "m", "[in_i]", "kg", "g", "[lb_av]"),
)

LONGEST = 100
"""Characters of a unit; UCUM's own examples have less than half as many."""
_TOKEN = re.compile(
    r"\{(?P<remark>[!-z|~]*)\}"
    r"|(?P<atom>(?:10[*^]|(?:[A-Za-z%]|\[[A-Za-z0-9_'.]+\])+))(?P<power>[+-]?\d{1,3})?"
    r"|(?P<number>\d{1,12})"
    r"|(?P<mark>[./()])"
)


def conversion(unit: str, to: str, loinc: str | None) -> Conversion | None:
    """How a value in `unit` is brought to stand in `to`; None if the two cannot be converted.

    `loinc` names the analyte where mass meets amount. Reading a unit takes pint, half a second of import; the same
    unit costs nothing, and an answer is kept.
    """
    return AS_IT_IS if unit == to else _conversion(unit, to, loinc)


def beside(unit: str, accepted: Sequence[str], loinc: str | None) -> dict[str, Conversion]:
    """The other units in which the same quantity may have been written, and how each is brought to stand in `unit`."""
    found = {other: conversion(other, unit, loinc) for other in dict.fromkeys((*accepted, *MET))}
    return {other: way for other, way in found.items() if way is not None and way != AS_IT_IS}


def unreadable(unit: str) -> str | None:
    """Why this is no unit that can be read, in a sentence; None if it is one."""
    try:
        _read(unit)
    except _UnreadableError as exc:
        meant = MEANT.get(unit, unit)
        for written, ucum in MEANT_WITHIN.items():
            meant = meant.replace(written, ucum)
        hint = (
            f"{meant!r} is" if meant != unit and unreadable(meant) is None else "mg/dL, mm[Hg], /min, 10*9/L, a, 1 are"
        )
        return f"{unit!r} is no unit of UCUM that can be read here ({exc}); {hint}."
    return None


def impossible(unit: str, to: str, loinc: str | None) -> str | None:
    """Why a value in `unit` cannot be brought to stand in `to`, and what would make it possible; None if it can."""
    if conversion(unit, to, loinc) is not None:
        return None
    for one in (unit, to):
        if (why := unreadable(one)) is not None:
            return why
    said = f"{unit!r} cannot be converted to {to!r}"
    if any(_conversion(unit, to, analyte.loinc[0]) for analyte in ANALYTES):
        if loinc in NO_MOLAR_MASS:
            return f"{said}: {NO_MOLAR_MASS[loinc]}."
        known = ", ".join(analyte.name for analyte in ANALYTES)
        asked = f"LOINC {loinc} is none of an analyte" if loinc else "write the `loinc` code of an analyte"
        return f"{said} without a molar mass: {asked} that features/units.py knows ({known})."
    return f"{said}: they measure different things."


def unfit(unit: str, loinc: str | None) -> str | None:
    """Why a column in `unit` is not what this code of an analyte stands for; None if it is, or nothing is known."""
    analyte = _BY_LOINC.get(loinc or "")
    if analyte is None:
        return None
    mass = loinc in analyte.by_mass
    if any(conversion(unit, one, None) for one in (("g/L",) if mass else ("mol/L", "eq/L"))):
        return None
    kinds = (("mass", analyte.by_mass), ("amount of substance", analyte.by_amount))
    (here, _), (there, others) = kinds if mass else reversed(kinds)
    said = f"LOINC {loinc} is {analyte.name} by {here}, which {unit!r} does not tell"
    return f"{said}; by {there} it is {' or '.join(others)}." if others else f"{said}."


class _UnreadableError(Exception):
    """What in a unit cannot be read."""


@dataclass
class _Product:
    """A unit taken apart: a plain factor, atoms and remarks, each with its power."""

    factor: Fraction = Fraction(1)
    powers: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)

    def times(self, other: "_Product", sign: int) -> None:
        self.factor *= other.factor**sign
        for mine, theirs in ((self.powers, other.powers), (self.remarks, other.remarks)):
            for name, power in theirs.items():
                mine[name] += sign * power


@lru_cache(maxsize=4096)
def _conversion(unit: str, to: str, loinc: str | None) -> Conversion | None:
    try:
        ours, theirs = _read(unit), _read(to)
    except _UnreadableError:
        return None
    if ours.remarks != theirs.remarks or _shares(ours) != _shares(theirs):
        return None
    for bridge, much in _bridges(loinc):
        crossed = _Product(ours.factor * much, ours.powers.copy())
        crossed.times(bridge, 1)
        if (found := _in_pint(crossed, theirs)) is not None:
            return found
    return None


def _shares(product: _Product) -> set[str]:
    """Amounts that a unit divides by themselves. A share of moles is no share of mass, and no plain percentage:
    haemoglobin A1c of 48 mmol/mol is 6.5 %, not 4.8 (Hoelzel et al. Clin Chem 2004;50:166-174,
    from memory, not looked up)."""
    return {atom for atom, power in product.powers.items() if power == 0 and atom in SHARED}


def _bridges(loinc: str | None) -> Iterator[tuple["_Product", Fraction]]:
    """The straight way, and then those that a code's analyte opens: grams a mole, equivalents a mole, grams of one."""
    yield _Product(), Fraction(1)
    analyte = _BY_LOINC.get(loinc or "")
    if analyte is None:
        return
    ways = [("g/mol", Fraction(analyte.g_mol))]
    if analyte.eq_mol is not None:
        ways += [("eq/mol", Fraction(analyte.eq_mol)), ("g/eq", Fraction(analyte.g_mol) / analyte.eq_mol)]
    for written, much in ways:
        there, back = _read(written), _Product()
        back.times(there, -1)
        yield there, much
        yield back, 1 / much


def _in_pint(one: _Product, other: _Product) -> Conversion | None:
    """Scale and offset between two units; None if they are of another dimension."""
    registry = _registry()
    ours, theirs = (registry.Unit(registry.UnitsContainer(_named(product))) for product in (one, other))
    if ours.dimensionality != theirs.dimensionality:
        return None
    at_zero, at_one = (registry.convert(much, ours, theirs) / other.factor for much in (Fraction(0), one.factor))
    try:
        found = Conversion(float(at_one - at_zero), float(at_zero))
    except OverflowError:
        return None
    return found if found.scale else None


def _named(product: _Product) -> dict[str, int]:
    """Atoms by pint's names. A degree beside anything else is a difference of temperatures, and has no zero."""
    powers = {atom: power for atom, power in product.powers.items() if power}
    alone = list(powers.values()) == [1]
    return {("" if alone or atom not in DEGREES else "delta_") + _name(atom): power for atom, power in powers.items()}


def _name(atom: str) -> str:
    """The atom as a name that pint can hold."""
    return "ucum_" + "".join(letter if letter.isalnum() else f"_{ord(letter)}_" for letter in atom)


@cache
def _registry() -> Any:
    """UCUM's atoms and nothing else, in exact fractions."""
    import pint

    registry: Any = pint.UnitRegistry(None, non_int_type=Fraction)
    for atom in (*BASE, *ARBITRARY):
        registry.define(f"{_name(atom)} = [{_name(atom)}]")
    for atom, (kelvins, zero) in DEGREES.items():
        registry.define(f"{_name(atom)} = {kelvins} * {_name('K')}; offset: {zero}")
    for atom, (number, unit) in (METRIC | PLAIN).items():
        made_of = _read(unit)
        terms = "".join(f" * {_name(part)} ** {power}" for part, power in made_of.powers.items())
        registry.define(f"{_name(atom)} = {Fraction(number) * made_of.factor}{terms}")
    return registry


@lru_cache(maxsize=4096)
def _read(unit: str) -> _Product:
    """The unit taken apart. Raises _UnreadableError, saying what cannot be read."""
    return _term(_tokens(unit), within=False)


def _tokens(unit: str) -> Iterator[re.Match[str]]:
    if len(unit) > LONGEST:
        raise _UnreadableError(f"{len(unit)} characters")
    place = 0
    while place < len(unit):
        token = _TOKEN.match(unit, place)
        if token is None:
            raise _UnreadableError(f"at {unit[place:][:20]!r}")
        yield token
        place = token.end()


def _term(tokens: Iterator[re.Match[str]], *, within: bool) -> _Product:
    """Components with `.` and `/` between them, from left to right: a/b.c is a.c/b; `within` parentheses or not."""
    product, sign, before = _Product(), 1, ""
    for token in tokens:
        mark = token["mark"]
        if mark == ")" and within and before in ("component", "remark"):
            return product
        if mark in (".", "/"):
            if before == "operator" or (not before and mark == "."):
                raise _UnreadableError(f"{mark!r} stands beside nothing")
            sign, before = (1 if mark == "." else -1), "operator"
        elif token["remark"] is not None and before != "remark":
            product.times(_Product(remarks=Counter({token["remark"]: 1})), sign)
            before = "remark"
        elif before in ("", "operator") and mark != ")":
            product.times(_term(tokens, within=True) if mark == "(" else _component(token), sign)
            before = "component"
        else:
            raise _UnreadableError(f"at {token[0]!r}")
    if within or before not in ("component", "remark"):
        raise _UnreadableError("it ends too early")
    return product


def _component(token: re.Match[str]) -> _Product:
    if token["number"] is not None:
        if int(token["number"]) == 0:
            raise _UnreadableError("a unit of 0")
        return _Product(Fraction(int(token["number"])))
    prefix, atom = _atom(token["atom"])
    one, product = _Product(Fraction(10) ** prefix, Counter({atom: 1})), _Product()
    product.times(one, int(token["power"] or 1))
    return product


def _atom(written: str) -> tuple[int, str]:
    """The power of ten of the prefix, 0 without one, and the atom."""
    takes_prefix = {*BASE, *METRIC}
    if written in takes_prefix or written in PLAIN or written in DEGREES or written in ARBITRARY:
        return 0, written
    for prefix, power in PREFIXES.items():
        if written.startswith(prefix) and written.removeprefix(prefix) in takes_prefix:
            return power, written.removeprefix(prefix)
    raise _UnreadableError(f"{written!r} is not known")
