"""Variants against blanks: what lies at or below the limit of blank is not found, and not found is not 0."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from features.definitions import variants
from pipelines.liquid_biopsy import LOCI, references, sample

BLANKS = {"locus": np.array(["KRAS", "TP53"]), "mean": np.array([1e-4, 2e-4]), "sd": np.array([1e-4, 1e-4])}
SIMULATED = {
    name: np.array(value) for name, value in references()["variant_blanks_simulated"].items() if isinstance(value, list)
}
NAN = float("nan")
DEPTH = np.array([[10_000.0, 10_000]])


def reads(kras, tp53):
    return np.array([[float(kras), float(tp53)]])


@pytest.mark.parametrize(
    ("kras", "tp53", "loci"),
    [
        (2, 3, 0),  # 2e-4 and 3e-4: the limits of blank are 2.645e-4 and 3.645e-4
        (3, 3, 1),
        (3, 4, 2),
        (0, 50, 1),
    ],
)
def test_a_locus_counts_above_mean_and_1_645_standard_deviations_of_blanks(kras, tp53, loci):
    assert variants.loci_above_blank(reads(kras, tp53), DEPTH, BLANKS).tolist() == [loci]


def test_an_allele_fraction_that_is_not_found_is_missing_and_not_0():
    assert_array_equal(variants.allele_fraction_above_blank(reads(2, 3), DEPTH, BLANKS), [NAN])
    assert_allclose(variants.allele_fraction_above_blank(reads(2, 52), DEPTH, BLANKS), [50e-4])
    assert_allclose(variants.allele_fraction_above_blank(reads(81, 52), DEPTH, BLANKS), [80e-4])


def test_the_excess_is_that_of_the_most_striking_locus_and_may_lie_below_the_blanks():
    assert_allclose(variants.largest_excess_over_blank_sd(reads(4, 3), DEPTH, BLANKS), [3])
    assert_allclose(variants.largest_excess_over_blank_sd(reads(0, 0), DEPTH, BLANKS), [-1])


def test_a_locus_without_depth_tells_nothing_and_a_sample_without_any_is_missing():
    half, none = np.array([[0.0, 10_000]]), np.zeros((1, 2))

    assert variants.loci_above_blank(reads(0, 9), half, BLANKS).tolist() == [1]
    assert_allclose(variants.largest_excess_over_blank_sd(reads(0, 9), half, BLANKS), [7])
    for function in (
        variants.loci_above_blank,
        variants.largest_excess_over_blank_sd,
        variants.allele_fraction_above_blank,
    ):
        assert_array_equal(function(reads(0, 0), none, BLANKS), [NAN])
        assert_array_equal(function(reads(NAN, NAN), reads(NAN, NAN), BLANKS), [NAN])


def test_a_locus_so_shallow_that_one_molecule_lies_above_its_limit_was_not_measured():
    shallow = np.array([[3700.0, 10_000]])  # one molecule of 3,700 is 2.70e-4, above the 2.645e-4 of KRAS

    assert_allclose(variants.largest_excess_over_blank_sd(reads(1, 3), shallow, BLANKS), [1])
    assert variants.loci_above_blank(reads(1, 3), np.array([[100.0, 10_000]]), BLANKS).tolist() == [0]
    assert_allclose(variants.largest_excess_over_blank_sd(reads(2, 3), np.array([[4000.0, 10_000]]), BLANKS), [4])


def test_more_molecules_with_the_variant_than_there_are_in_all_are_no_allele_fraction():
    assert_allclose(variants.allele_fraction_above_blank(reads(10_001, 52), DEPTH, BLANKS), [50e-4])
    assert variants.loci_above_blank(reads(10_001, 3), DEPTH, BLANKS).tolist() == [0]


def test_blanks_that_do_not_differ_are_refused():
    with pytest.raises(ValueError, match="`sd` that is not above 0"):
        variants.loci_above_blank(reads(1, 3), DEPTH, {**BLANKS, "sd": np.array([1e-4, 0])})


def test_of_simulated_blanks_one_locus_in_twenty_to_one_in_ten_lies_above_its_limit():
    """Counts of few molecules are skewed: more than the 5 % of a normal distribution."""
    n = 3000
    blank = sample(np.zeros(n), np.full(n, "none"), 2)
    quiet = [place for place, locus in enumerate(LOCI) if locus not in ("DNMT3A", "TET2", "TP53")]  # no clones of age
    one = {key: SIMULATED[key][quiet] for key in ("mean", "sd")}

    above = variants.loci_above_blank(blank["variant_reads"][:, quiet], blank["variant_depth"][:, quiet], one)

    assert 0.05 < above.mean() / len(quiet) < 0.1


def test_a_simulated_tumours_variants_lie_at_half_its_share_of_the_dna_or_less():
    n = 400
    found = sample(np.full(n, 0.1), np.full(n, "lung"), 5)

    fraction = variants.allele_fraction_above_blank(found["variant_reads"], found["variant_depth"], SIMULATED)

    mutated = fraction[fraction > 0.015]  # the others have no variant, or one of age
    assert len(mutated) > 0.6 * n
    assert mutated.min() > 0.03 - 0.005
    assert mutated.max() < 0.05 + 0.01
