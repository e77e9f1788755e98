"""A run of the monitor in a ledger of ten million predictions: its time and its memory. `python -m bench.monitoring`.

The ledger is SQLite's, in a temporary folder that is removed. It holds the invented champion's answers as a server lays
them down, half of them to lone records, half to batches of 64, and an outcome for nine of ten. Three runs are measured:
the first one, one to which nothing is new, and one after new predictions and late outcomes for every judged window.
"""

import argparse
import os
import platform
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from bench.invented import RECORDS_IN_A_BATCH, SEED, TREES, machine, population, prepare
from configs.settings import PHONE_HOME_OFF, Settings
from ledger.database import connect, now, writing
from ledger.predictions import Answered, Entry, keep_all
from ledger.promotions import find_champion
from models import bundle as bundles
from models.predict import Predictor

PREDICTIONS = 10_000_000
LONGEST_S = 60
LARGEST_MB = 1000
LONE, BATCHES = 2000, 100
"""Different requests; every other one of the ledger is a copy of one of these, at another time."""
CYCLE = RECORDS_IN_A_BATCH + 1  # so many lone records, then a batch
BYTES_EACH = 1400
"""Of the disk, for one prediction with its outcome, and what is in the way while they are made."""
OUTCOME_KNOWN = 0.9
PER_SECOND = 10


@dataclass(frozen=True)
class Run:
    """What one run of `medimind monitor` took."""

    name: str
    wall_s: float
    largest_mb: float

    @property
    def within(self) -> bool:
        return self.wall_s <= LONGEST_S and self.largest_mb <= LARGEST_MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=PREDICTIONS, help="fewer of them try it")
    wanted = parser.parse_args().predictions
    free, needed = shutil.disk_usage(tempfile.gettempdir()).free, wanted * BYTES_EACH
    if free < needed:
        sys.exit(f"bench: {tempfile.gettempdir()} has {free / 1e9:.0f} GB free, {needed / 1e9:.0f} GB are needed.")
    prepare()
    with tempfile.TemporaryDirectory(prefix="medimind-bench-") as folder:
        settings = Settings(home=Path(folder) / "home", configs=machine().configs, data=machine().data, user="bench")
        shutil.copytree(machine().home, settings.home, symlinks=True)
        began = time.monotonic()
        told = _fill(settings, wanted)
        size = sum(path.stat().st_size for path in settings.home.glob("ledger.db*"))
        filled_s = time.monotonic() - began
        print(f"{platform.machine()}, {os.cpu_count()} cores; {told}; {size / 1e9:.1f} GB, made in {filled_s:.0f} s")
        runs = [_run("the first run", settings), _run("nothing new", settings)]
        _news(settings)
        runs.append(_run("new predictions, late outcomes for every window", settings))
    print(f"\n| run | wall, s (at most {LONGEST_S}) | memory, MB (at most {LARGEST_MB}) |\n| --- | ---: | ---: |")
    for run in runs:
        print(f"| {run.name} | {run.wall_s:.1f} | {run.largest_mb:.0f} |")
    if not all(run.within for run in runs):
        sys.exit(1)


def _run(name: str, settings: Settings) -> Run:
    """Run the monitor in a process of its own. Its memory is the most that was resident at once."""
    variables = {"HOME": settings.home, "CONFIGS": settings.configs, "DATA": settings.data, "USER": settings.user}
    env = {**os.environ, **PHONE_HOME_OFF, **{f"MEDIMIND_{key}": str(value) for key, value in variables.items()}}
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("medimind")), "monitor", TREES]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - began
    if process.returncode not in (0, 1):  # 1: something that is watched failed
        sys.exit(f"bench: medimind monitor ended with {process.returncode}")
    return Run(name, wall, _megabytes(used))


def _megabytes(used: resource.struct_rusage) -> float:
    return used.ru_maxrss / 1000  # kB on Linux


def _fill(settings: Settings, wanted: int) -> str:
    """Put that many predictions and their outcomes on record; what was put there, in words."""
    numbers, happened = _patterns(settings)
    cycles = wanted // (2 * RECORDS_IN_A_BATCH)
    with closing(sqlite3.connect(settings.home / "ledger.db", isolation_level=None)) as ledger:
        for pragma in ("journal_mode=MEMORY", "synchronous=OFF", "secure_delete=OFF", "cache_size=-400000"):
            ledger.execute(f"PRAGMA {pragma}")
        _lay_out(ledger, numbers, happened)
        for start in range(0, cycles, 2000):
            ledger.execute("BEGIN")
            _copy(ledger, start, min(start + 2000, cycles), cycles)
            ledger.execute("COMMIT")
        ledger.execute("DROP TABLE happened")
        ledger.execute("DROP TABLE pattern")
        counts = [
            ledger.execute(f"SELECT {what}").fetchone()[0]
            for what in ("sum(n) FROM requests", "count(*) FROM requests", "count(*) FROM outcomes")
        ]
        ledger.execute("PRAGMA journal_mode=WAL")
    return "{:,} predictions in {:,} requests, {:,} outcomes".format(*counts)


def _patterns(settings: Settings) -> tuple[list[int], list[list[int]]]:
    """Put LONE lone records and BATCHES batches on record, as a server does; their numbers, and what came of each."""
    engine = connect(settings)
    champion = find_champion(engine, TREES)
    assert champion is not None
    predictor = Predictor(bundles.get(champion.bundle, settings))
    names = list(predictor.spec.columns)
    dice = np.random.default_rng(SEED)
    people = population(LONE + BATCHES * RECORDS_IN_A_BATCH, SEED + 4)
    X = predictor.features([predictor.check(record) for record in people])
    risks = predictor.risk(X)
    events = (dice.random(len(risks)) < risks).astype(int)
    cuts = [*range(LONE), *range(LONE, len(people) + 1, RECORDS_IN_A_BATCH)]
    entries = []
    for start, end in pairwise(cuts):
        rows = [[record.get(name) for name in names] for record in people[start:end]]
        n = end - start
        entries.append(
            Answered(
                model=TREES,
                version=champion.version,
                bundle=champion.bundle,
                received_at=now() - timedelta(days=365),
                records=msgspec.json.encode({"fields": names, "rows": rows}),
                references=[None] * n,
                patients=[None] * n,
                features=X[start:end],
                risks=risks[start:end],
                bands=predictor.bands(risks[start:end], None),
            )
        )
    with writing(engine) as connection:
        kept = keep_all(connection, [Entry([entry], None, lambda _: b"") for entry in entries])
    engine.dispose()
    numbers = [each[0] for each in kept if isinstance(each, list)]
    return numbers, [events[start:end].tolist() for start, end in pairwise(cuts)]


def _lay_out(ledger: sqlite3.Connection, numbers: Sequence[int], happened: Sequence[Sequence[int]]) -> None:
    """`pattern`: the requests to copy, by place; `happened`: what came of each of their predictions."""
    ledger.execute("CREATE TABLE pattern (place INTEGER PRIMARY KEY, request INTEGER)")
    ledger.executemany("INSERT INTO pattern VALUES (?, ?)", enumerate(numbers))
    ledger.execute(
        "CREATE TABLE happened (place INTEGER, position INTEGER, value INTEGER, PRIMARY KEY (place, position))"
    )
    rows = ((place, position, value) for place, values in enumerate(happened) for position, value in enumerate(values))
    ledger.executemany("INSERT INTO happened VALUES (?, ?, ?)", rows)


def _copy(ledger: sqlite3.Connection, start: int, end: int, cycles: int) -> None:
    """Cycles `start` to `end`: CYCLE requests each, and an outcome for most of their predictions, a week later."""
    ledger.execute("CREATE TEMP TABLE made (i INTEGER PRIMARY KEY, place INTEGER)")
    ledger.execute(
        """WITH RECURSIVE k(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM k WHERE i + 1 < ?)
        INSERT INTO made SELECT i, iif(i % ? = ?, ? + (i / ?) % ?, (i * 7919) % ?) FROM k""",
        (start * CYCLE, end * CYCLE, CYCLE, CYCLE - 1, LONE, CYCLE, BATCHES, LONE),
    )
    first = ledger.execute("SELECT max(id) FROM requests").fetchone()[0] + 1 - start * CYCLE
    begins = time.time() - 2 * cycles * RECORDS_IN_A_BATCH / PER_SECOND
    ledger.execute(
        """INSERT INTO requests (id, model, version, bundle, received_at, n, risks, feature_digests, bands, features,
            records, patients)
        SELECT made.i + ?, p.model, p.version, p.bundle,
            strftime('%Y-%m-%d %H:%M:%f', ? + made.i * ?, 'unixepoch') || '000', p.n, p.risks, p.feature_digests,
            p.bands, p.features, p.records, p.patients
        FROM made JOIN pattern USING (place) JOIN requests p ON p.id = pattern.request ORDER BY made.i""",
        (first, begins, 2 * RECORDS_IN_A_BATCH / CYCLE / PER_SECOND),
    )
    ledger.execute(
        """INSERT INTO outcomes (request, position, value, observed_at, received_at)
        SELECT made.i + ?, h.position, h.value, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000',
            strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
        FROM made JOIN happened h USING (place) WHERE abs(random() % 1000) < ? ORDER BY made.i, h.position""",
        (first, 1000 * OUTCOME_KNOWN),
    )
    ledger.execute("DROP TABLE made")


def _news(settings: Settings) -> None:
    """Predictions enough for as many new windows as one run judges, and the outcomes that were missing."""
    with closing(sqlite3.connect(settings.home / "ledger.db")) as ledger, ledger:
        begin = ledger.execute("SELECT min(first_request) FROM windows").fetchone()[0]
        moment = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"
        ledger.execute(
            f"""INSERT INTO outcomes (request, position, value, observed_at, received_at)
            SELECT r.id, 0, 0, {moment}, {moment} FROM requests r WHERE r.id >= ? AND r.n = 1
                AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.request = r.id)""",  # noqa: S608  # ours
            (begin,),
        )
        columns = "model, version, bundle, received_at, n, risks, feature_digests, bands, features, records, patients"
        ledger.execute(
            f"INSERT INTO requests ({columns}) SELECT {columns} FROM requests WHERE id >= ? ORDER BY id",  # noqa: S608
            (begin,),
        )


if __name__ == "__main__":
    main()
