"""What the tests of the flows share: one Prefect server for the session, and one machine with two toy diseases."""

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.settings import Settings


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A temporary Prefect server with its own database; the address of its API."""
    with pytest.MonkeyPatch.context() as patch:
        # As pipelines/cli._flows sets them; prefect reads them when it is imported.
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
        patch.setenv("PREFECT_LOGGING_LEVEL", "CRITICAL")
        patch.setenv("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
        from prefect.settings import PREFECT_API_URL
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=90):
            yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def memory() -> dict[str, Any]:
    return {}


@pytest.fixture
def machine(
    memory: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    toy_document: dict[str, Any],
    toy_table: Callable[..., dict[str, list[Any]]],
) -> Settings:
    """One machine for all tests here: the toy, and `picky`, the same with a gate that no model passes."""
    if "machine" not in memory:
        base = tmp_path_factory.mktemp("machine")
        settings = Settings(home=base / "home", configs=base / "configs", data=base / "data")
        table = toy_table(400, 1)
        with open(base / "toy.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])
        document = {**toy_document, "source": {"csv": str(base / "toy.csv")}, "candidates": ["logistic"]}
        add_disease(settings, document)
        add_disease(settings, {**document, "name": "picky", "gates": {"auroc": ">= 0.999"}})
        memory["machine"] = settings
    settings = memory["machine"]
    for name in ("home", "configs", "data"):
        monkeypatch.setenv(f"MEDIMIND_{name.upper()}", str(getattr(settings, name)))
    return settings


@pytest.fixture
def add(machine: Settings) -> Callable[[dict[str, Any]], Path]:
    """`add(document)`: another disease on this machine."""
    return lambda document: add_disease(machine, document)


def add_disease(settings: Settings, document: dict[str, Any]) -> Path:
    path = settings.configs / "diseases" / f"{document['name']}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def ran(harness: str, machine: Settings, memory: dict[str, Any]) -> list[str]:
    """The flow `run` over both diseases, once; the names that it refused."""
    if "refused" not in memory:
        from pipelines import flows

        memory["refused"] = flows.run(["toy", "picky"])
    return list(memory["refused"])


@pytest.fixture
def task_runs(harness: str) -> Callable[[str], list[Any]]:
    """`task_runs(flow run's name)`: what Prefect has on record of a flow's newest run's tasks."""

    def read(flow_name: str) -> list[Any]:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterId
        from prefect.client.schemas.sorting import FlowRunSort

        with get_client(sync_client=True) as client:
            (newest,) = client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])),
                sort=FlowRunSort.START_TIME_DESC,
                limit=1,
            )
            return client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[newest.id])))

    return read


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds nothing anywhere, at once."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
