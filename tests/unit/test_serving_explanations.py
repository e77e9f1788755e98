"""What was explained once is not computed again, what was done in time is kept, and memory is bounded."""

import json
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from models.explain import LateError, never
from serving.explanations import FLOAT_BYTES, Explanations

SIZE = 3 * FLOAT_BYTES
"""Of an explanation of two features: the base, and a contribution of each."""


class Counted:
    """Explains a row by its own values, and counts the rows."""

    at_once = 1

    def __init__(self, outputs=1, map_of=None):
        self.asked, self._outputs, self._map_of = 0, outputs, map_of

    def by_output(self, X, late):
        self.asked += len(X)
        return [(float(output), X.astype(np.float64)) for output in range(self._outputs)]

    def maps(self, X, output):
        return None if self._map_of is None else np.stack([self._map_of + output for _ in X])


def version(explainer, bundle="b" * 64):
    plan = SimpleNamespace(names=("age_years", "sodium_mmol_l"))
    return SimpleNamespace(bundle=bundle, explainer=explainer, predictor=SimpleNamespace(plan=plan))


def rows(*ages):
    return np.array([[age, 140.5] for age in ages], np.float32)


def test_a_row_is_explained_once_however_often_it_is_asked():
    explainer, kept = Counted(), Explanations()
    first = kept.of(version(explainer), rows(50, 60, 50), never)
    again = kept.of(version(explainer), rows(60, 50), never)

    assert explainer.asked == 2
    assert [told.contributions["age_years"] for (told,) in first] == [50, 60, 50]
    assert [told.contributions["age_years"] for (told,) in again] == [60, 50]


def test_another_bundle_or_another_bit_is_another_explanation():
    explainer, kept = Counted(), Explanations()
    kept.of(version(explainer), rows(50), never)
    kept.of(version(explainer, "c" * 64), rows(50), never)
    kept.of(version(explainer), np.nextafter(rows(50), np.float32(99)), never)

    assert explainer.asked == 3


def test_several_classes_have_one_each():
    ((none, colon),) = Explanations().of(version(Counted(2)), rows(50), never)
    assert (none.base, colon.base) == (0.0, 1.0)


def test_what_was_done_before_it_was_late_is_kept():
    explainer, kept, asked = Counted(), Explanations(), []

    def late():
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(LateError):
        kept.of(version(explainer), rows(1, 2, 3, 4), late)
    assert explainer.asked == 2
    assert len(kept.of(version(explainer), rows(1, 2, 3, 4), never)) == 4
    assert explainer.asked == 4


def test_rows_are_handed_over_as_many_at_once_as_the_explainer_says():
    explainer, asked = Counted(), []
    explainer.at_once = 3
    Explanations().of(version(explainer), rows(*range(7)), lambda: asked.append(1))
    assert len(asked) == 3


def test_the_one_that_was_asked_for_least_lately_goes_when_memory_is_full():
    explainer, kept = Counted(), Explanations(2 * SIZE)
    kept.of(version(explainer), rows(1, 2), never)
    kept.of(version(explainer), rows(1), never)  # now 2 is the older
    kept.of(version(explainer), rows(3), never)
    assert explainer.asked == 3
    kept.of(version(explainer), rows(1, 3), never)
    assert explainer.asked == 3
    kept.of(version(explainer), rows(2), never)
    assert explainer.asked == 4


def test_a_request_of_more_than_fits_is_answered_all_the_same():
    kept = Explanations(SIZE)
    assert len(kept.of(version(Counted()), rows(*range(20)), never)) == 20


def test_a_pictures_map_stands_beside_the_contributions_as_rows():
    drawn = np.array([[0.0, 0.25], [0.33333, 1.0]], np.float32)
    ((told,),) = Explanations().of(version(Counted(map_of=drawn)), rows(50), never)

    said = json.loads(msgspec.json.encode(told))
    assert said == {
        "base": 0.0,
        "contributions": {"age_years": 50.0, "sodium_mmol_l": 140.5},
        "map": [[0.0, 0.25], [0.333, 1.0]],
    }


def test_without_a_picture_there_is_no_map():
    ((told,),) = Explanations().of(version(Counted()), rows(50), never)
    assert set(json.loads(msgspec.json.encode(told))) == {"base", "contributions"}
