"""Approvals and rejections: of exactly one bundle and report, one a person, and none of one's own work."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import LedgerError, PromotionError
from configs.spec import ChangeControl, Retrain
from ledger.database import connect
from ledger.promotions import Grounds, earlier, find_champion, promote, rollback
from ledger.reviews import Review, Standing, missing, person, review, standing, trained, trainers, validated
from ledger.stops import retire

B = "b" * 64
RETRAIN = Retrain(log_loss="better", auroc_drop=0.02, min_events=10, min_non_events=10)


def plan(approvals, *approvers):
    return ChangeControl(allowed=(), approvals=approvals, approvers=approvers, retrain=RETRAIN)


def on_record(engine, report, trained_by=("trainer",), by="validator"):
    validated(engine, 3, report, trained_by, by)


def decide(engine, report, approvals, *approvers):
    return promote(engine, 3, report, "nurse.joy", "why", Grounds(None, (plan(approvals, *approvers),)))


def test_two_approvals_of_two_people_promote(engine, report_on):
    report = report_on(B)
    on_record(engine, report)
    with pytest.raises(PromotionError, match="angina@3 waits: it needs 2 approvals and has none: `medimind approve"):
        decide(engine, report, 2)
    review(engine, 3, report, "approved", "fine", "dr.who")
    review(engine, 3, report, "approved", "still fine", " Dr.Who")
    with pytest.raises(PromotionError, match=r"needs 2 approvals and has 1 \( Dr.Who\)"):
        decide(engine, report, 2)
    review(engine, 3, report, "approved", "fine", "nurse.joy")

    assert decide(engine, report, 2).version == 3


@pytest.mark.parametrize("own", ["trainer", "Validator"])
def test_nobody_approves_what_they_trained_or_validated_where_two_are_asked_for(engine, report_on, own):
    report = report_on(B)
    on_record(engine, report)
    for actor in (own, "dr.who"):
        review(engine, 3, report, "approved", "fine", actor)

    with pytest.raises(PromotionError, match=f"has 1 \\(dr.who\\); {own} trained or validated it, or is no approver"):
        decide(engine, report, 2)
    assert decide(engine, report, 1).version == 3


@pytest.mark.parametrize("unknown", ["trained", "validated"])
def test_where_two_are_asked_for_it_has_to_be_on_record_whose_work_it_is(engine, report_on, unknown):
    report = report_on(B)
    if unknown == "trained":
        on_record(engine, report, trained_by=())
    for actor in ("dr.who", "nurse.joy"):
        review(engine, 3, report, "approved", "fine", actor)
    with pytest.raises(PromotionError, match=f"who {unknown} angina@3 is not on record"):
        decide(engine, report, 2)


def test_only_named_approvers_count(engine, report_on):
    report = report_on(B)
    review(engine, 3, report, "approved", "fine", "nurse.joy")
    with pytest.raises(PromotionError, match=r"needs 1 approval of dr.who and has none"):
        decide(engine, report, 1, "dr.who")
    review(engine, 3, report, "approved", "fine", "dr.who")
    assert decide(engine, report, 1, "dr.who").version == 3


def test_an_approval_is_of_one_bundle_and_one_report(engine, report_on):
    report = report_on(B)
    review(engine, 3, report, "approved", "fine", "dr.who")
    others = report_on("c" * 64), dataclasses.replace(report, data="e" * 64)
    for other in others:
        with pytest.raises(PromotionError, match="needs 1 approval and has none"):
            decide(engine, other, 1)
    with pytest.raises(PromotionError, match="angina@4 waits: it needs 1 approval"):
        promote(engine, 4, report, "nurse.joy", "why", Grounds(None, (plan(1),)))


def test_a_rejected_version_is_promoted_by_nobody_until_the_rejection_is_taken_back(engine, report_on):
    report = report_on(B)
    review(engine, 3, report, "rejected", "alarms too often", "dr.who")
    review(engine, 3, report, "approved", "fine", "nurse.joy")
    said = "angina@3 is rejected by dr.who since .* UTC: alarms too often. It stays so until dr.who takes it back"
    with pytest.raises(PromotionError, match=said):
        promote(engine, 3, report, "nurse.joy", "I insist")
    with pytest.raises(PromotionError, match=said):
        decide(engine, report, 0)
    assert find_champion(engine, "angina") is None

    review(engine, 3, report, "approved", "a dead battery", "dr.who")
    assert promote(engine, 3, report, "nurse.joy", "again").version == 3


def test_nobody_is_rolled_back_to_a_rejected_version(engine, report_on):
    for version in (3, 4):
        promote(engine, version, report_on(str(version) * 64), "nurse.joy", "")
    present = find_champion(engine, "angina")
    (back,) = earlier(engine, present)
    review(engine, 3, back.report, "rejected", "alarms", "dr.who")
    with pytest.raises(PromotionError, match=r"angina@3 is rejected by dr.who"):
        rollback(engine, present, back, "nurse.joy", "alarms")
    assert find_champion(engine, "angina").version == 4


def test_what_cannot_be_promoted_is_not_approved(ledger, report_on):
    with pytest.raises(PromotionError, match="angina@3: its report does not pass, so there is nothing to approve"):
        review(ledger, 3, report_on(B, "failed"), "approved", "fine", "dr.who")
    with pytest.raises(LedgerError, match="angina@3: a reason is expected"):
        review(ledger, 3, report_on(B), "approved", " ", "dr.who")
    retire(ledger, "angina", 3, "wrong table", "nurse.joy")
    with pytest.raises(PromotionError, match="angina@3 is retired"):
        review(ledger, 3, report_on(B), "approved", "fine", "dr.who")
    assert standing(ledger, 3, report_on(B)).reviews == ()


def test_a_validation_is_on_record_once_for_each_who_did_it(ledger, report_on):
    report = report_on(B)
    for by in ("nurse.joy", "nurse.joy", "dr.who"):
        on_record(ledger, report, ("trainer",), by)
    found = standing(ledger, 3, report)
    assert (found.trained_by, found.validated_by) == ({"trainer"}, {"nurse.joy", "dr.who"})


def test_everybody_who_trained_the_same_bundle_is_known(home):
    engine = connect(home)
    for actor in ("nurse.joy", "dr.who", "nurse.joy"):
        trained(engine, "angina", B, actor)
    trained(engine, "sepsis", B, "somebody")
    assert trainers(engine, "angina", B) == ("nurse.joy", "dr.who")
    assert trainers(engine, "angina", "c" * 64) == ()
    engine.dispose()


PEOPLE = st.sampled_from(["ann", "Ann", "bob", "cem", "dee"])


@given(
    st.dictionaries(PEOPLE.map(person), st.sampled_from(["approved", "rejected"])),
    st.sets(PEOPLE),
    st.sets(PEOPLE, min_size=1),
    st.sets(PEOPLE, min_size=1),
    st.integers(0, 3),
)
def test_nobody_s_own_and_nobody_twice_whatever_was_said(verdicts, approvers, trained_by, validated_by, asked):
    approvers = sorted(approvers) if len(approvers) >= asked else []
    said = tuple(Review(verdict, actor, None, "x") for actor, verdict in verdicts.items())
    stands = Standing(said, frozenset(map(person, trained_by)), frozenset(map(person, validated_by)))
    counted = {person(one.actor) for one in stands.approvals(plan(asked, *approvers))}

    assert len(counted) == len(stands.approvals(plan(asked, *approvers)))
    assert counted <= {actor for actor, verdict in verdicts.items() if verdict == "approved"}
    if asked >= 2:
        assert not counted & {person(one) for one in trained_by | validated_by}
    if approvers:
        assert counted <= {person(one) for one in approvers}
    assert (missing(stands, (plan(asked, *approvers),), "a@1") is None) == (len(counted) >= asked)
