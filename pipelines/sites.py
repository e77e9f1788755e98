"""Leave one site out: what the model would be worth in a hospital of which it has seen nobody."""

from collections.abc import Mapping

import numpy as np

from configs.errors import TrainingError
from configs.spec import Spec
from evidence.metrics import Array
from features.cohort import FEWEST_OF_A_CLASS, Cohort, class_counts
from models.family import Task
from models.training import calibrated, fit_family, out_of_fold


def leave_one_out(spec: Spec, patients: Cohort, family: str, learning: Task) -> Mapping[str, tuple[Array, Array]]:
    """For each site of the cohort, external ones too: outcomes (n,), and risks (n,) of a model of all the other sites.

    The same family, fitted and calibrated as in training. Empty where there are not two sites. A site whose others
    cannot teach a model has NaN for risks.
    """
    sites = patients.attributes.get("site")
    if sites is None or len(set(sites.tolist()) - {"unknown"}) < 2:
        return {}
    found = {}
    for site in sorted(set(sites.tolist()) - {"unknown"}):
        here, others = patients.where(sites == site), patients.where(sites != site)
        risk = np.full(len(here), np.nan)
        if min(class_counts(spec.outcome, others).values()) >= FEWEST_OF_A_CLASS:
            try:
                log_odds = out_of_fold(family, others, learning)
                calibration = calibrated(spec.outcome, log_odds, others)
                risk = calibration.risk(fit_family(family, others, learning).log_odds(here.X))
            except TrainingError:  # what was learned elsewhere tells nobody apart
                pass
        found[site] = (here.y, risk)
    return found
