"""What a caller says about a person stays in the ledger, and there only what has to be."""

import subprocess
from pathlib import Path

MARKER = "MARKER-4711"


def files_with(folder, text):
    """By another process: this one would drop its locks on the ledger if it opened and closed that file."""
    done = subprocess.run(["grep", "-rlaF", text, folder], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {Path(path).name for path in done.stdout.splitlines()}


def test_a_marked_person_is_in_no_log_no_metric_no_error_and_by_pseudonym_nowhere(
    ask, client, server, machine, patient
):
    person, visit, typed = f"{MARKER}-person", f"{MARKER}-visit", f"{MARKER}-typed"
    marked = {**patient, "patient": person, "reference": visit}

    answers = [
        ask(marked),
        ask(marked, {**marked, "pain": typed}),
        ask({**marked, "age_years": typed}),
        ask({**marked, "at": typed}),
        ask({**marked, "smoker": {"value": True, "unit": typed}}),
        ask(typed),
        client.post("/v1/outcomes", json=[{"reference": f"{visit}-unknown", "value": 1, "observed_at": typed}]),
        client.post(
            "/v1/outcomes", json=[{"reference": f"{visit}-unknown", "value": 1, "observed_at": "2026-01-01T00:00:00Z"}]
        ),
        client.post(
            "/v1/models/toy/predict", content=f'{{"records": ["{typed}"', headers={"Content-Type": "application/json"}
        ),
        client.get(f"/v1/predictions/{ask(marked).json()['predictions'][0]['id']}"),
        client.get("/metrics"),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 422, 422, 422, 422, 422, 404, 400, 200, 200]
    assert not [answer.text for answer in answers if MARKER in answer.text]
    assert MARKER not in server.log.read_text()
    assert files_with(machine.home, person) == set()
    assert files_with(machine.home, typed) == set()
    kept = files_with(machine.home, visit)
    assert kept
    assert kept <= {"ledger.db", "ledger.db-wal"}


def test_the_ledger_and_its_key_are_their_owners_alone(client, machine):
    for path in (machine.home, machine.home / "ledger.db", machine.home / "keys" / "patient.key"):
        assert path.stat().st_mode & 0o077 == 0, path
