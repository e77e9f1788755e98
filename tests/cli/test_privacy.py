"""A marker stands in every identifier of the source, and in a free text that no contract names."""

import subprocess
from pathlib import Path

import pandas as pd

MARKER = "MARKER4711"


def files_with(folder: Path, text: str) -> set[str]:
    """By another process: this one would drop its locks on the databases if it opened and closed their files."""
    done = subprocess.run(["grep", "-rlaF", text, folder], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {str(Path(path).relative_to(folder)) for path in done.stdout.splitlines()}


def test_the_marker_stays_in_the_data(ran, machine, medimind, answered, patients, tmp_path):
    """After a run of two diseases, predictions, a table scored, a monitoring report, a backup, and errors."""
    _, ran_said = ran
    answered([{**one, "patient": f"{MARKER}-{number}"} for number, one in enumerate(patients(60, 4))])
    source, broken = tmp_path / "in.csv", machine.data / "raw" / "toy.csv"
    frame = pd.read_csv(machine.data / "raw" / "toy.csv")
    frame.to_csv(source, index=False)
    whole = broken.read_bytes()
    said = [
        medimind("predict", "toy", source),
        medimind("score", "toy", "--input", source, "--output", machine.home / "scored.csv"),
        medimind("monitor", "toy"),
        medimind("ledger", "backup", machine.home / "backup.db"),
    ]
    for column, cell in (("pain", f"{MARKER} hurts"), ("age", f"{MARKER} old"), ("id", frame.id[7])):
        frame.astype(object).assign(**{column: [*frame[column][:3], cell, *frame[column][4:]]}).to_csv(
            broken, index=False
        )
        said.append(medimind("ingest", "toy"))
    broken.write_bytes(whole)
    (machine.home / "backup.db").rename(tmp_path / "backup.db")

    assert [one.code for one in said] == [2, 0, 0, 0, 2, 2, 2]
    assert not [one for one in (ran_said, *said) if MARKER in one.out + one.err]
    assert files_with(machine.home, MARKER) == set()
    assert files_with(tmp_path, MARKER) == {"in.csv"}
    assert files_with(machine.data, MARKER) == {
        "raw/toy.csv",
        *(f"{folder}/{name}.parquet" for folder in ("records", "cohorts") for name in ("toy", "picky")),
    }
    for name in ("toy", "picky"):
        assert MARKER not in " ".join(set(pd.read_parquet(machine.data / "cohorts" / f"{name}.parquet")) - {"patient"})


def test_what_may_hold_patients_is_its_owners_alone(machine):
    for path in (machine.home, machine.data / "records" / "toy.parquet", machine.data / "cohorts" / "toy.parquet"):
        assert path.stat().st_mode & 0o077 == 0, path
    for path in (machine.home / "ledger.db", machine.home / "mlflow"):
        assert path.stat().st_mode & 0o077 == 0, path
