"""What the network of a table is told of a patient, and the files that it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from configs.errors import BundleError, TrainingError
from configs.spec import Learning
from features.build import Feature, Plan
from models import weights
from models.families import tabular_net
from models.families.tabular_net import FURTHEST, Architecture, Network, fit, load, parts
from models.learner import seeded

SMALL = Architecture(numbers=1, levels=(2,), bins=2, embedding=3, width=4, depth=2, members=2, outputs=1)


def feature(name, *categories):
    return Feature(name, (name,), None, categories)


PLAN = Plan((feature("lactate_mmol_l"), feature("sex", "female", "male")), ())
NAN = np.nan


def table(n=240, seed=3):
    """Lactate and sex, each missing now and then, which tell the outcome."""
    dice = np.random.default_rng(seed)
    X = np.column_stack([dice.gamma(2.0, 1.0, n), dice.integers(0, 2, n)]).astype(np.float32)
    y = (dice.random(n) < 1 / (1 + np.exp(2 - X[:, 0] - X[:, 1]))).astype(np.float64)
    X[dice.random(X.shape) < 0.1] = np.nan
    return X, y


@pytest.fixture(scope="module")
def fitted(task_of):
    X, y = table()
    return fit(X, y, task_of(PLAN, len(X), learning=Learning(epochs=2)))


@pytest.fixture
def network():
    with seeded(1):
        made = Network(SMALL)
    made.starts.copy_(torch.tensor([[0.0, 2.0]]))
    made.widths.copy_(torch.tensor([[2.0, 8.0]]))
    made.medians.fill_(2.0)
    made.spreads.fill_(3.0)
    return made.eval()


def read(plan, *rows):
    return parts(tabular_net.numbers_of(plan, "tabular_net"), np.array(rows, np.float32))


def test_a_value_and_its_absence_are_told_apart_in_numbers_and_in_categories():
    numbers, missing, chosen = read(PLAN, [4, 1], [NAN, 0], [0, NAN], [0, 7])

    assert numbers.tolist() == [[4], [0], [0], [0]]
    assert missing.tolist() == [[0], [1], [0], [0]]
    assert chosen.tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]  # never seen is as missing


def test_a_number_is_told_by_how_far_it_came_through_each_bin_and_how_far_from_the_median_it_lies(network):
    """Between bins the network is linear: lactate 6 is half through the second bin and 4/3 spreads above the median."""
    with torch.inference_mode():
        network.passed.copy_(torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]))
        network.slope.copy_(torch.tensor([[0.0, 0, 1.0]]))
        network.intercept.zero_()
        told = network.told(*read(PLAN, [1, 0], [6, 0], [10, 0], [1e30, 0], [-1e30, 0]))[:, :3]

    assert_allclose(told, [[0.5, 0, 0], [1, 0.5, 4 / 3], [1, 1, 8 / 3], [1, 1, FURTHEST], [0, 0, 0]], atol=1e-6)


def test_what_is_missing_has_a_vector_of_its_own_whatever_stands_in_its_place(network):
    numbers, missing, chosen = read(PLAN, [NAN, NAN], [0, 0])

    told = network.told(numbers, missing, chosen)
    other = network.told(numbers + 5, missing, chosen)

    assert_array_equal(told[0].detach(), other[0].detach())
    assert_array_equal(told[0, :3].detach(), network.unknown[0].detach())
    assert_array_equal(told[0, 4:].detach(), network.values[0][2].detach())
    assert not torch.equal(told[0], told[1])


def test_the_members_of_the_ensemble_differ_though_they_share_their_weights(network, fitted):
    with torch.inference_mode():
        logits = network(*read(PLAN, [3, 1]))

    assert logits.shape == (1, 2, 1)
    assert logits[0, 0] != logits[0, 1]
    shared = sum(one.numel() for name, one in fitted.network.named_parameters() if name.endswith("weight"))
    own = sum(one.numel() for one in (fitted.network.heads, fitted.network.bias))
    assert shared > 10 * own


def test_bins_follow_the_quantiles_of_those_who_are_learned_from_and_few_patients_get_few(task_of):
    X, y = table(600)
    many = fit(X, y, task_of(PLAN, 600, learning=Learning(epochs=1))).network
    few = fit(X[:80], y[:80], task_of(PLAN, 80, learning=Learning(epochs=1))).network

    bins = [int(torch.isfinite(one.widths).sum()) for one in (many, few)]
    assert bins == [tabular_net.BINS, 3]  # 80 people, a sixth held out, a tenth without a value, 20 to a bin
    present = X[~np.isnan(X[:, 0]), 0]
    assert float(many.medians[0]) == pytest.approx(np.median(present), abs=0.2)
    assert float(many.starts[0, 8]) == pytest.approx(float(many.medians[0]), abs=1e-6)


def test_a_number_that_is_the_same_for_everybody_can_be_learned(task_of):
    X, y = table()
    X[:, 0] = 4.0

    found = fit(X, y, task_of(PLAN, len(X), learning=Learning(epochs=1))).log_odds(
        np.float32([[4, 1], [5, 1], [NAN, 1]])
    )

    assert np.isfinite(found).all()


def test_a_hyperparameter_that_it_does_not_have_is_refused(task_of):
    X, y = table()

    with pytest.raises(TrainingError, match="tabular_net has no parameter 'heads'; it has width, depth, dropout"):
        fit(X, y, task_of(PLAN, len(X), parameters={"heads": 3}))


def test_what_trials_chose_is_what_is_built(task_of):
    X, y = table()

    made = fit(X, y, task_of(PLAN, len(X), parameters={"width": 32, "depth": 3}, learning=Learning(epochs=1)))

    assert (made.architecture.width, made.architecture.depth) == (32, 3)


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        (Plan(PLAN.features[:1], ()), r"levels is \(2,\), the spec's features ask for \(\)"),
        (Plan((*PLAN.features, feature("age_years")), ()), "numbers is 1, the spec's features ask for 2"),
        (Plan((PLAN.features[0], feature("sex", "f", "m", "x")), ()), r"levels is \(2,\), .* ask for \(3,\)"),
    ],
)
def test_a_network_of_other_features_is_refused(fitted, tmp_path, plan, named):
    fitted.export(tmp_path)

    with pytest.raises(BundleError, match=named):
        load(tmp_path, plan)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"width": 10**9}, "width: Input should be less than or equal to 8192"),
        ({"width": 64}, r"heads is float32 \(8, 128, 1\), float32 \(8, 64, 1\) is expected"),
        ({"depth": 5}, r"lacks blocks\.1\.bias"),
        ({"members": "8"}, "members: Input should be a valid integer"),
        ({"dropout": 0.1}, "dropout: Extra inputs are not permitted"),
    ],
)
def test_an_architecture_that_the_weights_are_not_of_is_refused(fitted, tmp_path, changed, named):
    fitted.export(tmp_path)
    document = json.loads((tmp_path / weights.DOCUMENT).read_text())
    document["architecture"] |= changed
    (tmp_path / weights.DOCUMENT).write_text(json.dumps(document))

    with pytest.raises(BundleError, match=named):
        load(tmp_path, PLAN)


def test_a_patients_rows_are_held_out_together(task_of, monkeypatch):
    X, y = table()
    whose = np.repeat(np.arange(60), 4)
    held = {}
    real = tabular_net.learner.learn

    def remembers(network, rows, labels, task, habits, *, hold):
        held["groups"], held["hold"] = task.groups, hold.numpy()
        return real(network, rows, labels, task, habits, hold=hold)

    monkeypatch.setattr(tabular_net.learner, "learn", remembers)
    fit(X, y, replace(task_of(PLAN, len(X), learning=Learning(epochs=1)), groups=whose))

    inside, outside = (set(held["groups"][part].tolist()) for part in (held["hold"], ~held["hold"]))
    assert inside
    assert not inside & outside
