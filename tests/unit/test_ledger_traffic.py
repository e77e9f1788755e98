"""Whom another version than the champion scores or answers: set, ended, on record, each patient on the same side."""

import dataclasses
import math

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import LedgerError, NotOnRecordError, PromotionError
from ledger import tables
from ledger.promotions import mark, promote
from ledger.reviews import review
from ledger.stops import retire
from ledger.traffic import Lane, Route, Target, Traffic, end, find, set_route, side

SHADOW, CANARY = Lane("angina", "shadow"), Lane("angina", "canary")
FOURTH, FIFTH = "4" * 64, "5" * 64

hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
shares = st.floats(0, 1, exclude_min=True)
bundles = st.binary(min_size=32, max_size=32).map(bytes.hex)


def audits(engine):
    with engine.connect() as connection:
        rows = connection.execute(sa.select(tables.audit).order_by(tables.audit.c.id))
        return [(row.actor, row.action, row.detail) for row in rows]


def arm(tag):
    return Lane("angina", "ab", tag)


def test_nothing_is_set_at_first(ledger):
    assert find(ledger, "angina") == Traffic(None, None, {})


def test_shadow_canary_and_arms_stand_side_by_side(ledger):
    shadow = set_route(ledger, SHADOW, Target(4, FOURTH), "look first", "nurse.joy")
    canary = set_route(ledger, CANARY, Target(5, FIFTH, 0.1), "a tenth", "nurse.joy")
    east = set_route(ledger, arm("east"), Target(4, FOURTH), "trial", "nurse.joy")
    west = set_route(ledger, arm("west"), Target(5, FIFTH), "trial", "nurse.joy")

    assert find(ledger, "angina") == Traffic(shadow, canary, {"east": east, "west": west})
    assert canary == Route(2, 5, FIFTH, 0.1)
    assert find(ledger, "sepsis") == Traffic()
    assert audits(ledger)[1] == ("nurse.joy", "traffic", f"angina: canary to @5 0.1 {FIFTH}")


def test_the_newest_of_a_lane_counts_and_the_row_says_which_it_was(ledger):
    first = set_route(ledger, CANARY, Target(5, FIFTH, 0.1), "a tenth", "nurse.joy")
    second = set_route(ledger, CANARY, Target(5, FIFTH, 0.5), "half", "nurse.joy")

    assert first.id < second.id
    assert find(ledger, "angina").canary == second


def test_what_ends_is_gone_and_the_others_go_on(ledger):
    set_route(ledger, CANARY, Target(5, FIFTH, 0.1), "a tenth", "nurse.joy")
    east = set_route(ledger, arm("east"), Target(4, FOURTH), "trial", "nurse.joy")
    set_route(ledger, arm("west"), Target(5, FIFTH), "trial", "nurse.joy")

    end(ledger, CANARY, "enough", "dr.who")
    end(ledger, arm("west"), "enough", "dr.who")

    assert find(ledger, "angina") == Traffic(None, None, {"east": east})
    assert audits(ledger)[-2:] == [("dr.who", "traffic", f"angina: {lane} off") for lane in ("canary", "west")]


def test_what_is_not_set_cannot_end(ledger):
    set_route(ledger, SHADOW, Target(4, FOURTH), "look first", "nurse.joy")
    with pytest.raises(NotOnRecordError, match=r"angina: no canary is set that could end\. Set: shadow\."):
        end(ledger, CANARY, "enough", "nurse.joy")
    with pytest.raises(NotOnRecordError, match="no east is set"):
        end(ledger, arm("east"), "enough", "nurse.joy")


@pytest.mark.parametrize(
    ("lane", "target", "said"),
    [
        (CANARY, Target(5, FIFTH, 0.0), "share 0: above 0 and at most 1"),
        (CANARY, Target(5, FIFTH, 1.01), "share 1.01: above 0 and at most 1"),
        (CANARY, Target(5, FIFTH, -0.1), "share -0.1"),
        (CANARY, Target(5, FIFTH, math.nan), "share nan"),
        (CANARY, Target(5, FIFTH), "a canary, and nothing else, has a share"),
        (SHADOW, Target(5, FIFTH, 0.1), "a canary, and nothing else, has a share"),
        (Lane("angina", "shadow", "east"), Target(5, FIFTH), "an A/B arm, and nothing else, has a tag"),
        (Lane("angina", "ab"), Target(5, FIFTH), "an A/B arm, and nothing else, has a tag"),
        (arm("canary"), Target(5, FIFTH), "tag 'canary'"),
        (arm(""), Target(5, FIFTH), "tag ''"),
        (arm("two words"), Target(5, FIFTH), "tag 'two words'"),
        (arm("x" * 65), Target(5, FIFTH), "up to 64 letters"),
    ],
)
def test_a_share_or_tag_that_means_nothing_is_refused(ledger, lane, target, said):
    with pytest.raises(PromotionError, match=said):
        set_route(ledger, lane, target, "why not", "nurse.joy")
    assert mark(ledger) == (0, 0, 0)


@pytest.mark.parametrize("lane", [SHADOW, Lane("angina", "canary"), arm("east")])
def test_no_lane_leads_to_a_retired_version_or_to_the_champion(ledger, report_on, lane):
    promote(ledger, 3, report_on("3" * 64), "nurse.joy", "first")
    retire(ledger, "angina", 4, "wrong table", "nurse.joy")
    share = 0.1 if lane.kind == "canary" else None

    with pytest.raises(PromotionError, match="angina@4 is retired, for good: wrong table"):
        set_route(ledger, lane, Target(4, FOURTH, share), "why not", "nurse.joy")
    with pytest.raises(PromotionError, match="angina@3 is the champion"):
        set_route(ledger, lane, Target(3, "3" * 64, share), "why not", "nurse.joy")

    assert find(ledger, "angina") == Traffic()


def test_a_version_that_is_retired_loses_its_lanes(ledger):
    set_route(ledger, CANARY, Target(5, FIFTH, 0.1), "a tenth", "nurse.joy")
    set_route(ledger, arm("east"), Target(5, FIFTH), "trial", "nurse.joy")
    shadow = set_route(ledger, SHADOW, Target(4, FOURTH), "look first", "nurse.joy")

    retire(ledger, "angina", 5, "wrong table", "nurse.joy")

    assert find(ledger, "angina") == Traffic(shadow, None, {})


def test_a_canary_that_became_champion_does_not_come_back_with_the_next_champion(ledger, report_on):
    set_route(ledger, CANARY, Target(5, FIFTH, 0.1), "a tenth", "nurse.joy")
    set_route(ledger, arm("east"), Target(5, FIFTH), "trial", "nurse.joy")
    shadow = set_route(ledger, SHADOW, Target(4, FOURTH), "look first", "nurse.joy")

    promote(ledger, 5, report_on(FIFTH), "nurse.joy", "the canary did well")
    assert find(ledger, "angina") == Traffic(shadow, None, {})

    promote(ledger, 6, report_on("6" * 64), "nurse.joy", "better still")
    assert find(ledger, "angina") == Traffic(shadow, None, {})


def test_a_rejection_ends_every_lane_of_the_version_and_a_running_server_sees_it(engine, report_on):
    set_route(engine, CANARY, Target(5, FIFTH, 0.1), "a tenth", "nurse.joy")
    set_route(engine, arm("east"), Target(5, FIFTH), "trial", "nurse.joy")
    shadow = set_route(engine, SHADOW, Target(4, FOURTH), "look first", "nurse.joy")
    before = mark(engine)

    review(engine, 5, report_on(FIFTH), "rejected", "alarms too often", "dr.who")
    assert find(engine, "angina") == Traffic(shadow, None, {})
    assert mark(engine) != before
    assert ("dr.who", "traffic", "angina: canary off") in audits(engine)

    review(engine, 5, report_on(FIFTH), "approved", "a dead battery", "dr.who")
    assert find(engine, "angina") == Traffic(shadow, None, {}), "a rejection that is taken back sets no lane again"


def test_a_rejection_that_cannot_be_put_on_record_ends_nothing(ledger, report_on):
    canary = set_route(ledger, CANARY, Target(5, FIFTH, 0.1), "a tenth", "nurse.joy")
    with pytest.raises(LedgerError, match="a reason is expected"):
        review(ledger, 5, report_on(FIFTH), "rejected", " ", "dr.who")
    review(ledger, 5, report_on(FIFTH), "approved", "fine", "dr.who")

    assert find(ledger, "angina").canary == canary


@pytest.mark.parametrize("lane", [Lane("angina", "canary"), arm("east")])
def test_a_rejected_version_answers_nobody_until_the_rejection_is_taken_back_but_may_be_watched(
    engine, report_on, lane
):
    target = Target(5, FIFTH, 0.1 if lane.kind == "canary" else None)
    review(engine, 5, report_on(FIFTH), "rejected", "alarms too often", "dr.who")
    review(engine, 5, report_on(FIFTH), "approved", "fine", "nurse.joy")

    with pytest.raises(PromotionError, match=r"angina@5 is rejected by dr.who since .* UTC: alarms too often"):
        set_route(engine, lane, target, "why not", "nurse.joy")
    shadow = set_route(engine, SHADOW, Target(5, FIFTH), "look only", "nurse.joy")
    assert find(engine, "angina") == Traffic(shadow, None, {})

    review(engine, 5, report_on(FIFTH), "approved", "a dead battery", " Dr.Who")
    assert set_route(engine, lane, target, "again", "nurse.joy").version == 5


def test_a_running_server_sees_each_change_by_the_mark(ledger):
    set_route(ledger, SHADOW, Target(4, FOURTH), "look first", "nurse.joy")
    assert mark(ledger) == (0, 0, 1)
    end(ledger, SHADOW, "enough", "nurse.joy")
    assert mark(ledger) == (0, 0, 2)


# --- which side of a canary a patient is on


@given(hashes, bundles, shares, shares)
def test_a_share_that_grows_keeps_who_was_in(patient, bundle, one, other):
    smaller, larger = (Route(number, 5, bundle, share) for number, share in enumerate(sorted((one, other))))
    if side(patient, smaller):
        assert side(patient, larger)


@given(hashes, bundles, shares)
def test_a_patient_stays_on_the_same_side_whatever_row_of_the_ledger_says_so(patient, bundle, share):
    route = Route(1, 5, bundle, share)
    assert side(patient, route) == side(patient, dataclasses.replace(route, id=2, version=6))


@given(hashes, bundles)
def test_a_share_of_one_is_everybody(patient, bundle):
    assert side(patient, Route(1, 5, bundle, 1.0))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_the_share_is_that_share_of_the_patients_and_another_bundle_draws_others(share):
    patients = [f"{number:064x}" for number in range(20_000)]
    here = [side(patient, Route(1, 5, FIFTH, share)) for patient in patients]
    there = [side(patient, Route(1, 4, FOURTH, share)) for patient in patients]

    spread = 4 * math.sqrt(share * (1 - share) / len(patients))
    assert abs(sum(here) / len(patients) - share) < spread
    both = sum(a and b for a, b in zip(here, there, strict=True)) / len(patients)
    assert abs(both - share * share) < 4 * math.sqrt(share**2 * (1 - share**2) / len(patients))


def test_only_a_canary_has_sides():
    with pytest.raises(ValueError, match="it is no canary"):
        side("a" * 64, Route(1, 5, FIFTH, None))
