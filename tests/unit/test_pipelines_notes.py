"""The simulated notes: the same people for a seed, notes that keep the contract, no sentence that is the answer."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from configs.settings import ROOT
from configs.spec import load_spec
from features import texts
from features.definitions import notes as definitions
from pipelines import notes


@pytest.fixture(scope="module")
def study():
    return notes.study(1500, 2611)


@pytest.fixture(scope="module")
def spec():
    return load_spec("fall_risk_notes_simulated", ROOT / "configs")


def test_a_seed_has_its_people_and_another_seed_others(study):
    assert notes.study(1500, 2611) == study
    assert notes.study(1500, 2612) != study


def test_every_note_keeps_the_contract_and_some_patients_have_none(study, spec):
    written = [note for note in study["note"] if note is not None]
    for note in written:
        texts.check("note", spec.columns["note"], note)

    assert 0.01 < 1 - len(written) / 1500 < 0.06
    assert set(study["ward"]) == set(spec.columns["ward"].values)


def test_it_says_everywhere_that_it_is_simulated(spec):
    assert "simulated" in spec.name
    assert "simulated" in spec.title
    assert "Nobody in it exists" in spec.intended_use
    assert "*Simulated*" in (notes.__doc__ or "")


def test_a_fall_follows_from_what_the_notes_tell_but_not_surely_and_from_no_sentence_alone(study):
    fell = np.array(study["fell"])
    told = np.array(
        [
            [
                any(word in (note or "") for word in trait.there) - any(word in (note or "") for word in trait.absent)
                for trait in notes.TRAITS
            ]
            for note in study["note"]
        ],
        float,
    )

    foretold = cross_val_predict(LogisticRegression(), told, fell, cv=5, method="predict_proba")[:, 1]

    assert 0.8 < roc_auc_score(fell, foretold) < 0.92
    sentences = {word for trait in notes.TRAITS for word in (*trait.there, *trait.absent)} | set(notes.ASIDES)
    for sentence in sentences:
        assert roc_auc_score(fell, [sentence in (note or "") for note in study["note"]]) < 0.65, sentence


def test_a_mention_of_a_fall_counts_whether_it_is_told_or_denied():
    rows = np.stack([texts.encode(note, 40) for note in ("Fell at home, no other falls.", "No falls.", "Fallout.")])
    missing = np.full((1, 40), np.nan)

    found = definitions.mentions_of_falls(np.concatenate([rows, missing]))

    np.testing.assert_array_equal(found, [2, 1, 0, np.nan])
    np.testing.assert_array_equal(definitions.characters(np.concatenate([rows, missing])), [29, 9, 8, np.nan])
