"""Two models on the same patients: DeLong's test against its definition and a published value, and the bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from evidence import comparison
from evidence.comparison import delong, delong_interval, paired_interval
from evidence.metrics import METRICS, auroc, brier


def patients(n, seed, ties=False, gap=0.7):
    """Outcomes, and the risks of two models that see the same truth through different noise."""
    dice = np.random.default_rng(seed)
    truth = dice.normal(-0.3, 1.3, n)
    y = (dice.random(n) < 1 / (1 + np.exp(-truth))).astype(float)
    a, b = (1 / (1 + np.exp(-(truth + dice.normal(0, noise, n)))) for noise in (0.4, 0.4 + gap))
    return (y, np.round(a, 1), np.round(b, 1)) if ties else (y, a, b)


def by_definition(y, a, b):
    """DeLong's difference, variance and p from every event/non-event pair, as the paper writes them."""
    components = []
    for risk in (a, b):
        pairs = (risk[y == 1][:, None] > risk[y == 0]) + 0.5 * (risk[y == 1][:, None] == risk[y == 0])
        components.append((pairs.mean(), pairs.mean(axis=1), pairs.mean(axis=0)))
    (one, v10_a, v01_a), (other, v10_b, v01_b) = components
    covariance = np.cov([v10_a, v10_b]) / len(v10_a) + np.cov([v01_a, v01_b]) / len(v01_a)
    contrast = np.array([1, -1])
    variance = contrast @ covariance @ contrast
    return one - other, variance, 2 * norm.sf(abs(one - other) / np.sqrt(variance)), covariance[0, 0]


cases = pytest.mark.parametrize(
    ("n", "seed", "ties"), [(30, 1, False), (200, 2, False), (200, 3, True), (900, 4, True)]
)


@cases
def test_delongs_test_is_what_the_paper_defines(n, seed, ties):
    y, a, b = patients(n, seed, ties)
    difference, variance, p, variance_of_a = by_definition(y, a, b)

    found, spread = delong(y, a, b), delong_interval(y, a)

    assert (found.a, found.b) == (auroc(y, a), auroc(y, b))
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.p == pytest.approx(p, abs=1e-9)
    assert (found.high - found.low) / 2 == pytest.approx(norm.ppf(0.975) * np.sqrt(variance), abs=1e-9)
    assert (found.high + found.low) / 2 == pytest.approx(difference, abs=1e-9)
    assert spread[0] == pytest.approx(auroc(y, a) - norm.ppf(0.975) * np.sqrt(variance_of_a), abs=1e-9)


def test_the_variance_of_a_published_auroc():
    """World Federation of Neurosurgeons' grade against the outcome of 113 subarachnoid haemorrhages.

    The values are those that the R package pROC asserts of its data set aSAH (Robin X et al. BMC Bioinformatics
    2011;12:77): AUROC 0.8236789, DeLong variance 0.00146991470882363.
    """
    good, poor = [37, 20, 3, 8, 4], [2, 12, 1, 8, 18]
    grade = np.r_[np.repeat(np.arange(5), good), np.repeat(np.arange(5), poor)] / 4
    y = np.r_[np.zeros(72), np.ones(41)]

    low, high = delong_interval(y, grade)

    assert auroc(y, grade) == pytest.approx(0.8236789, abs=5e-8)
    assert ((high - low) / 2 / norm.ppf(0.975)) ** 2 == pytest.approx(0.00146991470882363, abs=1e-12)


def test_the_better_model_is_found_and_the_order_turns_the_sign():
    y, a, b = patients(900, 5, gap=2)
    one, other = delong(y, a, b), delong(y, b, a)

    assert one.low > 0 and one.p < 0.001
    assert (other.difference, other.low, other.high, other.p) == (-one.difference, -one.high, -one.low, one.p)


@pytest.mark.parametrize(
    "other", [lambda a: a, lambda a: a**3, lambda a: np.full(len(a), 0.3)], ids=["a", "a³", "flat"]
)
def test_models_in_the_same_order_are_no_different(other):
    y, a, _ = patients(80, 6)
    a = other(a)

    found = delong(y, a, np.sqrt(a))

    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_where_the_variance_would_be_nil_nothing_is_significant():
    y = np.array([0.0, 0, 1, 1])

    found = delong(y, y, np.full(4, 0.5))

    assert (found.a, found.b, found.difference) == (1, 0.5, 0.5)
    assert (found.low, found.high, found.p) == (None, None, None)
    assert delong_interval(y, y) is None


@pytest.mark.parametrize("y", [[], [0], [1], [0, 0, 0], [1, 1], [0, 1], [0, 0, 1]])
def test_too_few_of_a_class_are_no_test_and_no_exception(y):
    y = np.array(y, dtype=float)
    a, b = np.linspace(0.1, 0.9, len(y)), np.linspace(0.9, 0.1, len(y))

    assert (delong(y, a, b).low, delong(y, a, b).p) == (None, None)
    assert delong_interval(y, a) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 4)), max_size=25))
def test_a_comparison_never_raises_and_its_interval_holds_the_difference(rows):
    y, a, b = (np.array([row[column] for row in rows], dtype=float) for column in range(3))
    found = delong(y, a / 4, b / 4)

    if found.p is not None:
        assert -1 <= found.low <= found.difference <= found.high <= 1
        assert 0 <= found.p <= 1


def test_the_paired_bootstrap_agrees_with_delong():
    y, a, b = patients(400, 7)
    found, theirs = paired_interval(auroc, y, a, b, 17), delong(y, a, b)

    assert (found.a, found.b, found.difference, found.p) == (theirs.a, theirs.b, theirs.difference, None)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert paired_interval(auroc, y, a, b, 17) == found


def test_pairing_narrows_the_interval(monkeypatch):
    """A tenth of the noise is not shared: judged apart, each model's own spread would hide the difference."""
    y, a, _ = patients(400, 8)
    b = np.clip(a + 0.02, 0, 1)

    found = paired_interval(brier, y, a, b, 17)

    assert found.high - found.low < 0.01


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("n", [0, 1, 12])
def test_a_bootstrap_of_one_class_never_raises(name, n, monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 20)
    found = paired_interval(METRICS[name], np.zeros(n), np.full(n, 0.2), np.linspace(0, 1, n), 17)

    if not np.isfinite(found.difference):
        assert (found.low, found.high) == (None, None)
