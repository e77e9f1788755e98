"""Two versions on the same patients: paired figures, and what differs in data, spec and code."""

from dataclasses import dataclass

from configs.errors import CohortError, PromotionError
from configs.settings import Settings
from evidence import change
from evidence.comparison import Paired, figures
from evidence.metrics import Array
from features import cohort
from features.cohort import Cohort
from ledger import registry
from models import bundle as bundles
from models.bundle import Bundle
from models.predict import Predictor


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
    one, other = (registered(name, number, settings) for number in (a, b))
    patients = cohort.load(settings.data / "cohorts" / f"{name}.parquet")
    return judge(f"{name}@{a}", one, f"{name}@{b}", other, patients)


def judge(shown_a: str, a: Bundle, shown_b: str, b: Bundle, patients: Cohort) -> Comparison:
    """The comparison of two bundles on the cohort's test part."""
    test = patients.only("test")
    risk_a, risk_b = risk_of(shown_a, a, patients), risk_of(shown_b, b, patients)
    paired = figures(test.y, risk_a, risk_b, a.spec.split.seed)
    differs = change.between(b, a).told
    return Comparison(shown_a, shown_b, len(test), int(test.y.sum()), patients.fingerprint, paired, differs)


def risk_of(shown: str, bundle: Bundle, patients: Cohort) -> Array:
    """The bundle's risks of the cohort's test patients. Raises PromotionError if it may have learned from them."""
    if bundle.training.get("split") != patients.assignment:
        raise PromotionError(
            f"{shown}: was trained on other patients than the present cohort's, and may have learned from those that "
            "are its test patients now, so it cannot be compared on them. `medimind ingest` and `prepare` with the "
            "data that it was trained on bring its cohort back."
        )
    predictor, test = Predictor(bundle), patients.only("test")
    if missing := [name for name in predictor.plan.names if name not in test.names]:
        raise CohortError(f"{shown}: reads the feature {missing[0]!r}, which the present cohort does not have.")
    X = test.columns(predictor.plan.names)
    if X.shape[1] != predictor.plan.width:
        raise CohortError(f"{shown}: reads its signals in other sizes than the present cohort has them.")
    return predictor.risk(X)


def registered(name: str, number: int, settings: Settings) -> Bundle:
    """A registered version's bundle, out of the store. Raises RegistryError if there is no such version."""
    version = registry.find(settings, name, number)
    with registry.fetch(settings, version) as (folder, _):
        return bundles.put(folder, settings)
