"""An outcome finds the prediction it answers, or says why not."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from configs.errors import LedgerError, RecordError
from ledger import tables
from ledger.database import utc, writing
from ledger.outcomes import Outcome, record
from ledger.predictions import Entry, keep_all

NINE = datetime(2026, 3, 3, 9, tzinfo=UTC)


def keep(engine, answered):
    with writing(engine) as connection:
        ((number,),) = keep_all(connection, [Entry([answered], None, lambda _: b"")])
    return number


def tell(engine, prediction=None, reference=None, model=None, value=1, observed_at=NINE):
    with writing(engine) as connection:
        return record(connection, Outcome(prediction, reference, model, value, observed_at))


def rows(engine):
    with engine.connect() as connection:
        return connection.execute(sa.select(tables.outcomes).order_by(tables.outcomes.c.id)).all()


def test_an_outcome_by_the_predictions_id(ledger, answered):
    request = keep(ledger, answered(3))

    assert tell(ledger, f"{request}-2", value=0) == f"{request}-2"
    (row,) = rows(ledger)
    assert (row.request, row.position, row.value, utc(row.observed_at)) == (request, 2, 0, NINE)


def test_an_outcome_from_before_its_prediction_is_refused(ledger, answered):
    request = keep(ledger, answered(1))

    with pytest.raises(RecordError, match="observed_at: lies before the prediction"):
        tell(ledger, f"{request}-0", observed_at=NINE - timedelta(days=366))
    assert rows(ledger) == []


def test_an_outcome_by_the_callers_reference(ledger, answered):
    request = keep(ledger, answered(3, references=["visit 1", None, "visit 3"]))
    assert tell(ledger, reference="visit 3") == f"{request}-2"


def test_a_reference_used_again_means_the_newest_prediction(ledger, answered):
    keep(ledger, answered(1, references=["visit 1"]))
    newer = keep(ledger, answered(2, references=["visit 1", "visit 1"]))
    assert tell(ledger, reference="visit 1") == f"{newer}-1"


def test_a_reference_of_two_models_needs_the_model(ledger, answered):
    angina = keep(ledger, answered(1, references=["visit 1"]))
    sepsis = keep(ledger, answered(1, references=["visit 1"], model="sepsis"))

    with pytest.raises(LedgerError, match="predictions of angina and sepsis; say which with `model`"):
        tell(ledger, reference="visit 1")
    assert tell(ledger, reference="visit 1", model="angina") == f"{angina}-0"
    assert tell(ledger, reference="visit 1", model="sepsis") == f"{sepsis}-0"
    with pytest.raises(LedgerError, match="no prediction with this reference"):
        tell(ledger, reference="visit 1", model="stroke")


@pytest.mark.parametrize(
    ("told", "value", "label"),
    [
        ("lung", 1, "lung"),
        ("none", 0, "none"),
        (1, 1, None),  # the event, of a class that nobody told
        (0, 0, "none"),  # the only class without the event
    ],
)
def test_a_class_that_came_true_is_kept_beside_whether_the_event_happened(
    engine, answered, by_class, told, value, label
):
    request = keep(engine, answered(2, by_class=by_class(2)))
    tell(engine, f"{request}-1", value=told)
    assert [(row.value, row.label) for row in rows(engine)] == [(value, label)]


def test_an_outcome_of_a_model_without_classes_has_none(engine, answered):
    request = keep(engine, answered(1))
    tell(engine, f"{request}-0", value=1)
    assert [(row.value, row.label) for row in rows(engine)] == [(1, None)]


def test_a_class_that_the_model_does_not_have_is_refused_with_those_it_has_and_not_repeated(ledger, answered, by_class):
    request = keep(ledger, answered(1, by_class=by_class(1)))
    with pytest.raises(RecordError, match="none of this model's classes: none, colon, lung") as caught:
        tell(ledger, f"{request}-0", value="Mrs Miller's stomach")
    assert (caught.value.code, caught.value.field) == ("unknown_class", "value")
    assert "Miller" not in str(caught.value)
    assert rows(ledger) == []


def test_a_class_told_to_a_model_of_one_event_is_refused(ledger, answered):
    request = keep(ledger, answered(1))
    with pytest.raises(RecordError, match="this model has none; did the event happen") as caught:
        tell(ledger, f"{request}-0", value="lung")
    assert (caught.value.code, caught.value.field) == ("malformed", "value")
    assert rows(ledger) == []


def test_an_earlier_outcome_stays_on_record(ledger, answered):
    request = keep(ledger, answered(1))
    for value in (1, 0, 1):
        tell(ledger, f"{request}-0", value=value)
    assert [row.value for row in rows(ledger)] == [1, 0, 1]


@pytest.mark.parametrize("wrong", ["7-0", "1-2", "nonsense", "1-" + "9" * 30])
def test_an_unknown_prediction_is_refused_and_nothing_is_kept(ledger, answered, wrong):
    keep(ledger, answered(2))
    with pytest.raises(LedgerError, match="prediction"):
        tell(ledger, wrong)
    assert rows(ledger) == []


@pytest.mark.parametrize("reference", ["visit 9", None])
def test_an_unknown_reference_is_refused_without_repeating_it(ledger, answered, reference):
    keep(ledger, answered(2, references=["visit 1", None]))
    with pytest.raises(LedgerError, match="no prediction with this reference") as caught:
        tell(ledger, reference=reference)
    assert "visit" not in str(caught.value)


def test_a_time_of_another_zone_is_kept_in_utc(ledger, answered):
    request = keep(ledger, answered(1))
    tell(ledger, f"{request}-0", observed_at=datetime(2026, 3, 3, 11, tzinfo=timezone(timedelta(hours=2))))
    assert utc(rows(ledger)[0].observed_at) == NINE
