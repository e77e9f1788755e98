"""The simulated study: the same for the same seed, in nobody's name, and its references are what it makes them."""

import json

import numpy as np
from numpy.testing import assert_allclose

from configs.settings import ROOT
from configs.spec import load_spec
from pipelines import liquid_biopsy
from pipelines.liquid_biopsy import ORIGINS, STAGES, sample, study

SPEC = load_spec("cancer_origin_simulated", ROOT / "configs")


def test_the_references_in_git_are_those_that_the_simulation_makes():
    folder = ROOT / "configs" / "references"
    for name, content in liquid_biopsy.references().items():
        kept = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        assert list(kept) == list(content)
        for key, value in content.items():
            if isinstance(value, list) and not isinstance(value[0], str):
                assert_allclose(kept[key], value, rtol=1e-5, atol=1e-9, err_msg=f"{name}: {key}")
            else:
                assert kept[key] == value, f"{name}: {key}"


def test_the_same_seed_is_the_same_study_and_another_is_another():
    assert study(30, 5) == study(30, 5)
    assert study(30, 5) != study(30, 6)


def test_every_person_is_called_simulated_and_only_the_sick_have_a_stage():
    table = study(300, 5)

    assert all(name.startswith("simulated-") for name in table["id"])
    assert "simulated" in SPEC.title
    assert "simulated" in SPEC.intended_use
    assert set(table["origin"]) == set(ORIGINS)
    assert {stage for stage, origin in zip(table["stage"], table["origin"], strict=True) if origin == "none"} == {None}
    assert {stage for stage, origin in zip(table["stage"], table["origin"], strict=True) if origin != "none"} == {
        *STAGES
    }


def test_the_study_keeps_the_contract_that_the_spec_makes():
    table = study(20, 5)

    for name, column in SPEC.columns.items():
        present = [cell for cell in table[name] if cell is not None]
        assert present, name
        if column.length is not None:
            assert {len(cell) for cell in present} == {column.length}, name
            assert column.range[0] <= min(map(min, present)) <= max(map(max, present)) <= column.range[1], name


def test_a_tumour_fraction_of_nothing_leaves_no_trace_of_an_origin():
    healthy = sample(np.zeros(4), np.full(4, "none"), 9)["methylation_betas"]
    without = sample(np.zeros(4), np.full(4, "lung"), 9)["methylation_betas"]

    assert abs(healthy.mean() - without.mean()) < 0.01
