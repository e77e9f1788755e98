"""One quantity in another unit, or a refusal.

Units are written in UCUM. Mass and substance concentrations differ by the analyte's molar mass, so the analyte is
named by its LOINC code; a pair that is not here cannot be converted, and is never guessed.
"""

MOLAR_MASS_G_MOL = {
    "2093-3": 386.65,  # cholesterol, C27H46O; PubChem CID 5997
    "2345-7": 180.16,  # glucose, C6H12O6; PubChem CID 5793
    "2160-0": 113.12,  # creatinine, C4H7N3O; PubChem CID 588
    "1975-2": 584.7,  # bilirubin, C33H36N4O6; PubChem CID 5280352
}

GRAMS_PER_LITRE = {"mg/dL": 0.01, "g/L": 1.0, "g/dL": 10.0, "mg/L": 0.001}
MOLES_PER_LITRE = {"mmol/L": 1e-3, "umol/L": 1e-6}
PASCALS = {"mm[Hg]": 133.322, "kPa": 1000.0}  # conventional millimetre of mercury; BIPM SI brochure, 8th ed., table 8


def beside(unit: str, loinc: str | None) -> tuple[str, ...]:
    """The other units in which the same quantity may have been written."""
    known = dict.fromkeys([*GRAMS_PER_LITRE, *MOLES_PER_LITRE, *PASCALS])
    return tuple(other for other in known if other != unit and factor(other, unit, loinc) is not None)


def factor(unit: str, to: str, loinc: str | None) -> float | None:
    """What a value in `unit` is multiplied by to stand in `to`; None if the two cannot be converted."""
    if unit == to:
        return 1.0
    for family in (GRAMS_PER_LITRE, MOLES_PER_LITRE, PASCALS):
        if unit in family and to in family:
            return family[unit] / family[to]
    molar_mass = MOLAR_MASS_G_MOL.get(loinc or "")
    if molar_mass is not None:
        if unit in MOLES_PER_LITRE and to in GRAMS_PER_LITRE:
            return MOLES_PER_LITRE[unit] * molar_mass / GRAMS_PER_LITRE[to]
        if unit in GRAMS_PER_LITRE and to in MOLES_PER_LITRE:
            return GRAMS_PER_LITRE[unit] / molar_mass / MOLES_PER_LITRE[to]
    return None
