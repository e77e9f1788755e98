"""The whole case of a version: every finding of its validation, and what the review page draws."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evidence import calibration, checks, classes, figures, importance, probes, screening, utility
from evidence.metrics import Array
from evidence.report import Finding, Report
from evidence.subgroups import subgroups
from features.cohort import Cohort
from models.family import Fitted
from models.predict import Predictor

THRESHOLDS: Array = np.linspace(0.01, 0.99, 99)


@dataclass(frozen=True)
class Rival:
    """The champion's risks of the same test patients, in order; or None, and why they cannot be had."""

    shown: str
    risk: Array | None
    why: str = ""


def case(
    predictor: Predictor,
    cohort: Cohort,
    yardsticks: Mapping[str, Array],
    champion: Rival,
    sites: Mapping[str, tuple[Array, Array]],
    fit: Callable[[Cohort], Fitted],
    fit_plain: Callable[[Cohort], Fitted],
    lineage: Mapping[str, Any],
) -> Report:
    """The validation report of the predictor's bundle, complete.

    `yardsticks`: the test patients' log-odds from families fitted alike, `logistic` among them; `sites`: outcomes and
    risks of each site left out; `fit` fits the bundle's family on a cohort, as in training, `fit_plain` a family of
    plain numbers on a cohort of one column a feature or signal; `lineage`: git, pins.
    """
    bundle = predictor.bundle
    spec, seed = bundle.spec, bundle.spec.split.seed
    test = cohort.only("test")
    external = cohort.only("external")
    risks, elsewhere = predictor.risks(test.X), predictor.risk(external.X)
    risk = predictor.positive(risks)
    spoilt = probes.robustness(predictor, cohort)
    further = [
        *checks.against(test.y, risk, champion.shown, champion.risk, champion.why, yardsticks["logistic"]),
        *checks.certain(predictor, test, risks),
        *checks.robust(spec, spoilt),
        *checks.leaks(bundle, cohort, fit, fit_plain),
        checks.sizes(bundle, cohort),
        *checks.censored(cohort),
        *checks.left_out(sites),
    ]
    further += classes_and_screening(predictor, test.y, test.label, test.stage, risks)
    report = checks.judge(bundle, cohort, risk, elsewhere, yardsticks, further)
    groups = subgroups(test.attributes, test.y, risk, seed, bundle.thresholds)
    drawn = {
        **figures.curves(test.y, risk),
        "calibration": calibration.drawn(test.y, risk, seed),
        "decision_curve": figures.plain(utility.decision_curve(test.y, risk, THRESHOLDS)),
        "alert_burden": figures.plain(utility.alert_burden(test.y, risk, THRESHOLDS)),
        "operating_points": figures.operating_points(bundle, test.y, risk),
        "subgroups": figures.groups(groups),
        "conformal": checks.coverage(predictor, test, risks),
        **(
            {}
            if test.label is None
            else classes.drawn(spec, test.label, risks, predictor.sets(risks), bundle.thresholds)
        ),
        **screening.drawn(spec, test.y, risk, test.stage, bundle.thresholds),
        "importance": importance.drawn(predictor, test, seed),
        "robustness": figures.robustness(spoilt),
        "sites": [
            *figures.sites("left out", sites, checks.FEWEST_ELSEWHERE),
            *figures.sites("external", by_site(external, elsewhere), checks.FEWEST_ELSEWHERE),
        ],
        "flow": figures.flow(cohort),
        "table1": figures.table1(predictor.plan, cohort, tuple(spec.outcome.classes or ())),
        "sample_size": checks.asked_by_riley(bundle, cohort),
        "lineage": {**lineage, "data": cohort.fingerprint, "spec": spec.digest, "code": bundle.training["code"]},
    }
    return replace(report, figures={key: value for key, value in drawn.items() if value})


def classes_and_screening(
    predictor: Predictor, y: Array, label: Array | None, stage: NDArray[np.str_] | None, risks: Array
) -> list[Finding]:
    """What the spec asks for of MM039 to MM054, from outcomes, classes and stages, all (n,), and their `risks`."""
    spec, cuts = predictor.spec, predictor.bundle.thresholds
    found = [] if label is None else classes.judged(spec, label, risks, predictor.sets(risks), cuts)
    return [*found, *screening.judged(spec, y, predictor.positive(risks), stage, cuts)]


def by_site(patients: Cohort, risk: Array) -> dict[str, tuple[Array, Array]]:
    """Outcomes and risks of each site's patients."""
    labels = patients.attributes.get("site")
    if labels is None:
        return {}
    return {site: (patients.y[labels == site], risk[labels == site]) for site in sorted(set(labels.tolist()))}
