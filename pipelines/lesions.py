"""*Simulated* pictures of skin lesions: nobody in them exists, and no lesion looks quite like this.

One picture an examination, of one lesion in the middle of some skin: its outline is an ellipse with bulges (asymmetry)
and notches (irregularity of the border), it is brown with patches of other browns, red, blue-grey and black
(variegation). Light falls from one side, hairs cross it, and the camera adds noise. The three are drawn for each lesion
and raise the odds that it is called malignant, with the patient's age; a share of the truth depends on nothing in the
picture. Every number here is our own invention: it shows that a network finds a planted truth in pictures and that the
house carries them, and says nothing about how well anything finds melanoma.
"""

import base64
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIDE = 48
"""Rows and columns of a picture; three channels, red, green and blue, 0 to 1."""
LIGHT_OF = {"camera 1": 1.0, "camera 2": 0.9}
"""Their lamps differ; a network must not take one for an illness, so the share of malignant lesions does not."""
MOST_PICTURES = 3
"""Of one patient, each of another lesion."""
FIRST_DAY = date(2024, 1, 8)
DAYS = 600

INTERCEPT, ASYMMETRY, IRREGULARITY, VARIEGATION, YEAR_OF_AGE = -1.5, 1.0, 1.5, 3.0, 0.03
"""Log-odds of malignant: of a lesion that is average in all, by a standard deviation of each, and by a year past 55."""
LABELLED_OTHERWISE = 0.03
"""Share of lesions whose outcome is drawn from nothing but a coin."""

SKIN = np.array([[0.93, 0.78, 0.69], [0.82, 0.63, 0.51], [0.62, 0.44, 0.33]])
BROWN = np.array([0.47, 0.28, 0.19])
PATCHES = np.array([[0.24, 0.13, 0.10], [0.12, 0.09, 0.10], [0.62, 0.26, 0.24], [0.40, 0.42, 0.52], [0.68, 0.47, 0.33]])
"""Dark brown, black, red, blue-grey, light brown."""
PATCHES_OF_A_LESION = 4


def study(patients: int, seed: int) -> dict[str, list[Any]]:
    """The *simulated* study's table, a row a picture: whose it is, when and where it was taken, and what came of it.

    A picture is a base64 text of little-endian float32, (3, SIDE, SIDE).
    """
    dice = np.random.default_rng(seed)
    table: dict[str, list[Any]] = {
        name: [] for name in ("id", "taken_on", "camera", "age_years", "sex", "lesion_picture", "malignant")
    }
    for number in range(patients):
        age = float(np.clip(round(dice.normal(55, 15)), 18, 95))
        sex, camera = str(dice.choice(["female", "male"])), str(dice.choice(list(LIGHT_OF), p=[0.65, 0.35]))
        day, tone = int(dice.integers(DAYS)), float(dice.beta(1.3, 2.0))
        for visit in range(int(dice.integers(1, MOST_PICTURES, endpoint=True))):
            traits = dice.normal(size=3)
            log_odds = INTERCEPT + traits @ [ASYMMETRY, IRREGULARITY, VARIEGATION] + YEAR_OF_AGE * (age - 55)
            risk = 0.5 if dice.random() < LABELLED_OTHERWISE else 1 / (1 + np.exp(-log_odds))
            drawn = picture(traits, tone, LIGHT_OF[camera], dice)
            table["id"].append(f"simulated-{number + 1:05d}")
            table["taken_on"].append((FIRST_DAY + timedelta(days=day + 30 * visit)).isoformat())
            table["camera"].append(camera)
            table["age_years"].append(age)
            table["sex"].append(sex)
            table["lesion_picture"].append(base64.b64encode(drawn.astype("<f4").tobytes()).decode())
            table["malignant"].append(int(dice.random() < risk))
    return table


def picture(traits: Array, tone: float, light: float, dice: np.random.Generator) -> Array:
    """One *simulated* lesion on skin of this `tone`, 0 light to 1 dark, (3, SIDE, SIDE), 0 to 1.

    `traits` are asymmetry, irregularity and variegation, in standard deviations from the average lesion.
    """
    asymmetry, irregularity, variegation = map(_soft, traits.tolist())
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) * 2 - 1
    x, y = columns - dice.normal(0, 0.06), rows - dice.normal(0, 0.06)
    far, angle = np.hypot(x, y), np.arctan2(y, x)
    edge = _outline(angle, asymmetry, irregularity, dice)
    inside = 1 / (1 + np.exp(-(edge - far) / dice.uniform(0.02, 0.04)))
    skin = np.array([np.interp(tone, [0, 0.5, 1], SKIN[:, channel]) for channel in range(3)])
    lesion = _colours(x, y, skin, variegation, dice)
    found: Array = skin[:, None, None] * (1 - inside) + lesion * inside
    lamp = dice.uniform(0, 2 * np.pi)
    found *= light * (1 + dice.uniform(0, 0.12) * (np.cos(lamp) * columns + np.sin(lamp) * rows))
    for _ in range(dice.poisson(0.5)):
        found *= 1 - dice.uniform(0.3, 0.6) * _hair(columns, rows, dice)
    found += dice.normal(0, 0.015, found.shape) + dice.normal(0, 0.015, (1, SIDE, SIDE))
    return np.clip(np.round(found * 255), 0, 255) / 255  # a camera's eight bits


def _soft(trait: float) -> float:
    """How strongly a trait shows: about 0 two deviations below the average, 1 at it, 3 two above."""
    return float(np.log1p(np.exp(1.2 * trait + 0.54)))


def _outline(angle: Array, asymmetry: float, irregularity: float, dice: np.random.Generator) -> Array:
    """The lesion's radius in each direction: an ellipse, bulges to one side, and notches."""
    turn = dice.uniform(0, 2 * np.pi, 9)
    radius = 1 + 0.06 * np.cos(2 * angle - turn[0]) + 0.10 * asymmetry * np.cos(angle - turn[1]) ** 3
    radius += 0.05 * asymmetry * np.cos(3 * angle - turn[2])
    for order, shift in zip(range(5, 11), turn[3:], strict=True):
        radius += 0.045 * irregularity * dice.uniform(0.3, 1) * np.cos(order * angle - shift)
    return np.asarray(dice.uniform(0.38, 0.56) * radius)


def _colours(x: Array, y: Array, skin: Array, variegation: float, dice: np.random.Generator) -> Array:
    """The lesion's colour at each place: brown on this skin, and patches of others."""
    base = (0.75 * BROWN + 0.25 * skin) * dice.uniform(0.8, 1.2)
    found: Array = np.tile(base[:, None, None], (1, *x.shape))
    strength = min(0.35 * variegation, 0.95)
    for colour in dice.permutation(len(PATCHES))[:PATCHES_OF_A_LESION]:
        centre, size = dice.normal(0, 0.2, 2), dice.uniform(0.10, 0.18)
        there = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * size**2))
        found += there * strength * (PATCHES[colour][:, None, None] - found)
    return found


def _hair(columns: Array, rows: Array, dice: np.random.Generator) -> Array:
    """A bent line across the picture, 1 on it and 0 beside it."""
    turn, offset, bend = dice.uniform(0, np.pi), dice.uniform(-0.9, 0.9), dice.normal(0, 0.3)
    along, across = columns * np.cos(turn) + rows * np.sin(turn), rows * np.cos(turn) - columns * np.sin(turn)
    return np.asarray(np.exp(-(((across - offset - bend * along**2) / 0.03) ** 2)))
