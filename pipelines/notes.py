"""*Simulated* admission notes of nurses, and whether the patient fell on the ward: nobody in it exists.

Each invented person has a few hidden traits (an unsteady gait, an earlier fall, confusion, sedatives, urgency, weakness
on standing). Traits make a fall likelier; the note tells of a trait, or of its absence, in one of several wordings,
leaves some out, and says much that has nothing to do with falls. A word alone does not give it away: "no falls at home"
and "fell at home" share their words. The traits are such as are often named for falls in hospital (from memory, not
looked up); how common they are, how strongly they act (far more strongly than in any ward, so that some hundred notes
suffice) and how they are worded is our own invention. It shows that a
text is read, embedded and judged; it says nothing about who falls.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

BASE_LOG_ODDS = -4.9
PER_DECADE_ABOVE_75 = 0.25
SHARE_TOLD = 0.9
"""Each trait, or its absence, stands in this share of the notes."""
SHARE_WITHOUT_NOTE = 0.03
SPREAD = 0.3
"""Of what no note tells, on the log-odds scale."""
WARDS = {"geriatrics": 0.4, "surgery": 0.35, "neurology": 0.25}


@dataclass(frozen=True)
class Trait:
    """How common a trait is, what it adds to the log-odds of a fall, and how a nurse words it or its absence."""

    share: float
    log_odds: float
    there: tuple[str, ...]
    absent: tuple[str, ...]


TRAITS = (
    Trait(
        0.35,
        2.2,
        (
            "Unsteady, holds on to the furniture.",
            "Gait broad-based and slow, needs a frame for a few steps.",
            "Sways when turning, walks only with one person beside.",
            "Shuffles, and stops several times on the way to the bathroom.",
        ),
        (
            "Walks the corridor alone and steadily.",
            "Gait safe, climbs stairs without a rail.",
            "Mobile and independent, no aid needed.",
            "Steady when turning.",
        ),
    ),
    Trait(
        0.3,
        2.0,
        (
            "Fell at home twice this autumn.",
            "The daughter reports a fall in the kitchen last month.",
            "Admitted after lying on the floor overnight.",
            "Has bruises from a tumble on the stairs.",
        ),
        (
            "No falls at home this year.",
            "Denies ever having fallen.",
            "The family knows of no fall.",
            "Has not stumbled or fallen lately.",
        ),
    ),
    Trait(
        0.25,
        1.8,
        (
            "At night disoriented, tries to get up and does not call.",
            "Does not know which place this is, pulls at the line.",
            "Forgets what was agreed within minutes.",
            "Restless and muddled since yesterday.",
        ),
        (
            "Fully oriented, uses the bell.",
            "Alert, and follows what is agreed.",
            "Clear in conversation, calls for help when in doubt.",
            "Memory intact in conversation.",
        ),
    ),
    Trait(
        0.3,
        1.4,
        (
            "Takes zopiclone every night.",
            "Lorazepam was given for agitation.",
            "Drowsy from the new pain medicine.",
            "Two sedatives on the chart.",
        ),
        (
            "Takes nothing to sleep.",
            "No sedatives on the chart.",
            "Awake all day, sleeps without tablets.",
            "Refuses sleeping tablets.",
        ),
    ),
    Trait(
        0.3,
        1.0,
        (
            "Has to pass water every hour and hurries.",
            "Does not reach the toilet in time.",
            "Diuretics given late, up four times a night.",
            "Urgency, leaves the bed in haste.",
        ),
        (
            "Sleeps through without needing the toilet.",
            "Continent, no urgency.",
            "Has a catheter, no need to get up.",
            "Passes water without hurry.",
        ),
    ),
    Trait(
        0.25,
        1.2,
        (
            "Dizzy on standing, pressure drops.",
            "Legs gave way at the bedside this morning.",
            "Grows pale when sitting up.",
            "Feels faint after a few steps.",
        ),
        (
            "No dizziness on standing.",
            "Pressure stable lying and standing.",
            "Stands up from the chair without using the arms.",
            "Legs strong on both sides.",
        ),
    ),
)
ASIDES = (
    "Eats half of each meal.",
    "The son visits in the afternoon.",
    "Skin intact, heels offloaded.",
    "Diabetic diet ordered.",
    "Allergic to penicillin.",
    "Wears reading glasses.",
    "Hearing aid left at home.",
    "Lives on the second floor, with the lift broken.",
    "Speaks little English, the niece translates.",
    "Looks forward to the garden.",
    "Wound dry, stitches to be taken out on Friday.",
    "Asks for a quiet room.",
    "Chest clear, oxygen stopped.",
    "Social worker informed.",
    "Blood taken, result pending.",
)
MOST_ASIDES = 3


def study(patients: int, seed: int) -> dict[str, Any]:
    """One row an invented person, by column; `note` is None where none was written, `fell` is 1 or 0."""
    dice = np.random.default_rng(seed)
    age = np.round(np.clip(dice.normal(74, 11, patients), 40, 99))
    has = dice.random((patients, len(TRAITS))) < [trait.share for trait in TRAITS]
    log_odds = BASE_LOG_ODDS + PER_DECADE_ABOVE_75 * (age - 75) / 10 + dice.normal(0, SPREAD, patients)
    log_odds += has @ np.array([trait.log_odds for trait in TRAITS])
    fell = dice.random(patients) < 1 / (1 + np.exp(-log_odds))
    notes = [_note(row, dice) for row in has]
    unwritten = dice.random(patients) < SHARE_WITHOUT_NOTE
    return {
        "id": [f"N{number:05d}" for number in range(1, patients + 1)],
        "age": age.tolist(),
        "sex": dice.choice(["female", "male"], patients).tolist(),
        "ward": dice.choice(list(WARDS), patients, p=list(WARDS.values())).tolist(),
        "note": [None if none else note for none, note in zip(unwritten, notes, strict=True)],
        "fell": fell.astype(int).tolist(),
    }


def _note(has: Any, dice: np.random.Generator) -> str:
    """A person's note: a sentence for each trait that is told, and some that say nothing of falls, in any order."""
    said = []
    for trait, there in zip(TRAITS, has, strict=True):
        if dice.random() < SHARE_TOLD:
            said.append(str(dice.choice(trait.there if there else trait.absent)))
    said += [str(aside) for aside in dice.choice(ASIDES, dice.integers(1, MOST_ASIDES + 1), replace=False)]
    return " ".join(said[place] for place in dice.permutation(len(said)))
