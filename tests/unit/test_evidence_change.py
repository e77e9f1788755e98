"""What changed between two bundles is named in the words of the plan, and what no plan allows is never overlooked."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.spec import Spec, from_document
from evidence.change import PLANNED, between
from models.bundle import Bundle

CHANGED = {
    "title": "Another title",
    "owner": "others",
    "intended_use": "Another use",
    "source": {"csv": "more.csv"},
    "candidates": ["logistic"],
    "gates": {"auroc": ">= 0.50"},
    "operating_points": {"alert": {"specificity": 0.8}},
    "serving": {"max_batch": 16, "deadline_ms": 900},
    "monitoring": {"window": 60, "min_outcomes": 20},
    "attributes": ["pain"],
    "refused_rows_at_most": 0.1,
    "split": {"sites": ["north", "south"], "test_fraction": 0.25, "seed": 18},
    "features": ["age_years", "pain"],
}


def with_spec(bundle: Bundle, **changed):
    document = json.loads(json.dumps({**bundle.spec.document, **changed}))
    return replace(bundle, spec=from_document(document, "angina.yaml"))


def with_training(bundle: Bundle, **changed):
    return replace(bundle, training={**bundle.training, **changed})


def test_a_bundle_has_not_changed_from_itself(trained):
    assert between(trained, trained).told == ()


@pytest.mark.parametrize(
    ("changed", "kind"),
    [({"data": "e" * 64}, "new_data"), ({"family": "gam"}, "new_family")],
)
def test_new_data_and_a_new_family_are_seen_in_what_was_trained(trained, changed, kind):
    assert list(between(trained, with_training(trained, **changed)).planned) == [kind]


def test_another_model_of_the_same_data_is_a_retuned_one(trained):
    cases = [{**case, "risk": case["risk"] / 2} for case in trained.selftest["cases"]]
    other = replace(trained, selftest={**trained.selftest, "cases": cases})

    assert list(between(trained, other).planned) == ["retuned_parameters"]
    assert list(between(trained, with_training(other, data="e" * 64)).planned) == ["new_data"]


def test_code_and_libraries_are_named_and_no_plan_allows_them(trained):
    libraries = {**trained.training["libraries"], "numpy": "0.1"}
    changes = between(trained, with_training(trained, code="c" * 64, libraries=libraries))

    assert changes.planned == {}
    assert [phrase.split()[0] for phrase in changes.other] == ["code", "numpy"]
    assert changes.outside(("new_data", "retuned_parameters", "new_features", "new_family")) == changes.other


def test_the_order_of_a_category_s_values_is_a_change(trained):
    columns = json.loads(json.dumps(trained.spec.document["columns"]))
    columns["pain"]["values"].reverse()
    assert list(between(trained, with_spec(trained, columns=columns)).planned) == ["new_features"]


@given(st.sets(st.sampled_from(sorted(CHANGED))))
def test_each_changed_key_of_the_spec_is_named_and_outside_a_plan_that_does_not_name_it(trained, keys):
    changes = between(trained, with_spec(trained, **{key: CHANGED[key] for key in keys}))

    told = " ".join(changes.told)
    assert all(f"spec.{key}" in told for key in keys)
    assert {key for key in keys if key not in PLANNED} == {phrase.removeprefix("spec.") for phrase in changes.other}
    assert set(changes.planned) == {PLANNED[key] for key in keys if key in PLANNED}
    assert bool(changes.outside(())) == bool(keys)


def test_every_key_that_a_plan_may_allow_is_a_key_of_the_spec():
    assert set(PLANNED) <= set(Spec.model_fields)
