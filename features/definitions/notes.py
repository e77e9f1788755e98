"""Numbers from a note's text, for models that read numbers alone, and to hold an encoder's vectors against."""

import re

import numpy as np

from features import texts
from features.definitions import Array, Profile

FALL = re.compile(r"\b(?:fall|falls|fell|fallen|tumble|stumbled)\b", re.IGNORECASE)


def characters(note: Profile) -> Array:
    """How many characters the note has. Shape (n, length) in, (n,) out; missing in, missing out."""
    return texts.summary(note)


def mentions_of_falls(note: Profile) -> Array:
    """How often the note names a fall, had or denied: a word is counted, not understood. Missing in, missing out."""
    found = [np.nan if text is None else len(FALL.findall(text)) for text in texts.decode(note)]
    return np.array(found, np.float64)
