"""Counts of sequenced fragments in bins of the genome: freed of their dependence on GC, and summed by chromosome arm.

Rows are samples, and each is worked out from itself alone, to the bit: sums run from the first bin to the last, in
whatever batch a sample comes.
"""

import numpy as np
from numpy.typing import NDArray

from features.definitions import Array, Profile

GC_STRATA = 10
"""Groups of bins of like GC whose medians tell how much GC matters in a sample; our own choice."""
FEWEST_IN_A_STRATUM = 8
"""A median of fewer bins follows single ones; our own choice."""


def total(profile: Profile) -> Array:
    """The sum of each row of (n, k), (n,), added from left to right: NumPy's own sum adds a batch in another order."""
    if profile.shape[-1] == 0:
        return np.zeros(profile.shape[0])
    found: Array = np.add.accumulate(profile, axis=-1)[..., -1]
    return found


def gc_corrected(counts: Profile, gc: Array) -> Profile:
    """Counts a bin as they would be if a bin's share of G and C made no difference; same unit, same median.

    `counts` (n, B), `gc` (B,) from 0 to 1. Each sample's bins are grouped by GC, and a bin is divided by the median of
    bins like it, along straight lines through the groups' medians. A bin whose like are mostly empty has no value
    (NaN). Raises ValueError if `gc` is of other bins.
    Source: that counts depend on GC, one hump a sample, and are corrected sample by sample: Benjamini Y, Speed TP.
    Nucleic Acids Res 2012;40:e72, doi:10.1093/nar/gks001. Medians of groups in place of its LOESS are our own choice.
    """
    if counts.shape[1] != len(gc):
        raise ValueError(f"{counts.shape[1]} bins were counted, and the GC of {len(gc)} is known")
    order = np.argsort(gc, kind="stable")
    strata: list[NDArray[np.int64]] = []
    for bins in np.array_split(order, max(1, min(GC_STRATA, len(gc) // FEWEST_IN_A_STRATUM))):
        if strata and gc[strata[-1][0]] == gc[bins[-1]]:  # a table that rounds GC: both are of one and the same
            bins = np.concatenate([strata.pop(), bins])
        strata.append(bins)
    centres = np.array([gc[bins].mean() for bins in strata])
    medians = np.stack([np.median(counts[:, bins], axis=1) for bins in strata], axis=1)
    if len(strata) == 1:
        expected = medians
    else:  # beyond the outermost groups the line goes on: there GC matters most, and samples differ most
        low = np.clip(np.searchsorted(centres, gc, side="right") - 1, 0, len(strata) - 2)
        part = (gc - centres[low]) / (centres[low + 1] - centres[low])
        expected = medians[:, low] * (1 - part) + medians[:, low + 1] * part
    level = np.median(counts, axis=1)[:, None]
    return np.asarray(counts * level / np.where(expected > 0, expected, np.nan))


def arm_shares(counts: Profile, arm: NDArray[np.str_], arms: NDArray[np.str_]) -> Profile:
    """Each chromosome arm's share of a sample's counts, 0-1. `counts` (n, B), `arm` (B,) of each bin, `arms` (A,)."""
    whole = total(counts)
    sums = np.stack([total(counts[:, arm == name]) for name in arms], axis=1)
    return np.asarray(sums / np.where(whole > 0, whole, np.nan)[:, None])
