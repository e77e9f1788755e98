"""Two versions on the same patients: paired figures, and what differs in data, spec and code."""

from dataclasses import dataclass

import numpy as np

from configs.errors import CohortError, PromotionError
from configs.settings import Settings
from evidence import change
from evidence.comparison import Paired, delong, paired_interval
from evidence.metrics import METRICS, Array, auroc
from features import cohort
from features.cohort import Cohort
from ledger import registry
from models import bundle as bundles
from models.bundle import Bundle
from models.predict import Matrix, Predictor


@dataclass(frozen=True)
class Comparison:
    """`paired[metric]`: A's figure, B's, and A minus B with its 95 % interval, on `n` patients with `events` events.

    `differs`: what differs between the two, a sentence each.
    """

    a: str
    b: str
    n: int
    events: int
    data: str
    paired: dict[str, Paired]
    differs: tuple[str, ...]


def compare(name: str, a: int, b: int, settings: Settings) -> Comparison:
    """Versions A and B of a model on the present cohort's test patients, whom neither learned from.

    Raises PromotionError if one of the two learned from them, or cannot read them, RegistryError if there is no such
    version.
    """
    one, other = (_bundle(name, number, settings) for number in (a, b))
    patients = cohort.load(settings.data / "cohorts" / f"{name}.parquet")
    return judge(f"{name}@{a}", one, f"{name}@{b}", other, patients)


def judge(shown_a: str, a: Bundle, shown_b: str, b: Bundle, patients: Cohort) -> Comparison:
    """The comparison of two bundles on the cohort's test part."""
    for shown, bundle in ((shown_a, a), (shown_b, b)):
        _may_be_judged(shown, bundle, patients)
    test = patients.only("test")
    risk_a, risk_b = (Predictor(bundle).risk(_columns(bundle, test)) for bundle in (a, b))
    paired = {name: _paired(name, test.y, risk_a, risk_b, a.spec.split.seed) for name in METRICS}
    differs = tuple(change.between(b, a).told)
    return Comparison(shown_a, shown_b, len(test), int(test.y.sum()), patients.fingerprint, paired, differs)


def _paired(name: str, y: Array, a: Array, b: Array, seed: int) -> Paired:
    return delong(y, a, b) if METRICS[name] is auroc else paired_interval(METRICS[name], y, a, b, seed)


def _may_be_judged(shown: str, bundle: Bundle, patients: Cohort) -> None:
    """Raise PromotionError if the bundle may have learned from the cohort's test patients."""
    if bundle.training.get("split") != patients.assignment:
        raise PromotionError(
            f"{shown}: was trained on other patients than the present cohort's, and may have learned from those that "
            "are its test patients now, so the two cannot be compared on them. `medimind ingest` and `prepare` with "
            "the data that it was trained on bring its cohort back."
        )


def _columns(bundle: Bundle, test: Cohort) -> Matrix:
    """The cohort's columns that this bundle's model reads, in its own order."""
    names = Predictor(bundle).plan.names
    if missing := [name for name in names if name not in test.names]:
        raise CohortError(f"{bundle.spec.name}: the cohort has no feature {missing[0]!r}, which the version reads.")
    return np.ascontiguousarray(test.X[:, [test.names.index(name) for name in names]])


def _bundle(name: str, number: int, settings: Settings) -> Bundle:
    version = registry.find(settings, name, number)
    with registry.fetch(settings, version) as (folder, _):
        return bundles.put(folder, settings.store)
