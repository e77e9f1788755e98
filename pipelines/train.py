"""Cohort to bundle."""

from configs.settings import Settings
from configs.spec import load_spec
from features import build, cohort
from ledger import registry, reviews
from ledger.database import connect
from models import training
from models.bundle import Bundle
from pipelines import encoders
from pipelines.files import alone


def train(name: str, settings: Settings) -> Bundle:
    """Train the disease's candidates on its cohort, and write the best as the bundle `data/bundles/<name>`.

    The ledger keeps who trained it: where approvals are asked for, theirs does not count.
    """
    with alone(name, settings):
        return _train(name, settings)


def _train(name: str, settings: Settings) -> Bundle:
    spec = load_spec(name, settings.configs)
    patients = cohort.load(settings.data / "cohorts" / f"{name}.parquet")
    engine = connect(settings)
    if spec.encoder is not None:
        encoders.lay(spec.encoder, settings)
    with registry.watched(settings, name) as watched:
        folder = settings.data / "bundles" / name
        bundle = training.train(spec, build.plan(spec), patients, folder, settings, watched.trial)
    reviews.trained(engine, name, bundle.digest, settings.actor)
    return bundle
