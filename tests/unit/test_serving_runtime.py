"""What a worker does with a record before and after the model."""

from datetime import UTC, datetime

import numpy as np

from features.columns import Record
from features.synthetic import draw
from serving import runtime

RECEIVED = datetime(2026, 3, 3, 9, tzinfo=UTC)


def test_the_time_of_prediction_is_the_same_for_the_features_and_for_the_ledger(predictor):
    (raw,) = draw(predictor.spec.columns, 1, seed=3)

    record = runtime._check(predictor, raw, RECEIVED)

    assert isinstance(record, Record)
    assert record.at == RECEIVED
    kept = runtime._on_record(record, raw)
    assert predictor.check(kept).at == RECEIVED
    assert np.array_equal(predictor.features([record]), predictor.features([predictor.check(kept)]), equal_nan=True)


def test_a_record_keeps_its_own_time(predictor):
    (raw,) = draw(predictor.spec.columns, 1, seed=3)

    record = runtime._check(predictor, {**raw, "at": "2025-12-24T18:00:00+01:00"}, RECEIVED)

    assert record.at == datetime(2025, 12, 24, 17, tzinfo=UTC)


def test_an_identifier_is_not_kept_with_the_record(predictor):
    (raw,) = draw(predictor.spec.columns, 1, seed=3)
    named = {**raw, "patient": "Jane", "reference": "visit-1"}

    kept = runtime._on_record(runtime._check(predictor, named, RECEIVED), named)

    assert set(kept) == {*raw, "at"}
