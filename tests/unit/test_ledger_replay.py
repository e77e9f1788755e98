"""A prediction on record, computed once more from what came in."""

import dataclasses
import shutil

import numpy as np
import pytest

from configs.errors import BundleError, LedgerError
from features.synthetic import draw, edges
from ledger.database import now, writing
from ledger.predictions import Answered, Entry, find, keep_all, purge
from ledger.replay import replay, replay_with


@pytest.fixture
def asked(disease):
    """Records as a request holds them, one of them with a unit and a time of its own."""
    records = [*edges(disease.spec.columns), *draw(disease.spec.columns, 9, 5)]
    unit = {"age_years": 50, "cholesterol_mg_dl": {"value": 5.2, "unit": "mmol/L"}, "at": "2026-03-03T09:00:00+02:00"}
    return [*records, {**unit, "patient": "p", "reference": "r"}]


@pytest.fixture
def request_number(ledger, stored, predictor, asked):
    """The request under which the server would have put these records' answers."""
    checked = predictor.contract.check(asked, now())
    X = predictor.matrix(checked.values, checked.at)
    risks = predictor.risk(X)
    table, nobody = predictor.contract.table(checked.cells), [None] * len(asked)
    said = Answered("angina", 1, stored.digest, now(), table, nobody, nobody, X, risks, predictor.bands(risks, None))
    with writing(ledger) as connection:
        ((number,),) = keep_all(connection, [Entry([said], None, lambda _: b"")])
    return number


def test_every_prediction_is_replayed_to_the_bit(ledger, home, request_number, asked):
    for position in range(len(asked)):
        again = replay(ledger, home, f"{request_number}-{position}")
        assert again.holds and again.same_features
        assert again.agrees == "to the bit"
        assert again.risk == again.stored.risk


def test_a_loaded_predictor_says_the_same(ledger, home, request_number, predictor):
    again, other = (
        replay_with(predictor, find(ledger, f"{request_number}-0")),
        replay(ledger, home, f"{request_number}-0"),
    )
    assert (again.risk, again.agrees, again.holds) == (other.risk, other.agrees, other.holds)


@pytest.mark.parametrize(
    ("gap", "agrees", "holds"), [(5e-7, "within 1e-06", True), (2e-6, "differs", False), (np.nan, "differs", False)]
)
def test_a_risk_that_was_not_that_is_noticed(ledger, request_number, predictor, gap, agrees, holds):
    stored = find(ledger, f"{request_number}-0")
    again = replay_with(predictor, dataclasses.replace(stored, risk=stored.risk + gap))
    assert (again.agrees, again.holds) == (agrees, holds)


def test_a_record_that_was_changed_is_noticed(ledger, request_number, predictor):
    stored = find(ledger, f"{request_number}-0")
    again = replay_with(predictor, dataclasses.replace(stored, record={**stored.record, "age_years": 19}))
    assert not again.same_features and not again.holds


def test_a_record_that_no_longer_keeps_the_contract_is_a_ledger_error(ledger, request_number, predictor):
    stored = find(ledger, f"{request_number}-0")
    with pytest.raises(LedgerError, match="its record no longer keeps the contract: age_years"):
        replay_with(predictor, dataclasses.replace(stored, record={**stored.record, "age_years": 999}))


def test_a_purged_prediction_cannot_be_replayed_and_says_what_is_left(ledger, home, request_number):
    purge(ledger, now(), "nurse.joy")
    with pytest.raises(LedgerError, match="its record was purged; only its digest, risk and band are left"):
        replay(ledger, home, f"{request_number}-0")


def test_an_unknown_prediction_is_a_ledger_error(ledger, home):
    with pytest.raises(LedgerError, match="no prediction '17-0' is on record"):
        replay(ledger, home, "17-0")


def test_a_prediction_whose_bundle_is_gone_is_a_bundle_error(ledger, home, trained, request_number):
    shutil.rmtree(home.store / trained.digest)
    with pytest.raises(BundleError, match=trained.digest):
        replay(ledger, home, f"{request_number}-0")


def test_a_prediction_whose_bundle_was_changed_is_a_bundle_error(ledger, home, trained, request_number):
    (home.store / trained.digest / "calibration.json").write_text('{"slope": 1.0, "intercept": 0.0}')
    with pytest.raises(BundleError, match=r"calibration\.json"):
        replay(ledger, home, f"{request_number}-0")
