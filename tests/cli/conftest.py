"""What the tests of the command line share: `medimind` in this process or another, and one machine that ran it all."""

import asyncio
import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml

from configs.settings import ROOT, Settings
from pipelines import cli
from serving.bodies import JSON
from serving.runtime import Counters, Runtime

MARKER = "MARKER4711"
"""Stands in every patient's identifier and in a free text of the source that no contract names."""


@dataclass(frozen=True)
class Said:
    """What a command left behind: its exit code and what stood on both streams."""

    code: int
    out: str
    err: str


@pytest.fixture
def medimind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`medimind(verb, …)`: the command line in this process, through its own entry point."""

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["medimind", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        code = stopped.value.code
        return Said(code if isinstance(code, int) else int(bool(code)), said.out, said.err)

    return call


def in_a_process(*words: object, settings: Settings | None = None, **variables: str) -> Said:
    """The same, as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(variables_of(settings) if settings else {}), **variables},
        timeout=300,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def process() -> Callable[..., Said]:
    """`process(verb, …, settings=…, VARIABLE=…)`: the command line as a process of its own."""
    return in_a_process


def variables_of(settings: Settings) -> dict[str, str]:
    return {f"MEDIMIND_{name.upper()}": str(getattr(settings, name)) for name in ("home", "configs", "data")}


@pytest.fixture(scope="session")
def memory() -> dict[str, Any]:
    return {}


@pytest.fixture
def ran(
    memory: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    toy_document: dict[str, Any],
    toy_table: Callable[..., dict[str, list[Any]]],
) -> tuple[Settings, Said]:
    """One machine for all, and what `medimind run toy picky` said on it: picky has a gate that no model passes."""
    if "ran" not in memory:
        base = tmp_path_factory.mktemp("machine")
        settings = Settings(home=base / "home", configs=base / "configs", data=base / "data")
        table = toy_table(400, 1)
        table = {**table, "id": [f"{MARKER}-{name}" for name in table["id"]], "note": [f"{MARKER} was seen"] * 400}
        write_csv(settings.data / "raw" / "toy.csv", table)
        document = {**toy_document, "source": {"csv": str(settings.data / "raw" / "toy.csv")}}
        write_yaml(settings.configs / "diseases" / "toy.yaml", document)
        picky = {**document, "name": "picky", "gates": {"auroc": ">= 0.999"}, "candidates": ["logistic"]}
        write_yaml(settings.configs / "diseases" / "picky.yaml", picky)
        write_yaml(settings.configs / "enabled.yaml", {"enabled": ["toy"]})
        memory["ran"] = settings, in_a_process("run", "toy", "picky", settings=settings)
    settings, said = memory["ran"]
    return settings, said


@pytest.fixture
def machine(ran: tuple[Settings, Said], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """That machine, and this process on it."""
    for variable, value in variables_of(ran[0]).items():
        monkeypatch.setenv(variable, value)
    return ran[0]


@pytest.fixture
def answered(machine: Settings) -> Callable[..., list[str]]:
    """`answered(records)`: ask the champion as the server does; the predictions' ids, on record."""

    def ask(records: list[dict[str, Any]], ledger: str = "") -> list[str]:
        settings = Settings(home=machine.home, configs=machine.configs, data=machine.data, ledger=ledger)
        return [one["id"] for one in asyncio.run(predicted(settings, records))]

    return ask


async def predicted(settings: Settings, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    served = Runtime(settings, ["toy"], Counters(*[lambda *_: None] * 4))
    served.open()
    try:
        body = json.dumps({"records": records}).encode()
        answer = await served.predict("toy", body, JSON, None, None, monotonic() + 60, None)
    finally:
        await served.close()
    found: list[dict[str, Any]] = json.loads(answer)["predictions"]
    return found


@pytest.fixture
def patients(toy_table: Callable[..., dict[str, list[Any]]]) -> Callable[..., list[dict[str, Any]]]:
    """`patients(n, seed)`: new patients of the hospitals that the toy learned from, as an app sends them."""
    pains = {"none": "none", "on exertion": "exertion", "at rest": "rest", None: None}

    def draw(n: int, seed: int) -> list[dict[str, Any]]:
        table = toy_table(2 * n, seed)
        records = [
            {
                "age_years": age,
                "cholesterol_mg_dl": chol,
                "max_heart_rate_bpm": rate,
                "sex": {"F": "female", "M": "male"}[sex],
                "pain": pains[pain],
                "smoker": smoker,
                "site": site.lower(),
            }
            for age, chol, rate, sex, pain, smoker, site in zip(
                *(table[name] for name in ("age", "chol", "rate", "sex", "pain", "smoker", "site")), strict=True
            )
            if site != "East"
        ]
        return records[:n]

    return draw


@pytest.fixture
def files() -> Callable[[Path], dict[str, bytes]]:
    """`files(folder)`: every file under it, by its path."""
    return lambda folder: {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def full_disk() -> Callable[[int], Any]:
    """`with full_disk(size)`: no file may grow beyond so many bytes, as on a disk that is full."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores SIGXFSZ, so the write fails
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def rewrite(medimind_home: Settings, toy_document: dict[str, Any]) -> Callable[..., None]:
    """`rewrite(key=value, …)`: the toy's YAML with other keys, on a machine that has not run anything yet."""
    source = {"csv": str(medimind_home.data / "raw" / "toy.csv")}

    def write(**changed: Any) -> None:
        write_yaml(medimind_home.configs / "diseases" / "toy.yaml", {**toy_document, "source": source, **changed})

    return write


@pytest.fixture
def table(medimind_home: Settings, toy_table: Callable[..., dict[str, list[Any]]]) -> Callable[..., None]:
    """`table(column=cells, …)`: the toy's source, of 60 rows, with other columns."""

    def write(**changed: list[Any]) -> None:
        write_csv(medimind_home.data / "raw" / "toy.csv", {**toy_table(60, 1), **changed})

    return write


def write_csv(path: Path, table: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])


def write_yaml(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
