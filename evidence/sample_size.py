"""How many patients a model of a binary outcome needs to be developed on, by Riley's criteria.

Source: Riley RD et al. Minimum sample size for developing a multivariable prediction model: part II, binary and
time-to-event outcomes. Stat Med 2019;38:1276-1296; and Calculating the sample size required for developing a clinical
prediction model. BMJ 2020;368:m441, from which the constants are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evidence.metrics import Z95

SHRINKAGE = 0.9
"""Criterion 1: predictor effects are to need no more shrinkage than to this, 10 % of overfitting."""
OPTIMISM = 0.05
"""Criterion 2: the largest gap between apparent and adjusted Nagelkerke R²."""
MARGIN = 0.05
"""Criterion 3: the overall risk is to be known to within this, on both sides, with 95 % confidence."""
NAGELKERKE = 0.15
"""Share of the largest R² that is expected of a model of which nothing is known."""


@dataclass(frozen=True)
class Criterion:
    """The fewest patients, and the events for each candidate parameter among them; both None where `why` says so."""

    title: str
    needed: int | None
    events_per_parameter: float | None
    why: str | None


def criteria(parameters: int, prevalence: float, r2: float) -> tuple[Criterion, Criterion, Criterion]:
    """What each criterion asks for; all three are to be met.

    `parameters`: candidate coefficients, one for each level of a category but the first; `r2`: the Cox-Snell R² that
    is expected of the model on new patients: `r2_of_auroc`, or `r2_of_nothing_known`.
    """
    largest = max_r2_cox_snell(prevalence)
    nothing = unknown = None
    if not 0 < prevalence < 1:
        nothing = f"the outcome's prevalence is {prevalence:g}, and has to lie between 0 and 1"
    elif parameters < 1:
        nothing = f"{parameters} candidate parameters: there is nothing to fit"
    elif not 0 < r2 < largest:
        unknown = (
            f"a Cox-Snell R² of {r2:.3g} is expected; it has to lie between 0 and {largest:.3g} at this prevalence"
        )

    def shrunk_to(shrinkage: float) -> float:
        return parameters / ((shrinkage - 1) * math.log1p(-r2 / shrinkage))

    def asking(title: str, why: str | None, needed: Callable[[], float]) -> Criterion:
        if why:
            return Criterion(title, None, None, why)
        patients = math.ceil(needed())
        return Criterion(title, patients, patients * prevalence / parameters, None)

    return (
        asking("overfitting of at most 10 %", nothing or unknown, lambda: shrunk_to(SHRINKAGE)),
        asking(
            "optimism of at most 0.05 in Nagelkerke's R²",
            nothing or unknown,
            lambda: shrunk_to(r2 / (r2 + OPTIMISM * largest)),
        ),
        asking(
            "overall risk known to within 0.05", nothing, lambda: (Z95 / MARGIN) ** 2 * prevalence * (1 - prevalence)
        ),
    )


def max_r2_cox_snell(prevalence: float) -> float:
    """The Cox-Snell R² of a perfect model, which is below 1; NaN if there are not both classes."""
    if not 0 < prevalence < 1:
        return float("nan")
    return -math.expm1(2 * _log_likelihood(prevalence))


def r2_of_nothing_known(prevalence: float) -> float:
    """The Cox-Snell R² of a model that explains 15 % of what can be: Riley's advice where no earlier model is known."""
    return NAGELKERKE * max_r2_cox_snell(prevalence)


def r2_of_auroc(auroc: float, prevalence: float) -> float:
    """The Cox-Snell R² of a model with this AUROC whose log-odds are normal, alike spread, in both classes.

    What Riley et al. simulate with a million patients, here as the integral that the simulation approaches. 0 at an
    AUROC of 0.5 or less; NaN if there are not both classes or no AUROC; the largest R² at 1.
    Source: Riley RD, Van Calster B, Collins GS. A note on estimating the Cox-Snell R² from a reported C statistic
    (AUROC) to inform sample size calculations for developing a prediction model with a binary outcome. Stat Med
    2021;40:859-864.
    """
    from scipy.stats import norm

    if not (0 < prevalence < 1 and 0 <= auroc <= 1):
        return float("nan")
    if auroc <= 0.5 or auroc == 1:
        return 0.0 if auroc <= 0.5 else max_r2_cox_snell(prevalence)
    apart = math.sqrt(2) * float(norm.ppf(auroc))
    where, weight = np.polynomial.hermite_e.hermegauss(200)
    weight = weight / weight.sum()

    centre = math.log(prevalence / (1 - prevalence)) - apart**2 / 2
    of_events = -float(weight @ np.logaddexp(0, -centre - apart * (where + apart)))
    of_non_events = -float(weight @ np.logaddexp(0, centre + apart * where))
    gained = prevalence * of_events + (1 - prevalence) * of_non_events - _log_likelihood(prevalence)
    return -math.expm1(-2 * gained)


def _log_likelihood(prevalence: float) -> float:
    """A patient's mean log-likelihood under a model that gives everybody the prevalence."""
    return prevalence * math.log(prevalence) + (1 - prevalence) * math.log1p(-prevalence)
