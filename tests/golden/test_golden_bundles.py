"""A bundle of each format that was ever written: still what it was, still answered from, still rolled back to."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.settings import ROOT, Settings
from evidence.report import Finding, Report
from ledger import database, promotions
from ledger.database import now
from ledger.predictions import Answered, Entry, by_class, keep_all
from ledger.replay import certainty, replay
from models.bundle import FORMATS, get, load, put, sign
from models.predict import Prediction, Predictor

FOLDER = ROOT / "tests" / "golden" / "bundles"
DIGESTS = {
    1: "191269837a2263da6d0bf4e92d0dc0f839e11005bdbc825faad574f75420427d",
    2: "d2df544ae374e73834caac1261658ea0d2b83bf4fec2338249c21fa03479001c",
    3: "5a59a4fee6079fd6a4102dc16ef0bd1c55153cf12f9ca0774e888139bce0ff0f",
    4: "345200d36873ee3fc6d1348ac76393aceb92110bbbca6dd89b7805519f64e2eb",
}
WHOLE = {"age_years": 61, "max_heart_rate_bpm": 140, "cholesterol_mg_dl": 232, "pain": "rest", "smoker": True}
UNSURE = {**WHOLE, "age_years": 53, "pain": "exertion"}
SPARSE = {"age_years": 61}
GONE = ["max_heart_rate_bpm", "cholesterol_mg_dl", "pain", "smoker"]


def shares(*risks: float) -> Any:
    return pytest.approx(dict(zip(("none", "stable", "unstable"), risks, strict=True)), abs=1e-6)


SAID = {
    1: [(0.84358941, "alert", []), (0.55526928, "rule_out", []), (0.61410463, "rule_out", GONE)],
    2: [
        (0.84358941, "alert", [], ["positive"]),
        (0.55526928, None, [], ["negative", "positive"], "neither outcome can be ruled out"),
        (0.61410463, None, GONE, ["positive"], "4 values are missing, at most 2 may be"),
    ],
    3: [
        (0.92109937, "alert", [], ["stable", "unstable"], None, shares(0.07890063, 0.17065684, 0.75044253), None),
        (0.66815415, "alert", [], ["stable"], None, shares(0.33184585, 0.52886810, 0.13928605), "unstable"),
        (
            0.60184694,
            None,
            GONE,
            ["stable", "unstable"],
            "4 values are missing, at most 2 may be",
            shares(0.39815306, 0.36297201, 0.23887493),
            None,
        ),
    ],
    4: [(0.81267495, "alert", []), (0.53765313, "rule_out", []), (0.42636103, "rule_out", GONE)],
}
"""Risk, band, missing, set, why it abstained, each class's risk and the class, of WHOLE, UNSURE and SPARSE."""


def test_every_format_has_its_bundle():
    assert set(DIGESTS) == set(SAID) == set(FORMATS)


@pytest.fixture(params=sorted(DIGESTS), ids="format {}".format)
def number(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def machine(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", user="nurse.joy")


def laid(number: int, machine: Settings) -> Predictor:
    """The bundle of that format, signed on this machine, out of its store."""
    folder = Path(shutil.copytree(FOLDER / f"format-{number}", machine.home.parent / f"format-{number}"))
    return Predictor(put(sign(folder, machine), machine))


def test_a_bundle_of_an_earlier_release_keeps_its_digest_and_its_answers(number):
    predictor = Predictor(load(FOLDER / f"format-{number}"))
    records = [predictor.check(record) for record in (WHOLE, UNSURE, SPARSE)]

    said = predictor.predictions(records, predictor.risks(predictor.features(records)))

    assert predictor.bundle.digest == DIGESTS[number]
    expected = [Prediction(pytest.approx(risk, abs=1e-6), *rest) for risk, *rest in SAID[number]]
    assert said == expected


def test_a_prediction_of_an_earlier_release_is_replayed_to_the_bit(number, machine):
    predictor, ledger = laid(number, machine), database.connect(machine)
    checked = predictor.contract.check([WHOLE, UNSURE, SPARSE], now())
    X, missing = predictor.matrix(checked.values, checked.at), predictor.missing(checked.values)
    risks, shares = predictor.risk(X), predictor.risks(X)
    silent = predictor.abstains(shares, missing)
    bands, each = predictor.bands(risks, silent), by_class(predictor, shares, silent)
    table, nobody = predictor.contract.table(checked.cells), [None] * len(risks)
    said = Answered("angina", number, DIGESTS[number], now(), table, nobody, nobody, X, risks, bands, None, each)
    with database.writing(ledger) as connection:
        ((request,),) = keep_all(connection, [Entry([said], None, lambda _: b"")])

    again = [replay(ledger, machine, f"{request}-{position}") for position in range(len(risks))]

    assert {done.agrees for done in again} == {"to the bit"}
    assert all(done.holds for done in again)
    for done, (_, band, _, *certain) in zip(again, SAID[number], strict=True):
        told = dict(zip(("set", "abstained", "risks", "class"), certain, strict=False))
        assert (done.stored.band, done.stored.label) == (band, told.pop("class", None))
        assert done.stored.risks == done.risks == told.pop("risks", None)
        told = {key: value for key, value in told.items() if value is not None}
        assert done.certainty == told
        purged = replace(done.stored, record=None)  # who knows what was missing
        assert certainty(predictor, purged) == {key: told[key] for key in told if key != "abstained"}


def test_the_newest_format_can_be_rolled_back_to_every_earlier_one(machine):
    ledger = database.connect(machine)
    gated = Finding("MM001", "AUROC", "passed", 0.8, ">= 0.6", "invented patients", (0.75, 0.85))
    for version, number in enumerate(sorted(DIGESTS), start=1):
        predictor = laid(number, machine)
        report = Report("angina", "validation", predictor.bundle.digest, "f" * 64, (gated,))
        promotions.promote(ledger, version, report, "nurse.joy", "newer")

    for number in sorted(DIGESTS, reverse=True)[1:]:
        present = promotions.find_champion(ledger, "angina")
        assert present is not None
        promotions.rollback(ledger, present, promotions.earlier(ledger, present)[0], "nurse.joy", "back")
        champion = promotions.find_champion(ledger, "angina")
        assert champion is not None and champion.bundle == DIGESTS[number]
        Predictor(get(champion.bundle, machine))
