"""What happened to the patients later, told over HTTP."""

from datetime import UTC, datetime, timedelta

import pytest

from ledger import predictions
from ledger.promotions import find_champion

EARLIER, THEN = "2026-01-01T00:00:00Z", "2026-01-02T03:04:05Z"


@pytest.fixture
def tell(client):
    return lambda *outcomes: client.post("/v1/outcomes", json=list(outcomes))


@pytest.fixture
def known(ledger):
    """The outcome that counts for the newest prediction."""

    def newest():
        champion = find_champion(ledger, "toy")
        return predictions.window(ledger, "toy", champion.bundle, 1, None).outcomes.tolist()[0]

    return newest


def test_an_outcome_by_the_predictions_id_is_on_record(ask, patient, tell, known):
    said = ask({**patient, "at": EARLIER}).json()["predictions"][0]

    answer = tell({"prediction_id": said["id"], "value": True, "observed_at": THEN})

    assert (answer.status_code, answer.json()) == (200, {"outcomes": [{"prediction_id": said["id"]}]})
    assert known() == 1


def test_an_outcome_by_the_callers_own_reference_is_on_record(ask, patient, tell, known):
    said = ask(patient, {**patient, "at": EARLIER, "reference": "visit 7"}).json()["predictions"][1]

    answer = tell({"reference": "visit 7", "model": "toy", "value": 0, "observed_at": THEN})

    assert answer.json() == {"outcomes": [{"prediction_id": said["id"]}]}
    assert known() == 0


def test_a_later_outcome_that_contradicts_the_earlier_counts(ask, patient, tell, known):
    said = ask({**patient, "at": EARLIER}).json()["predictions"][0]

    tell({"prediction_id": said["id"], "value": 1, "observed_at": THEN})
    tell({"prediction_id": said["id"], "value": 0, "observed_at": THEN})

    assert known() == 0


def test_an_unknown_prediction_gets_its_error_in_its_place(ask, patient, tell, known):
    said = ask({**patient, "at": EARLIER}).json()["predictions"][0]

    answer = tell(
        {"prediction_id": "999999999-0", "value": 1, "observed_at": THEN},
        {"prediction_id": said["id"], "value": 1, "observed_at": THEN},
        {"reference": "nobody's", "value": 1, "observed_at": THEN},
    )

    assert answer.status_code == 200
    first, second, third = answer.json()["outcomes"]
    assert first["error"]["code"] == third["error"]["code"] == "not_on_record"
    assert second == {"prediction_id": said["id"]}
    assert known() == 1


def test_only_unknown_predictions_are_not_found(tell):
    answer = tell(
        {"prediction_id": "999999999-0", "value": 1, "observed_at": THEN},
        {"reference": "nobody's", "value": 1, "observed_at": THEN},
    )

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_on_record"


FUTURE = (datetime.now(UTC) + timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    "changed",
    [
        {"observed_at": FUTURE},
        {"observed_at": "2026-01-02T03:04:05"},
        {"observed_at": "yesterday"},
        {"observed_at": "0001-01-01T00:00:00+23:59"},
        {"observed_at": "9999-12-31T23:59:59-23:59"},
        {"value": 2},
        {"value": "yes"},
        {"value": 10**30},
        {"reference": "both names"},
        {"prediction_id": None},
        {"colour": "red"},
    ],
    ids=[
        "future",
        "no offset",
        "no time",
        "before year 1",
        "after year 9999",
        "2",
        "text",
        "huge",
        "two names",
        "no name",
        "unknown key",
    ],
)
def test_what_is_no_outcome_is_refused_and_costs_the_others_nothing(changed, ask, patient, tell, known):
    said = ask({**patient, "at": EARLIER}).json()["predictions"][0]
    good = {"prediction_id": said["id"], "value": 1, "observed_at": THEN}

    alone, among = tell({**good, **changed}), tell({**good, **changed}, good)

    assert alone.status_code == 422
    assert alone.json()["error"]["code"] == "malformed"
    assert among.status_code == 200
    assert [set(one) for one in among.json()["outcomes"]] == [{"error"}, {"prediction_id"}]
    assert known() == 1


@pytest.mark.parametrize("id_", ["1-99999999999999999999999", "9" * 30 + "-0", "x"])
def test_an_id_that_can_be_none_is_not_found(id_, tell):
    assert tell({"prediction_id": id_, "value": 1, "observed_at": THEN}).status_code == 404
