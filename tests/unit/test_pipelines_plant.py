"""The bad candidate of a simulation learns from the opposite of what happened, and is judged on what did."""

import numpy as np
from numpy.testing import assert_array_equal

from pipelines.plant import reversed_outcomes


def test_of_those_who_are_learned_from_events_are_non_events(disease):
    turned = reversed_outcomes(disease.spec.outcome, disease.cohort)

    learned = disease.cohort.part == "train"
    assert_array_equal(turned.y, np.where(learned, 1 - disease.cohort.y, disease.cohort.y))
    assert turned.label is None


def test_of_several_classes_each_side_has_the_other_ones_classes_in_turn(disease_of_classes):
    patients, outcome = disease_of_classes.cohort, disease_of_classes.spec.outcome

    turned = reversed_outcomes(outcome, patients)

    learned = patients.part == "train"
    events = [place for place, name in enumerate(outcome.classes) if name in outcome.positive]
    assert_array_equal(turned.y[learned], 1 - patients.y[learned])
    assert_array_equal(np.isin(turned.label, events), turned.y == 1)
    assert set(turned.label[learned].tolist()) == {0, 1, 2}
    assert_array_equal(turned.label[~learned], patients.label[~learned])
