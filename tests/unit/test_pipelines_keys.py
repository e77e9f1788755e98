"""Every change of whose signature counts is on record, and an older release's champion is signed by a person."""

import json
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from configs.errors import BundleError, LedgerError
from configs.settings import Settings
from ledger import promotions, tables
from models import bundle as bundles
from models import signing
from pipelines import keys


@pytest.fixture
def folder(trained, tmp_path):
    return Path(shutil.copytree(trained.folder, tmp_path / "angina"))


@pytest.fixture
def crowned(folder, home, ledger, report_on):
    """The bundle of the champion angina@3, in the store of `home`."""
    kept = bundles.put(bundles.sign(folder, home), home)
    promotions.promote(ledger, 3, report_on(kept.digest), "nurse.joy", "for the test")
    return kept


def on_record(ledger, *actions):
    with ledger.connect() as connection:
        rows = connection.execute(sa.select(tables.audit).order_by(tables.audit.c.id)).all()
    return [(row.action, row.actor, row.detail) for row in rows if row.action in actions]


def test_a_rotation_is_on_record_and_the_champion_goes_on(crowned, home, ledger):
    old, new = keys.rotate("the yearly change", home)

    assert bundles.get(crowned.digest, home) == crowned
    assert [(each.key.id, each.state, each.signs) for each in keys.listed(home)] == [
        (old, "trusted", False),
        (new, "trusted", True),
    ]
    assert on_record(ledger, "rotate key") == [("rotate key", "nurse.joy", f"{old} to {new}: the yearly change")]


def test_a_revocation_is_on_record_and_told(crowned, home, ledger):
    own = signing.own_id(home)
    keys.revoke(own, "the disk was stolen", home)

    with pytest.raises(BundleError, match=f"{own}, revoked"):
        bundles.get(crowned.digest, home)
    (only,) = keys.listed(home)
    assert only.state.startswith("revoked on") and "the disk was stolen" in only.key.note
    assert on_record(ledger, "revoke key") == [("revoke key", "nurse.joy", f"{own}: the disk was stolen")]


def test_another_machines_key_is_trusted_on_record(folder, home, ledger, tmp_path):
    other = Settings(home=tmp_path / "other")
    (tmp_path / "other.pem").write_bytes(signing.own_public(other))
    key = keys.trust(tmp_path / "other.pem", "the training machine, read out by phone", None, home)

    assert bundles.put(bundles.sign(folder, other), home).folder.parent == home.store
    (said,) = on_record(ledger, "trust key")
    assert said == ("trust key", "nurse.joy", f"{key.id}: the training machine, read out by phone")


@pytest.mark.parametrize("before", ["unsigned", "revoked"])
def test_a_champion_without_a_signature_that_counts_is_signed_by_a_person(crowned, home, ledger, before):
    if before == "unsigned":
        (crowned.folder / signing.SIGNATURE).unlink()
    else:
        keys.revoke(signing.own_id(home), "lost", home)
        keys.rotate("the old one is lost", home)
    with pytest.raises(BundleError, match="medimind keys sign"):
        bundles.get(crowned.digest, home)

    assert keys.sign("angina", 3, "laid there by an earlier release", home) == crowned.digest

    assert bundles.get(crowned.digest, home) == crowned
    assert json.loads((crowned.folder / signing.SIGNATURE).read_bytes())["key"] == signing.own_id(home)
    ((_, actor, detail),) = on_record(ledger, "sign")
    assert actor == "nurse.joy" and crowned.digest in detail and "an earlier release" in detail


def test_a_damaged_champion_is_not_signed(crowned, home, ledger, reseal):
    (crowned.folder / signing.SIGNATURE).unlink()
    (crowned.folder / "thresholds.json").write_text('{"rule_out": 0.01, "alert": 0.02}')
    with pytest.raises(BundleError, match=r"thresholds\.json"):
        keys.sign("angina", 3, "a hurry", home)
    reseal(crowned.folder)
    with pytest.raises(BundleError, match=r"MANIFEST\.json"):
        keys.sign("angina", 3, "a hurry", home)
    assert not (crowned.folder / signing.SIGNATURE).exists()
    assert on_record(ledger, "sign") == []


def test_without_a_reason_nothing_changes(crowned, home):
    before = {path.name: path.read_bytes() for path in home.signing_file.parent.iterdir()}
    for change in (
        lambda: keys.rotate(" ", home),
        lambda: keys.revoke(signing.own_id(home), "", home),
        lambda: keys.sign("angina", 3, "", home),
    ):
        with pytest.raises(LedgerError, match="a reason is expected"):
            change()
    assert {path.name: path.read_bytes() for path in home.signing_file.parent.iterdir()} == before
