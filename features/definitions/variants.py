"""Somatic variants in cell-free DNA at the loci of a panel, against what the assay finds in blanks.

`variant_reads` and `variant_depth` are counts of deduplicated molecules with the variant, and of all, at the loci of
the reference `variant_blanks`, in its order: `locus` (V,), and the mean and the standard deviation of the allele
fraction that the assay finds there in people without the variant (`mean`, `sd`). What lies at or below a locus's limit
of blank counts as not found, and never as an allele fraction of 0. The limit holds at about the depth of the blanks: a
locus so shallow that one molecule alone lies above it was not measured, nor one with more of them than there are in
all. Variants of ageing blood cells (clonal haematopoiesis) lie above the limit too; only a panel with the patient's own
white cells tells them apart.
"""

import numpy as np

from features.bins import total
from features.definitions import Array, Profile, Reference

LIMIT_OF_BLANK_SD = 1.645
"""Standard deviations above the mean of blanks that 95 % of blanks stay below, where they are normally distributed.

Source: CLSI EP17-A2, Evaluation of detection capability for clinical laboratory measurement procedures, 2012.
"""


def loci_above_blank(variant_reads: Profile, variant_depth: Profile, variant_blanks: Reference) -> Array:
    """At how many loci the allele fraction lies above the limit of blank. (n, V) in, (n,) out.

    Without any variant about one locus in 20 does, more where blanks are skewed. A locus that was not measured is none
    of them; missing if no locus was.
    Source: as `LIMIT_OF_BLANK_SD`.
    """
    fraction = _allele_fraction(variant_reads, variant_depth, variant_blanks)
    found = total((fraction > _limit_of_blank(variant_blanks)).astype(np.float64))
    return np.where(np.isnan(fraction).all(axis=1), np.nan, found)


def largest_excess_over_blank_sd(variant_reads: Profile, variant_depth: Profile, variant_blanks: Reference) -> Array:
    """By how many of the blanks' standard deviations the most striking locus lies above their mean. (n, V) in.

    Source: as `LIMIT_OF_BLANK_SD`.
    """
    mean, sd = (variant_blanks[key] for key in ("mean", "sd"))
    excess = (_allele_fraction(variant_reads, variant_depth, variant_blanks) - mean) / sd
    highest = np.where(np.isnan(excess), -np.inf, excess).max(axis=1)
    return np.where(np.isfinite(highest), highest, np.nan)


def allele_fraction_above_blank(variant_reads: Profile, variant_depth: Profile, variant_blanks: Reference) -> Array:
    """The highest allele fraction, 0-1, less the blanks' mean, among loci above the limit of blank. (n, V) in.

    Missing where no locus lies above it: not found is not 0. Of a clonal, heterozygous variant on an unaltered arm
    twice this is the tumour's share of the DNA.
    Source: as `LIMIT_OF_BLANK_SD`.
    """
    fraction = _allele_fraction(variant_reads, variant_depth, variant_blanks)
    above = np.where(fraction > _limit_of_blank(variant_blanks), fraction - variant_blanks["mean"], -np.inf)
    highest = above.max(axis=1)
    return np.where(np.isfinite(highest), highest, np.nan)


def _limit_of_blank(variant_blanks: Reference) -> Array:
    """Each locus's limit of blank, (V,): the allele fraction that 95 % of blanks stay below.

    Raises ValueError if the blanks of a locus do not differ: nothing could be told from them.
    """
    mean, sd = (variant_blanks[key] for key in ("mean", "sd"))
    if not (sd > 0).all():
        raise ValueError("a locus of `variant_blanks` has an `sd` that is not above 0")
    return np.asarray(mean + LIMIT_OF_BLANK_SD * sd)


def _allele_fraction(variant_reads: Profile, variant_depth: Profile, variant_blanks: Reference) -> Profile:
    """The share of molecules with the variant, (n, V); NaN where a locus was not measured."""
    measured = (variant_depth * _limit_of_blank(variant_blanks) >= 1) & (variant_reads <= variant_depth)
    return np.asarray(variant_reads / np.where(measured, variant_depth, np.nan))
