"""Fragments of cell-free DNA: values worked out by hand, and truth that was planted in *simulated* samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from configs.settings import ROOT
from configs.spec import load_spec
from features.build import plan
from features.definitions import cfdna
from pipelines import liquid_biopsy
from pipelines.liquid_biopsy import ARM_CHANGES, ARMS, sample

PANEL = {
    name: np.array(value)
    for name, value in load_spec("cancer_origin_simulated", ROOT / "configs")
    .references["healthy_panel"]
    .content.items()
    if isinstance(value, list)
}
BINS = len(PANEL["arm"])
NAN = float("nan")


def samples(fraction, origin="none", n=120, seed=7):
    """*Simulated* samples, all with this tumour fraction."""
    return sample(np.full(n, float(fraction)), np.full(n, origin), seed)


def scores(found):
    return cfdna.arm_z_scores(found["short_fragments"], found["long_fragments"], PANEL)


def sizes(**counts):
    """A histogram of lengths from 50 bp on: `sizes(bp_100=3)` has three fragments of 100 bp."""
    found = np.zeros((1, 200))
    for name, count in counts.items():
        found[0, int(name.removeprefix("bp_")) - 50] = count
    return found


def test_three_short_fragments_and_twelve_long_ones_are_a_ratio_of_a_quarter():
    assert_array_equal(cfdna.short_long_ratio(np.array([[1.0, 2], [1, 1]]), np.array([[5.0, 7], [0, 0]])), [0.25, NAN])


def test_a_profile_is_centred_and_its_bins_are_named_by_arm():
    found = samples(0)
    profile = cfdna.fragmentation_profile(found["short_fragments"], found["long_fragments"], PANEL)

    assert profile.shape == (120, BINS)
    assert_allclose(profile.mean(axis=1), 0, atol=1e-12)
    assert cfdna.PARTS["fragmentation_profile"](PANEL)[:5] == ("1p_1", "1p_2", "1p_3", "1p_4", "1q_1")


def test_healthy_people_look_like_the_panel():
    found = samples(0)
    z = scores(found)

    assert abs(z.mean()) < 0.1
    assert 0.85 < z.std() < 1.2
    correlation = cfdna.fragmentation_correlation(found["short_fragments"], found["long_fragments"], PANEL)
    assert np.median(correlation) > 0.97
    assert 0.8 < np.median(cfdna.aneuploidy_score(found["short_fragments"], found["long_fragments"], PANEL)) < 1.2


@pytest.mark.parametrize("origin", ARM_CHANGES)
def test_arms_that_a_tumour_gained_are_above_healthy_and_lost_ones_below(origin):
    z = scores(samples(0.15, origin))

    for arm, change in ARM_CHANGES[origin].items():
        assert change * np.median(z[:, ARMS.index(arm)]) > 2.5, arm  # 9p, of the highest GC, is the hardest


def test_the_more_of_the_dna_is_a_tumours_the_further_from_healthy():
    found = [samples(fraction, "lung") for fraction in (0.0, 0.03, 0.1, 0.3)]
    pairs = [(each["short_fragments"], each["long_fragments"]) for each in found]

    aneuploidy = [np.median(cfdna.aneuploidy_score(*pair, PANEL)) for pair in pairs]
    alike = [np.median(cfdna.fragmentation_correlation(*pair, PANEL)) for pair in pairs]
    short = [np.median(cfdna.share_below_150_bp(each["fragment_sizes"])) for each in found]
    rhythm = [np.median(cfdna.periodicity_10_bp(each["fragment_sizes"])) for each in found]

    assert aneuploidy == sorted(aneuploidy)
    assert alike == sorted(alike, reverse=True)
    assert short == sorted(short)
    assert rhythm == sorted(rhythm)


@given(st.integers(0, 2**32), st.floats(0.3, 3))
def test_twice_the_sequencing_depth_changes_no_z_score(seed, depth):
    found = samples(0.05, "colorectal", n=2, seed=seed)
    deeper = {name: values * depth for name, values in found.items()}

    assert_allclose(scores(deeper), scores(found), atol=1e-6)


def test_a_quarter_of_the_fragments_is_shorter_than_150_bp():
    assert cfdna.share_below_150_bp(sizes(bp_149=1, bp_150=1, bp_167=2)).tolist() == [0.25]
    assert_array_equal(cfdna.share_below_150_bp(np.zeros((1, 200))), [NAN])


def test_the_commonest_length_is_told_in_bp_and_of_two_the_shorter():
    assert cfdna.modal_size_bp(sizes(bp_144=5, bp_167=9)).tolist() == [167]
    assert cfdna.modal_size_bp(sizes(bp_144=9, bp_167=9)).tolist() == [144]
    assert_array_equal(cfdna.modal_size_bp(np.vstack([np.zeros((1, 200)), np.full((1, 200), NAN)])), [NAN, NAN])


@pytest.mark.parametrize("swing", [0.0, 0.1, 0.3])
def test_a_rhythm_of_the_helix_is_measured_and_a_slope_is_none(swing):
    bp = 50 + np.arange(200)
    counts = 1000 * np.exp(bp / 60) * (1 + swing * np.cos(2 * np.pi * bp / cfdna.HELIX_BP))

    assert_allclose(cfdna.periodicity_10_bp(counts[None]), swing, atol=0.002 + 0.06 * swing)


def test_one_fragment_in_a_thousand_is_mitochondrial():
    assert_allclose(
        cfdna.mitochondrial_share(np.array([1.0, NAN, 0]), np.array([999.0, 5, 0])), [0.001, NAN, NAN], atol=1e-15
    )


def test_a_sample_that_was_not_measured_is_missing_in_every_feature():
    gone = {name: np.full_like(values, NAN) for name, values in samples(0, n=2).items()}
    pair = gone["short_fragments"], gone["long_fragments"]

    for found in (
        cfdna.short_long_ratio(*pair),
        cfdna.fragmentation_profile(*pair, PANEL),
        cfdna.fragmentation_correlation(*pair, PANEL),
        scores(gone),
        cfdna.aneuploidy_score(*pair, PANEL),
        cfdna.share_below_150_bp(gone["fragment_sizes"]),
        cfdna.modal_size_bp(gone["fragment_sizes"]),
        cfdna.periodicity_10_bp(gone["fragment_sizes"]),
    ):
        assert np.isnan(found).all()


@given(st.integers(0, 2**32))
def test_arms_in_another_order_give_the_same_scores_in_that_order(seed):
    found = samples(0.05, "lung", n=2, seed=5)
    order = np.random.default_rng(seed).permutation(len(ARMS))
    other = {**PANEL, **{key: PANEL[key][order] for key in ("arms", "arm_share_mean", "arm_share_sd")}}

    assert_array_equal(
        cfdna.arm_z_scores(found["short_fragments"], found["long_fragments"], other), scores(found)[:, order]
    )


def test_the_features_of_the_arms_bear_their_names():
    names = plan(load_spec("cancer_origin_simulated", ROOT / "configs")).names

    assert [name for name in names if name.startswith("cfdna.arm_z_scores.")] == [
        f"cfdna.arm_z_scores.{arm}" for arm in liquid_biopsy.ARMS
    ]


def test_a_panel_in_which_an_arm_does_not_differ_is_refused():
    panel = {**PANEL, "arm_share_sd": np.zeros(len(PANEL["arm_share_sd"]))}
    found = sample(np.zeros(1), np.array(["none"]), 1)

    with pytest.raises(ValueError, match="`arm_share_sd` that is not above 0"):
        cfdna.arm_z_scores(found["short_fragments"], found["long_fragments"], panel)
