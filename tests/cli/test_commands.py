"""The verbs as a person types them, one after the other, on one machine."""

import gc
import json
import subprocess
import sys
from datetime import UTC, datetime

import pandas as pd
import pytest
import yaml

from configs.settings import ROOT
from ledger.database import connect
from ledger.promotions import find_champion

HEAVY = {"pydantic", "numpy", "pandas", "mlflow", "prefect", "bentoml", "sqlalchemy", "sklearn", "onnxruntime", "yaml"}


def champion(settings, name):
    engine = connect(settings)
    found = find_champion(engine, name)
    engine.dispose()
    return found


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipelines.cli", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )

    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert imported & HEAVY == set()
    assert "medimind" in done.stdout or "risk model" in done.stdout


def test_run_promotes_what_passes_and_ends_with_an_error_for_what_does_not(ran):
    settings, said = ran

    assert said.code == 2
    (line,) = said.err.splitlines()
    assert line.startswith("medimind: picky: not promoted, a gate failed")
    assert "toy@1 is now champion" in " ".join(said.out.split())
    assert champion(settings, "toy").version == 1
    assert champion(settings, "picky") is None


def test_list_shows_the_diseases_and_their_champions(machine, medimind):
    said = medimind("list")

    assert said.code == 0
    picky, toy = said.out.splitlines()
    assert "released" in toy and "champion toy@1" in toy
    assert "draft" in picky and "no champion" in picky


def test_predict_answers_a_file_of_records(machine, medimind, patients, tmp_path):
    good = patients(1, 5)[0]
    path = tmp_path / "asked.json"
    path.write_text(json.dumps({"records": [good, {**good, "pain": "stabbing"}]}))

    said = medimind("predict", "toy", path)

    assert said.code == 0
    answered, refused = json.loads(said.out)["predictions"]
    assert 0 < answered["risk"] < 1
    assert refused["error"]["field"] == "pain"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_score_answers_a_table_row_by_row_and_copies_nothing_of_it(machine, medimind, toy_table, tmp_path, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    frame = pd.DataFrame(toy_table(20, 9)).drop(columns="sick")
    frame.loc[3, "age"] = 7
    frame.to_csv(source, index=False) if suffix == ".csv" else frame.to_parquet(source)

    said = medimind("score", "toy", "--input", source, "--output", target)

    assert said.code == 0
    assert "19 rows scored, 1 refused" in said.out
    out = pd.read_csv(target) if suffix == ".csv" else pd.read_parquet(target)
    assert list(out) == ["row", "risk", "band", "set", "abstained", "error"]
    assert out.risk.notna().sum() == 19
    assert out.error[3].startswith("age_years: 7 a lies outside")


def test_replay_computes_a_prediction_again_to_the_bit(machine, medimind, answered, patients):
    (prediction,) = answered(patients(1, 6))

    said = medimind("replay", prediction)

    assert said.code == 0
    assert "to the bit" in said.out


def test_what_is_drafted_from_a_table_waits_for_a_clinician(machine, medimind):
    drafted = medimind("new", "drafted", "--from", machine.data / "raw" / "toy.csv")
    checked = medimind("check", "drafted")
    again = medimind("new", "drafted", "--from", machine.data / "raw" / "toy.csv")
    path = machine.configs / "diseases" / "drafted.yaml"
    assert drafted.code == 0, drafted.err
    text = path.read_text()
    path.unlink()

    assert yaml.safe_load(text)["name"] == "drafted"
    assert "MARKER" not in text
    assert checked.code == 2
    assert "TODO" in checked.err
    assert again.code == 2
    assert "exists already" in again.err


def test_memory_is_explained_of_networks_alone_and_nothing_is_trained(machine, medimind, files):
    before = files(machine.data / "bundles")
    said = medimind("train", "toy", "--explain-memory")
    assert (said.code, said.out) == (0, "toy: none of the candidates logistic, boosted is a network.\n")
    assert files(machine.data / "bundles") == before


def test_check_says_what_holds_together(machine, medimind):
    said = medimind("check", "toy")

    assert said.code == 0
    assert "7 columns, 7 features, candidates logistic, boosted" in said.out


def test_a_version_whose_report_failed_is_not_promoted_and_not_stored(machine, medimind):
    before = sorted(machine.store.iterdir())

    said = medimind("promote", "picky@1", "--reason", "I like it")

    assert said.code == 2
    assert "its report does not pass (MM001 AUROC)" in said.err
    assert champion(machine, "picky") is None
    assert sorted(machine.store.iterdir()) == before


def test_promoting_the_champion_again_changes_nothing(machine, medimind):
    before = champion(machine, "toy")

    said = medimind("promote", "toy@1", "--reason", "again")

    assert said.code == 0
    assert "is champion already" in said.out
    assert champion(machine, "toy") == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["promote", "toy@99", "--reason", "x"], "toy@99 is not registered. Registered: toy@1."),
        (["promote", "toy", "--reason", "x"], "'toy' is no version; one is written NAME@VERSION"),
        (["promote", "toy@one", "--reason", "x"], "'toy@one' is no version"),
        (["promote", "@1", "--reason", "x"], "'@1' is no version"),
        (["check", "toi"], "Did you mean 'toy'?"),
        (["predict", "toi", "x.json"], ""),
        (["predict", "picky", __file__], "is no JSON"),
        (["score", "toy", "--input", "nowhere.csv", "--output", "out.csv"], "nowhere.csv"),
        (["replay", "999999-0"], "no prediction '999999-0' is on record"),
        (["replay", "x"], "is no prediction's id"),
        (["monitor", "picky"], "picky: has no champion"),
        (["monitor", "toy", "--since", "yesterday"], "no ISO 8601 time"),
        (["serve", "toi"], "no disease 'toi'"),
        (["serve", "toy", "--host", "0.0.0.0"], "--allow-unauthenticated"),
        (["schedule"], "PREFECT_API_URL is not set"),
        (["new", "fresh", "--from", "nowhere.csv"], "nowhere.csv"),
        (["ledger", "restore", __file__], "is no readable backup"),
        (["ledger", "purge", "--before", "long ago"], "no ISO 8601 time"),
        (["ledger", "purge", "--before", "2199-01-01"], "2199-01-01 lies in the future"),
        (["ledger", "purge", "--before", "9999-12-31T23:59:59-14:00"], "no ISO 8601 time"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(words, said, machine, medimind, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    done = medimind(*words)

    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("medimind: ")
    assert "error of our own" not in line
    assert said in line


def test_debug_shows_the_trace(machine, process):
    plain = process("check", "toi", settings=machine)
    debug = process("--debug", "check", "toi", settings=machine)

    assert (plain.code, len(plain.err.splitlines())) == (2, 1)
    assert debug.code != 0
    assert "Traceback" in debug.err
    assert "SpecError" in debug.err


def test_the_ledger_is_backed_up_purged_and_restored(machine, medimind, answered, patients, tmp_path):
    answered(patients(3, 7))
    target = tmp_path / "backup.db"

    backed_up = medimind("ledger", "backup", target)
    refused = medimind("ledger", "backup", target)
    (prediction,) = answered(patients(1, 8))
    purged = medimind("ledger", "purge", "--before", datetime.now(UTC).isoformat())
    gone = medimind("replay", prediction)
    gc.collect()  # the commands ran in this process; their connections end with them in one of their own
    restored = medimind("ledger", "restore", target)
    never = medimind("replay", prediction)

    assert [said.code for said in (backed_up, refused, purged, gone, restored, never)] == [0, 2, 0, 2, 0, 2]
    assert target.stat().st_mode & 0o777 == 0o600
    assert "never overwrites" in refused.err
    assert "predictions before" in purged.out
    (unreached,) = [line for line in purged.out.splitlines() if "not reached" in line]
    assert "backups" in unreached and "before-restore" in unreached and str(machine.reports) in unreached
    assert "its record was purged" in gone.err
    assert "is on record" in never.err
    for kept in machine.home.glob("ledger.db.before-restore-*"):
        kept.unlink()
