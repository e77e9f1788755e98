"""The newest promotion row says who is champion, and only a passing report makes one."""

import dataclasses

import pytest
import sqlalchemy as sa

from configs.errors import PromotionError
from ledger import tables
from ledger.promotions import find_champion, promote

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
