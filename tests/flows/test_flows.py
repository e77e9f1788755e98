"""The verbs as Prefect flows, under a real Prefect server."""

import os
import subprocess
import sys
from time import monotonic, sleep

import pytest

from configs.errors import FetchError, SourceError
from configs.settings import ROOT
from ledger import registry
from ledger.database import connect
from ledger.promotions import find_champion


def champion(settings, name):
    engine = connect(settings)
    found = find_champion(engine, name)
    engine.dispose()
    return found


def test_run_promotes_what_passes_and_names_what_does_not(ran, machine):
    assert ran == ["picky"]
    assert champion(machine, "toy").version == 1
    assert champion(machine, "picky") is None


def test_a_version_that_failed_a_gate_is_registered_all_the_same(ran, machine):
    (version,) = registry.versions(machine, "picky")

    assert not version.passed
    assert version.aliases == ()
    with registry.fetch(machine, version) as (_, report):
        assert [finding.title for finding in report.failed] == ["AUROC"]


def test_each_verb_ran_as_a_flow_of_its_own(ran, machine):
    from prefect.client.orchestration import get_client

    from pipelines import flows

    flows.monitor("toy")

    with get_client(sync_client=True) as client:
        names = {flow.id: flow.name for flow in client.read_flows()}
        runs = [(names[run.flow_id], run.state_name) for run in client.read_flow_runs()]
    assert {name for name, _ in runs} >= {"ingest", "prepare", "train", "validate", "promote", "monitor", "run"}
    assert {state for name, state in runs if name in ("prepare", "train", "validate", "promote", "run")} == {
        "Completed"
    }
    assert (machine.reports / "toy" / "timeline.html").exists()


def test_a_second_run_makes_no_new_version(ran, machine):
    from pipelines import flows

    assert flows.run(["toy"]) == []

    assert [version.number for version in registry.versions(machine, "toy")] == [1]
    assert champion(machine, "toy").version == 1


def test_a_download_that_failed_is_tried_again(harness, machine, add, toy_document, no_index, task_runs):
    from pipelines import flows

    wheel = {"wheel": "no-such-package-of-ours==1.0", "member": "a/b.csv", "sha256": "0" * 64}
    add({**toy_document, "name": "faraway", "source": wheel})

    with pytest.raises(FetchError, match="could not be downloaded"):
        flows.ingest("faraway")

    assert [run.run_count for run in task_runs("ingest")] == [3]


def test_a_source_that_is_not_there_is_not_tried_again(harness, machine, add, toy_document, task_runs):
    from pipelines import flows

    add({**toy_document, "name": "lost", "source": {"csv": "nowhere.csv"}})

    with pytest.raises(SourceError, match=r"nowhere\.csv is not there"):
        flows.ingest("lost")

    assert [run.run_count for run in task_runs("ingest")] == [1]


def test_a_flow_that_fails_is_told_in_one_line(harness, machine, add, toy_document):
    add({**toy_document, "name": "lost", "source": {"csv": "nowhere.csv"}})

    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "ingest", "lost"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if k != "PREFECT_LOGGING_LEVEL"}, "PREFECT_API_URL": harness},
        timeout=120,
        check=False,
    )

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("medimind: lost: the source")


def test_deployments_name_their_module_their_pool_and_their_times(harness, machine):
    from prefect.client.orchestration import get_client

    from pipelines import flows

    made = ["run/toy", "monitor/toy", "retrain/toy", "alerts/medimind"]
    assert flows.deploy(["toy"]) == made
    assert flows.deploy(["toy"]) == made, "a second time changes nothing"

    with get_client(sync_client=True) as client:
        found = {name: client.read_deployment_by_name(name) for name in made}
        pool = client.read_work_pool(flows.WORK_POOL)
        assert len(client.read_deployments()) == len(made)
    assert {name: one.entrypoint for name, one in found.items()} == {
        name: f"pipelines.flows.{name.partition('/')[0]}" for name in made
    }
    assert [one.parameters for one in found.values()] == [{"names": ["toy"]}, {"name": "toy"}, {"name": "toy"}, {}]
    assert {one.work_pool_name for one in found.values()} == {pool.name} == {"medimind"}
    assert [[schedule.schedule.cron for schedule in one.schedules] for one in found.values()] == [
        [],
        [flows.MONITOR_AT],
        [flows.RETRAIN_AT],
        [flows.ALERTS_AT],
    ]
    assert all(one.concurrency_limit == 1 or one.global_concurrency_limit.limit == 1 for one in found.values())


def test_a_retraining_that_is_due_is_started_by_the_monitor_s_event(ran, machine, monkeypatch):
    from prefect.client.orchestration import get_client

    from pipelines import flows

    flows.deploy(["toy"])
    monkeypatch.setattr(flows.retraining, "due", lambda name, settings: ("a reason",))
    flows.monitor("toy")

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("retrain/toy").id

        def started():
            runs = [run for run in client.read_flow_runs() if run.deployment_id == deployment]
            return [run.parameters for run in runs if not run.auto_scheduled]

        until = monotonic() + 60
        while not started():
            assert monotonic() < until, "no flow run of retrain/toy was made"
            sleep(0.5)
        assert started() == [{"name": "toy"}]
