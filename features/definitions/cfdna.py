"""Fragments of cell-free DNA in blood plasma: where on the genome they lie, and how long they are.

Counts are of deduplicated, well mapped fragments of one sample. `short_fragments` (100-150 bp) and `long_fragments`
(151-220 bp) are counted in the bins of the reference `healthy_panel`, which holds `arm` and `gc` of each bin, the
healthy `ratio_profile` (B,), and `arms` with the mean and the standard deviation of each one's share of the fragments
in healthy people (`arm_share_mean`, `arm_share_sd`), all worked out by the functions of features/bins.py.
`fragment_sizes` are counts of fragments of 50, 51, 52 … bp, whatever the bin.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from features.bins import arm_shares, gc_corrected, total
from features.definitions import Array, Profile, Reference

FIRST_SIZE_BP = 50
"""The length that the first count of `fragment_sizes` is of; shorter ones are rarely kept by a library's preparation.
Our own convention."""
SHORT_BELOW_BP = 150
HELIX_BP = 10.4
"""Base pairs a turn of DNA on a nucleosome, which short fragments' lengths follow.

Source: Snyder MW et al. Cell 2016;164:57-68, doi:10.1016/j.cell.2015.11.050 (from memory, not looked up).
"""
RHYTHM_FROM_BP = 85
RHYTHM_BP = 52
"""Five turns below the length of a nucleosome's DNA, where the rhythm is seen; our own choice."""
TREND_BP = 11
"""Window of the moving mean that the rhythm is measured against: about a turn, so that it has no rhythm itself."""


def short_long_ratio(short_fragments: Profile, long_fragments: Profile) -> Array:
    """Short fragments (100-150 bp) for each long one (151-220 bp), over the whole genome; about 0.1-0.5. (n, B) in.

    Source: Cristiano S et al. Nature 2019;570:385-389, doi:10.1038/s41586-019-1272-6.
    """
    return _quotient(total(short_fragments), total(long_fragments))


def fragmentation_profile(short_fragments: Profile, long_fragments: Profile, healthy_panel: Reference) -> Profile:
    """Short fragments for each long one, bin by bin, as the difference from the sample's own mean. (n, B) in and out.

    Short and long counts are corrected for GC each for itself.
    Source: Cristiano S et al. Nature 2019;570:385-389, doi:10.1038/s41586-019-1272-6.
    """
    gc = healthy_panel["gc"]
    ratio = _quotient(gc_corrected(short_fragments, gc), gc_corrected(long_fragments, gc))
    return np.asarray(ratio - (total(ratio) / ratio.shape[1])[:, None])


def fragmentation_correlation(short_fragments: Profile, long_fragments: Profile, healthy_panel: Reference) -> Array:
    """How alike the sample's fragmentation profile and the healthy one are: Pearson's correlation, -1 to 1. (n, B) in.

    Source: Cristiano S et al. Nature 2019;570:385-389, doi:10.1038/s41586-019-1272-6: near 1 in healthy people, lower
    in many with cancer.
    """
    own = fragmentation_profile(short_fragments, long_fragments, healthy_panel)
    healthy = healthy_panel["ratio_profile"]
    healthy = healthy - healthy.mean()
    return _quotient(total(own * healthy), np.sqrt(total(own * own) * np.sum(healthy * healthy)))


def arm_z_scores(short_fragments: Profile, long_fragments: Profile, healthy_panel: Reference) -> Profile:
    """For each chromosome arm, how many standard deviations its share of the fragments lies from healthy. (n, B) in.

    A gained arm is above 0, a lost one below. One column an arm of the panel, (n, A).
    Source: Leary RJ et al. Sci Transl Med 2012;4:162ra154, doi:10.1126/scitranslmed.3004742 (from memory, not looked
    up); Cristiano S et al. Nature 2019;570:385-389, doi:10.1038/s41586-019-1272-6.
    """
    gc = healthy_panel["gc"]
    counts = gc_corrected(short_fragments + long_fragments, gc)
    shares = arm_shares(counts, healthy_panel["arm"], healthy_panel["arms"].astype(np.str_))
    mean, sd = (healthy_panel[key] for key in ("arm_share_mean", "arm_share_sd"))
    if not (sd > 0).all():
        raise ValueError("an arm of `healthy_panel` has an `arm_share_sd` that is not above 0")
    return np.asarray((shares - mean) / sd)


def aneuploidy_score(short_fragments: Profile, long_fragments: Profile, healthy_panel: Reference) -> Array:
    """The root mean square of the arms' z-scores: about 1 in health, more where arms are gained or lost. (n, B) in.

    Our own summary of `arm_z_scores`, whose sources it has.
    """
    z = arm_z_scores(short_fragments, long_fragments, healthy_panel)
    return np.asarray(np.sqrt(total(z * z) / z.shape[1]))


def share_below_150_bp(fragment_sizes: Profile) -> Array:
    """The share of all fragments that are shorter than 150 bp, 0-1: higher where much of the DNA is a tumour's.

    Source: Mouliere F et al. Sci Transl Med 2018;10:eaat4921, doi:10.1126/scitranslmed.aat4921 (from memory, not
    looked up).
    """
    return _quotient(total(fragment_sizes[:, : SHORT_BELOW_BP - FIRST_SIZE_BP]), total(fragment_sizes))


def modal_size_bp(fragment_sizes: Profile) -> Array:
    """The commonest length of a fragment in bp, about 167 in health; of several the shortest.

    Source: as `share_below_150_bp`.
    """
    known = fragment_sizes.max(axis=1) > 0  # NaN > 0 is false
    return np.where(known, FIRST_SIZE_BP + np.argmax(fragment_sizes, axis=1), np.nan)


def periodicity_10_bp(fragment_sizes: Profile) -> Array:
    """How strongly the lengths of short fragments follow the turn of the helix: 0 not at all, 0.2 by a fifth up and
    down around the trend.

    The amplitude of a wave of 10.4 bp in the counts of 85-136 bp, as a share of their moving mean. NaN where a sample
    has no fragment at all in some stretch of 11 bp.
    Source: as `HELIX_BP`; Mouliere F et al. Sci Transl Med 2018;10:eaat4921 sum peaks less valleys of the same rhythm.
    """
    half = TREND_BP // 2
    first = RHYTHM_FROM_BP - FIRST_SIZE_BP
    around = fragment_sizes[:, first - half : first + RHYTHM_BP + half]
    trend = np.stack([total(around[:, start : start + TREND_BP]) for start in range(RHYTHM_BP)], axis=1) / TREND_BP
    swing = _quotient(around[:, half : half + RHYTHM_BP], trend) - 1
    turn = 2 * np.pi * np.arange(RHYTHM_BP) / HELIX_BP
    return np.asarray(np.hypot(total(swing * np.cos(turn)), total(swing * np.sin(turn))) * 2 / RHYTHM_BP)


def mitochondrial_share(mitochondrial_fragments: Array, nuclear_fragments: Array) -> Array:
    """The share of all fragments that come from mitochondria, 0-1. (n,) in and out.

    Source: Jiang P et al. PNAS 2015;112:E1317-E1325, doi:10.1073/pnas.1500076112 (from memory, not looked up).
    """
    return _quotient(mitochondrial_fragments, mitochondrial_fragments + nuclear_fragments)


def _arms(healthy_panel: Reference) -> tuple[str, ...]:
    return tuple(healthy_panel["arms"].tolist())


def _bins(healthy_panel: Reference) -> tuple[str, ...]:
    """The bins by their arm and their number in it: 1p_1, 1p_2, …"""
    seen: dict[str, int] = {}
    for arm in healthy_panel["arm"].tolist():
        seen[arm] = seen.get(arm, 0) + 1
    return tuple(f"{arm}_{number}" for arm, count in seen.items() for number in range(1, count + 1))


def _quotient(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """One by the other; NaN where there is nothing to divide by."""
    return np.asarray(above / np.where(below > 0, below, np.nan))


PARTS: dict[str, Callable[..., tuple[str, ...]]] = {"fragmentation_profile": _bins, "arm_z_scores": _arms}
