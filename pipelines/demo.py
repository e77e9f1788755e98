"""The main job, told as a story: `make demo`. Everything in it is the real thing, on real patients.

It talks to the server as any app would, over HTTP; what it does by hand is `medimind` on the command line.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.progress import track

from configs.errors import MediMindError, ServiceError
from configs.settings import Settings, settings
from configs.spec import Spec, load_spec
from pipelines import sources, story

DISEASE = "heart_disease"
CLINICS = {"Switzerland": "Zurich and Basel", "VA Long Beach": "Long Beach VA"}
BATCH = 20
STARTS_WITHIN_S = 90


def main() -> None:
    here = settings()
    begun = datetime.now(UTC)
    try:
        story.chapter("1, 2. Train, judge, register, promote")
        story.say(f"$ medimind run {DISEASE} breast_cancer   (Prefect starts a temporary server first, about 20 s)")
        _medimind("run", DISEASE, "breast_cancer")

        story.chapter("3. Serve both champions, and ask")
        with _served(here) as client:
            spec = load_spec(DISEASE, here.configs)
            table = sources.read(spec, here)
            prediction = _ask_a_few(client, spec, table)
            story.chapter("4. Patients of two other hospitals come in, and later their outcomes")
            for clinic, place in CLINICS.items():
                _send(client, spec, table, clinic, place, begun)
            story.say(f"$ medimind monitor {DISEASE} --since {begun:%Y-%m-%dT%H:%M:%SZ}")
            _medimind("monitor", DISEASE, "--since", begun.isoformat())
    except MediMindError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        sys.exit(2)

    story.chapter("5. The server is stopped. Where to look")
    story.say("the registry and the flows    make up          (prints both addresses; make down stops them)")
    story.say(f"the monitoring report         {_newest_report(here)}")
    story.say(f"the prediction made above     .venv/bin/medimind replay {prediction}")
    story.say("the endpoint                  .venv/bin/medimind serve")
    story.say(
        f"the demo took {(datetime.now(UTC) - begun).total_seconds():.0f} s. Research software, not a medical device."
    )


def _medimind(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *arguments], check=False)
    if done.returncode:
        raise ServiceError(f"`medimind {' '.join(arguments)}` failed with exit code {done.returncode}.")


@contextmanager
def _served(here: Settings) -> Iterator[httpx.Client]:
    """A client of `medimind serve`, which runs as long as the context lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    story.say(f"$ medimind serve --port {port}")
    log = here.private(here.home / "logs") / "serve.log"
    command = [sys.executable, "-m", "pipelines.cli", "serve", DISEASE, "breast_cancer", "--port", str(port)]
    with open(log, "w", encoding="utf-8") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            _wait(client, server, log)
            for model in client.get("/v1/models").json()["models"]:
                story.say(f"ready: {model['name']}@{model['version']}, its self-test replayed")
            yield client
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _wait(client: httpx.Client, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise ServiceError(f"the server did not become ready; {log} says why.")


def _record(spec: Spec, table: sources.Table, row: int) -> dict[str, Any]:
    """A patient's row as an app sends it: the contract's names and categories, every number as it was recorded."""
    record = {}
    for name, column in spec.columns.items():
        cell = table[column.from_ or name][row]
        if cell is not None:
            record[name] = column.map[cell] if column.map else cell
    return record


def _ask_a_few(client: httpx.Client, spec: Spec, table: sources.Table) -> str:
    """Send three patients of Cleveland and one broken record; the id of the last prediction."""
    records = [_record(spec, table, row) for row in (0, 1, 16)]
    broken = {**records[0], "cholesterol_mg_dl": "high"}
    answer = client.post(f"/v1/models/{DISEASE}/predict", json={"records": [*records, broken]})
    answer.raise_for_status()
    prediction = ""
    for said in answer.json()["predictions"]:
        if "error" in said:
            story.say(f"  refused  {said['error']['code']} in {said['error']['field']}: {said['error']['message']}")
            continue
        prediction = said["id"]
        missing = f", missing: {', '.join(said['missing'])}" if said["missing"] else ""
        band = said["band"] or said.get("abstained") or "below every operating point"
        story.say(f"  {said['id']:8} risk {said['risk']:.3f}, {band}{missing}")
    return prediction


def _send(client: httpx.Client, spec: Spec, table: sources.Table, clinic: str, place: str, begun: datetime) -> None:
    """Send every patient of a clinic as if they came in today, and then what happened to them."""
    rows = [row for row, site in enumerate(table["dataset"]) if site == clinic]
    ids: dict[int, str] = {}
    refused = 0
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    for batch in track(batches, description=f"{place}: {len(rows)} patients", disable=not sys.stdout.isatty()):
        answer = client.post(
            f"/v1/models/{DISEASE}/predict",
            json={"records": [_record(spec, table, row) for row in batch]},
            headers={"Idempotency-Key": f"demo {begun.isoformat()} {batch[0]}"},
        )
        answer.raise_for_status()
        for row, said in zip(batch, answer.json()["predictions"], strict=True):
            if "id" in said:
                ids[row] = said["id"]
            else:
                refused += 1
    outcomes = [
        {"prediction_id": prediction, "value": table["num"][row] > 0, "observed_at": datetime.now(UTC).isoformat()}
        for row, prediction in ids.items()
    ]
    client.post("/v1/outcomes", json=outcomes).raise_for_status()
    events = sum(outcome["value"] for outcome in outcomes)
    story.say(
        f"  {place}: {len(ids)} patients answered, {refused} refused; {events} of them have the disease, on record too"
    )


def _newest_report(here: Settings) -> str:
    return str(max((here.reports / DISEASE).glob("since-*.html")))


if __name__ == "__main__":
    main()
