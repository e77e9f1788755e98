"""Cohort to bundle."""

from functools import partial
from shutil import rmtree

from configs.settings import Settings
from configs.spec import load_spec
from features import build, cohort
from ledger import registry, reviews
from ledger.database import connect
from models import memory, training
from models.bundle import Bundle
from models.family import family
from pipelines import encoders
from pipelines.files import alone


def train(name: str, settings: Settings, *, resume: bool = False) -> Bundle:
    """Train the disease's candidates on its cohort, and write the best as the bundle `data/bundles/<name>`.

    The ledger keeps who trained it: where approvals are asked for, theirs does not count. With `resume` its networks go
    on where a training that was killed left them. Raises TrainingError if they were others, or learned from other
    data or by other code.
    """
    with alone(name, settings):
        return _train(name, settings, resume)


def _train(name: str, settings: Settings, resume: bool) -> Bundle:
    spec = load_spec(name, settings.configs)
    patients = cohort.load(settings.data / "cohorts" / f"{name}.parquet")
    engine = connect(settings)
    if spec.encoder is not None:
        encoders.lay(spec.encoder, settings)
    left = settings.private(settings.home / "checkpoints") / name
    if not resume:
        rmtree(left, ignore_errors=True)
    with registry.watched(settings, name) as watched:
        folder = settings.data / "bundles" / name
        bundle = training.train(
            spec, build.plan(spec), patients, folder, settings, watched.trial, watched.epoch, checkpoints=left
        )
    rmtree(left, ignore_errors=True)
    reviews.trained(engine, name, bundle.digest, settings.actor)
    return bundle


def explain_memory(name: str, settings: Settings) -> list[str]:
    """What each network among the candidates takes while it trains on the disease's cohort, a line each; none is
    trained."""
    spec = load_spec(name, settings.configs)
    patients = cohort.load(settings.data / "cohorts" / f"{name}.parquet").only("train")
    task = training.task(spec, build.plan(spec), patients, settings)
    networks = [candidate for candidate in spec.candidates if getattr(family(candidate), "NETWORK", False)]
    if not networks:
        return [f"{name}: none of the candidates {', '.join(spec.candidates)} is a network."]
    measured = {
        candidate: memory.footprint(partial(training.fit_family, candidate, patients, task)) for candidate in networks
    }
    return [f"{candidate}: {found}" for candidate, found in measured.items()]
