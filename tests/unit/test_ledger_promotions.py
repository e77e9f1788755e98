"""The newest promotion row says who is champion, and only a passing report makes one."""

import dataclasses

import pytest
import sqlalchemy as sa

from configs.errors import PromotionError
from ledger import tables
from ledger.promotions import earlier, find_champion, mark, promote, rollback
from ledger.stops import retire, stop

DIGEST = "b" * 64


def audits(engine):
    with engine.connect() as connection:
        return connection.execute(sa.select(tables.audit).order_by(tables.audit.c.id)).all()


def test_a_passing_report_makes_a_champion(ledger, report_on):
    promoted = promote(ledger, 3, report_on(DIGEST), "nurse.joy", "better on the newest patients")

    assert promoted == find_champion(ledger, "angina")
    assert (promoted.model, promoted.version, promoted.bundle) == ("angina", 3, DIGEST)
    assert (promoted.actor, promoted.reason) == ("nurse.joy", "better on the newest patients")
    assert promoted.report == report_on(DIGEST)
    assert promoted.at.utcoffset().total_seconds() == 0


def test_a_promotion_is_audited(ledger, report_on):
    promote(ledger, 3, report_on(DIGEST), "nurse.joy", "why not")
    (row,) = audits(ledger)
    assert (row.actor, row.action, row.detail) == ("nurse.joy", "promote", f"angina@3 {DIGEST}")


@pytest.mark.parametrize(("verdict", "why"), [("failed", "MM001 AUROC"), ("not applicable", "nothing was judged")])
def test_a_report_that_does_not_pass_promotes_nobody(ledger, report_on, verdict, why):
    with pytest.raises(PromotionError, match=rf"angina@3: its report does not pass \({why}\)"):
        promote(ledger, 3, report_on(DIGEST, verdict), "nurse.joy", "I insist")

    assert find_champion(ledger, "angina") is None
    assert audits(ledger) == []


def test_a_report_of_monitoring_promotes_nobody(ledger, report_on):
    monitored = dataclasses.replace(report_on(DIGEST), kind="monitoring")
    with pytest.raises(PromotionError, match="a validation report is needed, this is one of monitoring"):
        promote(ledger, 3, monitored, "nurse.joy", "")
    assert find_champion(ledger, "angina") is None


def test_the_newest_promotion_counts_even_to_an_older_version(ledger, report_on):
    for version in (3, 4, 3):
        promote(ledger, version, report_on(str(version) * 64), "nurse.joy", "")

    assert find_champion(ledger, "angina").version == 3
    with ledger.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.promotions)).scalar() == 3


def test_each_model_has_its_own_champion(ledger, report_on):
    promote(ledger, 3, report_on(DIGEST), "nurse.joy", "")
    promote(ledger, 1, dataclasses.replace(report_on("c" * 64), name="sepsis"), "nurse.joy", "")

    assert (find_champion(ledger, "angina").version, find_champion(ledger, "sepsis").version) == (3, 1)
    assert find_champion(ledger, "stroke") is None


def test_a_retired_version_is_not_promoted(ledger, report_on):
    retire(ledger, "angina", 3, "trained on the wrong table", "nurse.joy")
    with pytest.raises(PromotionError, match="angina@3 is retired, for good: trained on the wrong table"):
        promote(ledger, 3, report_on(DIGEST), "nurse.joy", "I insist")
    assert find_champion(ledger, "angina") is None


def test_the_mark_grows_with_a_promotion_and_with_nothing_else_of_it(ledger, report_on):
    assert mark(ledger) == (0, 0, 0)
    promote(ledger, 3, report_on(DIGEST), "nurse.joy", "")
    assert mark(ledger) == (1, 0, 0)
    stop(ledger, "angina", "why", "nurse.joy")
    assert mark(ledger) == (1, 1, 0)


# --- rollback


def promoted(ledger, report_on, *versions):
    """The champion after these versions were promoted one after the other; a version's bundle is its number."""
    for version in versions:
        promote(ledger, version, report_on(str(version) * 64), "nurse.joy", "")
    return find_champion(ledger, "angina")


def numbers(promotions):
    return [promotion.version for promotion in promotions]


@pytest.mark.parametrize(
    ("history", "before"),
    [
        ([3], []),
        ([3, 4], [3]),
        ([3, 4, 5], [4, 3]),
        ([3, 4, 3], []),  # 3 was there before 4 was; going forth again takes a promotion
        ([3, 4, 5, 4], [3]),
        ([3, 4, 3, 5], [3, 4]),
        ([3, 3, 4, 4], [3]),
    ],
)
def test_back_is_who_was_champion_before_this_one_first_was(ledger, report_on, history, before):
    assert numbers(earlier(ledger, promoted(ledger, report_on, *history))) == before


def test_a_rollback_after_a_rollback_goes_further_back(ledger, report_on):
    promoted(ledger, report_on, 3, 4, 5)

    for version in (4, 3):
        present = find_champion(ledger, "angina")
        rollback(ledger, present, earlier(ledger, present)[0], "dr.who", "alarms")
        assert find_champion(ledger, "angina").version == version

    assert earlier(ledger, find_champion(ledger, "angina")) == []


def test_the_same_bundle_under_another_number_is_no_way_back(ledger, report_on):
    promote(ledger, 3, report_on("a" * 64), "nurse.joy", "")
    promote(ledger, 4, report_on("b" * 64), "nurse.joy", "")
    promote(ledger, 5, report_on("b" * 64), "nurse.joy", "")
    assert numbers(earlier(ledger, find_champion(ledger, "angina"))) == [3]


def test_other_models_are_no_way_back(ledger, report_on):
    promote(ledger, 1, dataclasses.replace(report_on("c" * 64), name="sepsis"), "nurse.joy", "")
    assert earlier(ledger, promoted(ledger, report_on, 3)) == []


def test_a_rollback_is_a_promotion_of_its_own_with_the_earlier_report_and_audited(ledger, report_on):
    present = promoted(ledger, report_on, 3, 4)

    back = rollback(ledger, present, earlier(ledger, present)[0], "dr.who", "alarms")

    assert back == find_champion(ledger, "angina")
    assert (back.version, back.bundle, back.actor, back.reason) == (3, "3" * 64, "dr.who", "alarms")
    assert back.report == report_on("3" * 64)
    assert audits(ledger)[-1].detail == f"angina@3 {'3' * 64} after @4"
    assert audits(ledger)[-1].action == "rollback"


def test_a_rollback_from_a_champion_that_is_none_any_more_changes_nothing(ledger, report_on):
    seen = promoted(ledger, report_on, 3, 4)
    promoted(ledger, report_on, 5)

    with pytest.raises(PromotionError, match="angina@4: is not champion any more; nothing was changed"):
        rollback(ledger, seen, earlier(ledger, seen)[0], "dr.who", "alarms")
    assert find_champion(ledger, "angina").version == 5


def test_nobody_is_rolled_back_to_a_retired_version(ledger, report_on):
    present = promoted(ledger, report_on, 3, 4)
    retire(ledger, "angina", 3, "wrong table", "nurse.joy")

    with pytest.raises(PromotionError, match="angina@3 is retired, for good: wrong table"):
        rollback(ledger, present, earlier(ledger, present)[0], "dr.who", "alarms")
    assert find_champion(ledger, "angina").version == 4
