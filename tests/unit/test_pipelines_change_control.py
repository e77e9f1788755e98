"""Inside its plan a version is promoted by itself; outside it waits for people, and every step is on record."""

import json
from datetime import timedelta

import pytest
import sqlalchemy as sa
import yaml

from configs.errors import LedgerError, NotOnRecordError, PromotionError, SpecError
from configs.settings import Settings
from evidence.comparison import Paired
from ledger import registry, reviews, tables
from ledger.database import connect, now
from ledger.promotions import find_champion
from pipelines.approve import approve, reject
from pipelines.change_control import _beyond
from pipelines.history import at, history
from pipelines.ingest import ingest
from pipelines.prepare import prepare
from pipelines.promote import Promoted, Waits, offer, promote, rollback
from pipelines.train import train
from pipelines.validate import validate
from pipelines.verify import verify

CONTROL = {
    "allowed": ["retuned_parameters", "new_family"],
    "within": {"auroc_drop": 0.2, "brier_rise": 0.1},
    "approvals": 2,
    "retrain": {"log_loss": "better", "auroc_drop": 0.02, "min_events": 10, "min_non_events": 10},
}


def person(settings, user):
    return Settings(home=settings.home, configs=settings.configs, data=settings.data, user=user)


def version(settings, **changed):
    """The number of the version that the toy's YAML with these changes leads to, trained and validated."""
    path = settings.configs / "diseases" / "toy.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**document, **changed}, sort_keys=False), encoding="utf-8")
    trainer, validator = person(settings, "trainer"), person(settings, "validator")
    ingest("toy", trainer)
    prepare("toy", trainer)
    bundle = train("toy", trainer)
    done = validate("toy", validator)
    engine = connect(settings)
    by = reviews.trainers(engine, "toy", bundle.digest)
    assert by == ("trainer",)
    reviews.validated(engine, done.version.number, done.report, by, "validator")
    engine.dispose()
    return done.version.number


def evidence(settings):
    engine = connect(settings)
    t = tables.promotions
    with engine.connect() as connection:
        text = connection.execute(sa.select(t.c.evidence).order_by(t.c.id.desc()).limit(1)).scalar()
    engine.dispose()
    return json.loads(text)


def test_the_whole_way_of_a_plan_that_asks_for_two(medimind_home):
    first = version(medimind_home, candidates=["logistic"], change_control=CONTROL)
    joy, who = person(medimind_home, "nurse.joy"), person(medimind_home, "dr.who")

    waits = offer("toy", first, joy)
    assert isinstance(waits, Waits)
    assert waits.command == 'medimind approve toy@1 --reason "…"'
    with pytest.raises(PromotionError, match="toy@1 waits: it needs 2 approvals and has none"):
        promote("toy", first, "I insist", joy)
    assert "2 approvals" in approve("toy", first, "mine", person(medimind_home, "trainer")).waits_for
    assert "has 1 (nurse.joy)" in approve("toy", first, "fine", joy).waits_for
    assert approve("toy", first, "fine", who).waits_for is None
    before = now()
    assert promote("toy", first, "the board decided", joy).new
    assert isinstance(offer("toy", first, joy), Promoted), "it is champion already"

    inside = version(medimind_home, candidates=["boosted"])
    done = offer("toy", inside, joy)
    assert isinstance(done, Promoted)
    assert "what changed is inside the plan: " in done.promotion.reason
    kept = evidence(medimind_home)
    assert kept["champion"] == "toy@1" and kept["outside"] == []
    assert set(kept["paired"]) >= {"auroc", "brier"}

    outside = version(medimind_home, title="Another promise")
    waits = offer("toy", outside, joy)
    assert isinstance(waits, Waits) and "the plan does not allow spec.title" in waits.why
    assert find_champion(connect(medimind_home), "toy").version == inside

    assert rollback("toy", "alarms", who).promotion.version == first
    waits = offer("toy", inside, joy)
    assert isinstance(waits, Waits) and "it was champion before; going back to it is a person's decision" in waits.why
    reject("toy", inside, "it alarms too often", who)
    with pytest.raises(PromotionError, match=r"toy@2 is rejected by dr.who"):
        promote("toy", inside, "I insist", joy)
    waits = offer("toy", inside, joy)
    assert "dr.who rejected it: it alarms too often" in waits.why

    assert verify(joy).problems == ()
    told = "\n".join(history("toy", joy))
    assert told.index("approved toy@1") < told.index("promoted toy@1") < told.index("rolled back to toy@1")
    assert "rejected toy@2" in told and "asserted, not authenticated" in told
    then = "\n".join(at("toy", (done.promotion.at + timedelta(milliseconds=1)).isoformat(), joy))
    assert then.startswith("toy@2 was champion: promoted at") and "before   toy@1" in then
    with pytest.raises(NotOnRecordError, match=r"toy: had no champion at .* the first promotion was at"):
        at("toy", before.isoformat(), joy)
    with pytest.raises(NotOnRecordError, match="lies in the future"):
        at("toy", "2126-11-24 14:03", joy)
    with pytest.raises(LedgerError, match="'noon' is no ISO 8601 time"):
        at("toy", "noon", joy)
    with pytest.raises(SpecError, match="no disease 'toi'"):
        history("toi", joy)


def test_verify_names_what_is_not_as_it_was_decided(medimind_home):
    first = version(medimind_home, candidates=["logistic"])
    promote("toy", first, "first", medimind_home)
    second = version(medimind_home, candidates=["boosted"])
    promote("toy", second, "second", medimind_home)
    assert verify(medimind_home).problems == ()

    engine = connect(medimind_home)
    champion = find_champion(engine, "toy")
    path = medimind_home.store / champion.bundle / "thresholds.json"
    whole = path.read_bytes()
    path.write_bytes(whole + b" ")
    (medimind_home.home / "spool").mkdir()
    refused = medimind_home.home / "spool" / "17.refused"
    refused.write_bytes(b"")
    first_said, second_said = verify(medimind_home).problems
    assert first_said.startswith("bundles: the champion toy@2: ") and "thresholds.json" in first_said
    assert second_said.startswith("spool: ") and "17.refused" in second_said
    path.write_bytes(whole)
    refused.unlink()

    with engine.begin() as connection:  # the newest promotion, and the end of the chain with it, are gone
        connection.execute(tables.promotions.delete().where(tables.promotions.c.version == second))
        c = tables.chain.c
        (last,) = connection.execute(sa.select(c.id).where(c.kind == "promotions", c.about == "toy@2")).scalars()
        connection.execute(tables.chain.delete().where(c.id >= last))
    cut, alias = verify(medimind_home).problems
    assert cut.startswith(f"MLflow: the tags of toy@2 keep link {last} of the chain")
    assert f"the chain has only {last - 1} links. Decisions were cut off" in cut
    assert alias.startswith("MLflow: its champion alias of toy says toy@2, the ledger says toy@1")

    away = medimind_home.model_copy(update={"registry": "http://127.0.0.1:9"})
    del away.__dict__["registry_uri"]
    (down,) = verify(away).problems
    assert down.startswith(
        "MLflow: aliases and the chain's heads could not be checked: the registry http://127.0.0.1:9"
    )
    assert registry.heads(medimind_home, "toy")[second].length == last, "nothing was mended by looking"
    engine.dispose()


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ({}, True),
        ({"auroc": (0.78, 0.80)}, True),
        ({"auroc": (0.769, 0.80)}, False),
        ({"auroc": (float("nan"), 0.80)}, False),
        ({"brier": (0.21, 0.20)}, True),
        ({"brier": (0.22, 0.20)}, False),
        ({"calibration_slope": (0.85, 2.0)}, True),
        ({"calibration_slope": (1.3, 1.0)}, False),
        ({"calibration_slope": (float("nan"), 1.0)}, False),
    ],
)
def test_the_bounds_hold_against_the_champion(toy_document, figures, kept):
    from configs.spec import Within

    within = Within(auroc_drop=0.03, brier_rise=0.015, calibration_slope=(0.8, 1.25))
    said = {"auroc": (0.85, 0.85), "brier": (0.1, 0.1), "calibration_slope": (1.0, 1.0), **figures}
    paired = {name: Paired(a, b, a - b, None, None, None) for name, (a, b) in said.items()}
    assert (_beyond(within, paired) == []) is kept
    assert _beyond(replace_none(within), paired) == []


def replace_none(within):
    """Bounds that ask for nothing of these figures."""
    return within.model_copy(update=dict.fromkeys(("auroc_drop", "brier_rise", "calibration_slope")))
