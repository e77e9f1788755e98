"""The verbs as Prefect flows: the only home of prefect. A flow names a disease, calls one plain function, and tells.

A task is tried again only where that helps: a download that failed, a registry that did not answer.
"""

from contextlib import suppress
from datetime import datetime
from typing import Any

from prefect import Flow, flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import EntrypointType
from prefect.events import DeploymentEventTrigger, emit_event
from prefect.exceptions import ObjectAlreadyExists
from rich.markup import escape

from configs.errors import FetchError, RegistryError
from configs.settings import settings
from ledger.database import connect
from pipelines import alerts as alerting
from pipelines import ingest as ingesting
from pipelines import monitor as monitoring
from pipelines import prepare as preparing
from pipelines import promote as promoting
from pipelines import retrain as retraining
from pipelines import story
from pipelines import train as training
from pipelines import validate as validating

WORK_POOL = "medimind"
MONITOR_AT = "0 6 * * *"
"""Every morning at six, before the first patients come; the server's time zone."""

RETRAIN_AT = "30 * * * *"
"""Every hour: a trial, a canary and a probation end when their outcomes are in, and it costs little to see that."""

ALERTS_AT = "*/5 * * * *"
"""How soon a channel that was down is told what it missed."""

RETRAIN_DUE = "medimind.retrain.due"
"""The event of a model that is to be retrained, or whose retraining is under way."""


async def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failed task is worth another try."""
    try:
        await state.aresult()
    except (FetchError, RegistryError):
        return True
    except Exception:  # any other error would only be met again
        return False
    return False


stubborn = task(retries=2, retry_delay_seconds=[2, 10], retry_condition_fn=_may_pass)


@flow(name="ingest")
def ingest(name: str) -> None:
    """Source to records."""
    story.ingested(stubborn(ingesting.ingest)(name, settings()))


@flow(name="prepare")
def prepare(name: str) -> None:
    """Records to cohort."""
    story.prepared(preparing.prepare(name, settings()))


@flow(name="train")
def train(name: str, resume: bool = False) -> None:
    """Cohort to bundle."""
    story.trained(training.train(name, settings(), resume=resume))


@flow(name="validate")
def validate(name: str) -> tuple[int, bool]:
    """Bundle to registered version: its number, and whether its report passes."""
    done = stubborn(validating.validate)(name, settings())
    story.validated(done)
    return done.version.number, done.report.passed


@flow(name="promote")
def promote(name: str, number: int, reason: str) -> None:
    """Version to champion."""
    done = stubborn(promoting.promote)(name, number, reason, settings())
    story.promoted(done)
    for note in done.notes:
        story.say(escape(note))


@flow(name="promote")
def offer(name: str, number: int) -> None:
    """Version to champion, if the change control plan lets it through by itself."""
    done = stubborn(promoting.offer)(name, number, settings())
    if isinstance(done, promoting.Waits):
        story.waits(done)
        return
    story.promoted(done)
    for note in done.notes:
        story.say(escape(note))


@flow(name="monitor")
def monitor(name: str, since: datetime | None = None) -> None:
    """The champion's windows, judged; where a retraining is due by them, or under way, the event that starts it."""
    story.monitored(monitoring.monitor(name, since, settings()))
    if since is None and (why := retraining.due(name, settings())):
        emit_event(RETRAIN_DUE, resource={"prefect.resource.id": _resource(name)}, payload={"why": list(why)})


@flow(name="alerts")
def alerts() -> None:
    """What a channel has not taken yet, told again."""
    told = alerting.deliver(connect(settings()), settings())
    story.say(f"alerts: {told.delivered} delivered, {told.waiting} still wait")


@flow(name="retrain")
def retrain(name: str, reason: str | None = None) -> None:
    """The loop, once: begun, judged, tried, promoted or refused, kept or rolled back, as far as it goes now."""
    story.retrained(stubborn(retraining.retrain)(name, settings(), reason))
    alerting.deliver(connect(settings()), settings())


@flow(name="run")
def run(names: list[str]) -> list[str]:
    """The whole way of each disease, from its source to the champion; the names whose gates did not pass.

    A version that its change control plan does not let through by itself waits, and the terminal says for what.
    """
    refused = []
    for name in names:
        story.chapter(name)
        ingest(name)
        prepare(name)
        train(name)
        number, passed = validate(name)
        if passed:
            offer(name, number)
        else:
            refused.append(name)
    return refused


def deploy(names: list[str]) -> list[str]:
    """Deploy each disease's flows to the Prefect server at PREFECT_API_URL; the deployments' names."""
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
    made = []
    for name in names:
        due = DeploymentEventTrigger(
            name=f"{name}: a retraining is due", expect={RETRAIN_DUE}, match={"prefect.resource.id": _resource(name)}
        )
        made += [
            _deploy(run, name, {"names": [name]}, None),
            _deploy(monitor, name, {"name": name}, MONITOR_AT),
            _deploy(retrain, name, {"name": name}, RETRAIN_AT, due),
        ]
    return [*made, _deploy(alerts, WORK_POOL, {}, ALERTS_AT)]


def _deploy(
    work: Flow[..., Any], name: str, parameters: dict[str, Any], cron: str | None, *triggers: DeploymentEventTrigger
) -> str:
    deployment = work.to_deployment(
        name=name,
        parameters=parameters,
        cron=cron,
        triggers=list(triggers),
        work_pool_name=WORK_POOL,
        entrypoint_type=EntrypointType.MODULE_PATH,
        concurrency_limit=1,
    )
    deployment.apply()
    return f"{work.name}/{name}"


def _resource(name: str) -> str:
    return f"medimind.model.{name}"
