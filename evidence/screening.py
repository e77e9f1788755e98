"""What an operating point does where a disease is screened for: which stages it finds, and how many alerts are right.

`y` (n,) is 0 or 1, `risk` (n,) a probability, `stage` (n,) the disease's stage, "" where it is not known; whoever's
risk reaches the threshold is alerted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.spec import Screening, Spec
from evidence.checks import gated
from evidence.metrics import Array, wilson
from evidence.report import Finding
from evidence.subgroups import SMALLEST_CELL, UNTOLD, told
from evidence.utility import utility

DRAWS = 20_000
SCREENED = 100_000
UNKNOWN = "not known"


@dataclass(frozen=True)
class Stage:
    """The share of the events of one stage that is found, with Wilson's interval; None, and `why`, with too few."""

    stage: str
    n: int | None
    sensitivity: float | None
    low: float | None
    high: float | None
    why: str | None


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class Screened:
    """What alerting does among 100,000 people screened: how many are alerted, and how many with the disease found.

    `ppv` is None where nobody would be alerted, `npv` where everybody would.
    """

    ppv: Estimate | None
    npv: Estimate | None
    alerts: Estimate
    found: Estimate


def by_stage(y: Array, risk: Array, stage: NDArray[np.str_], threshold: float) -> list[Stage]:
    """The sensitivity at each stage, in the stages' order, those of unknown stage last. Stages of non-events count not.

    No stage of fewer than 10 is told of, nor one from which such a stage could be found by subtraction.
    """
    stages, found = stage[y == 1], risk[y == 1] >= threshold
    names = sorted(set(stages.tolist()), key=lambda name: (name == "", name))
    rows = {name: stages == name for name in names}
    made = []
    for (name, of_it), n in zip(rows.items(), told([int(of_it.sum()) for of_it in rows.values()]), strict=True):
        if n is None:
            few = int(of_it.sum()) < SMALLEST_CELL
            why = f"{UNTOLD} patients" if few else "not told, as too few are of another stage"
            made.append(Stage(name or UNKNOWN, None, None, None, None, why))
        else:
            caught = int(found[of_it].sum())
            low, high = wilson(caught, n) or (None, None)
            made.append(Stage(name or UNKNOWN, n, caught / n, low, high, None))
    return made


def screened(y: Array, risk: Array, threshold: float, prevalence: float, seed: int) -> Screened | None:
    """What the threshold's sensitivity and specificity come to where so many have the disease; None with too few.

    By Bayes' rule, as if both were the same there. The intervals are those of 20,000 pairs drawn from the two shares'
    distributions given these patients, under Jeffreys' prior: it stays within the scale where no alert was false.
    Sources: Mercaldo ND, Lau KF, Zhou XH. Confidence intervals for predictive values with an emphasis to case-control
    studies. Stat Med 2007;26:2170-2183, doi:10.1002/sim.2677; Brown LD, Cai TT, DasGupta A. Interval estimation for a
    binomial proportion. Stat Sci 2001;16:101-133.
    """
    events, non_events = int(y.sum()), int(len(y) - y.sum())
    if min(events, non_events) < SMALLEST_CELL:
        return None
    alert = risk >= threshold
    caught, alarmed = int(alert[y == 1].sum()), int(alert[y == 0].sum())
    generator = np.random.default_rng(seed)
    sensitivity = generator.beta(caught + 0.5, events - caught + 0.5, DRAWS)
    alarms = generator.beta(alarmed + 0.5, non_events - alarmed + 0.5, DRAWS)

    def figures(sensitivity: Array, alarms: Array) -> dict[str, Array]:
        with np.errstate(invalid="ignore"):  # of nobody alerted, or everybody, a share is NaN
            found, false_alarms = sensitivity * prevalence, alarms * (1 - prevalence)
            missed, spared = prevalence - found, 1 - prevalence - false_alarms
            return {
                "ppv": found / (found + false_alarms),
                "npv": spared / (missed + spared),
                "alerts": SCREENED * (found + false_alarms),
                "found": SCREENED * found,
            }

    values = figures(np.array([caught / events]), np.array([alarmed / non_events]))
    made: dict[str, Estimate | None] = {}
    for name, drawn in figures(sensitivity, alarms).items():
        value, (low, high) = float(values[name][0]), np.percentile(drawn, [2.5, 97.5])
        # at no or every patient the value is the end of the scale, which no draw reaches
        made[name] = Estimate(value, min(float(low), value), max(float(high), value)) if np.isfinite(value) else None
    return Screened(**made)  # type: ignore[arg-type]  # alerts and found always have a value


def judged(
    spec: Spec, y: Array, risk: Array, stage: NDArray[np.str_] | None, thresholds: Mapping[str, float]
) -> list[Finding]:
    """MM050 to MM053, as far as the spec names a stage or where the disease is screened for. None of them is judged."""
    found = [] if stage is None else list(_stages(y, risk, stage, thresholds))
    return (
        found if spec.screening is None else [*found, *_screening(spec.screening, y, risk, thresholds, spec.split.seed)]
    )


def drawn(
    spec: Spec, y: Array, risk: Array, stage: NDArray[np.str_] | None, thresholds: Mapping[str, float]
) -> dict[str, Any]:
    """The same as the review page draws it."""
    stages: Sequence[dict[str, Any]] = ()
    if stage is not None:
        stages = [
            {"point": point, **asdict(one)}
            for point, threshold in thresholds.items()
            for one in by_stage(y, risk, stage, threshold)
        ]
    if spec.screening is None:
        return {"stages": stages}
    points = [
        {"name": point, "study_ppv": utility(y, risk, threshold).ppv, **asdict(made)}
        for point, threshold in thresholds.items()
        if (made := screened(y, risk, threshold, spec.screening.prevalence, spec.split.seed)) is not None
    ]
    held = {**spec.screening.model_dump(), "study_prevalence": float(y.mean()), "points": points}
    return {"stages": stages, "screening": held if points else {}}


def _stages(y: Array, risk: Array, stage: NDArray[np.str_], thresholds: Mapping[str, float]) -> Iterator[Finding]:
    for point, threshold in thresholds.items():
        for one in by_stage(y, risk, stage, threshold):
            title = f"sensitivity at {point}, stage {one.stage}"
            if one.sensitivity is None or one.low is None or one.high is None:
                yield Finding("MM050", title, "not applicable", None, None, one.why or "")
            else:
                about = f"risk >= {threshold:.3f}, {one.n} patients of this stage"
                yield gated("MM050", title, one.sensitivity, (one.low, one.high), None, about)


def _screening(
    screening: Screening, y: Array, risk: Array, thresholds: Mapping[str, float], seed: int
) -> Iterator[Finding]:
    where = f"where {100 * screening.prevalence:.3g} % have the disease"
    for point, threshold in thresholds.items():
        titles = {
            "MM051": f"PPV at {point} {where}",
            "MM052": f"NPV at {point} {where}",
            "MM053": f"alerts of {SCREENED:,} screened at {point}",
        }
        made = screened(y, risk, threshold, screening.prevalence, seed)
        if made is None:
            why = f"{UNTOLD} patients with the event, or without"
            yield from (Finding(code, title, "not applicable", None, None, why) for code, title in titles.items())
            continue
        study = utility(y, risk, threshold)
        beside = {"MM051": study.ppv, "MM052": study.npv}
        for code, estimate in (("MM051", made.ppv), ("MM052", made.npv)):
            of_study = beside[code]
            about = (
                f"{'undefined' if of_study is None else f'{of_study:.3f}'} in the study, where {y.mean():.1%} have it; "
                f"if sensitivity and specificity are the study's; {screening.source}"
            )
            ends = None if estimate is None else estimate.ends
            yield gated(code, titles[code], None if estimate is None else estimate.value, ends, None, about)
        diseased = SCREENED * screening.prevalence
        about = (
            f"{made.found.value:,.0f} ({made.found.low:,.0f} to {made.found.high:,.0f}) of the {diseased:,.0f} with "
            f"the disease are found, {diseased - made.found.value:,.0f} missed, and "
            f"{made.alerts.value - made.found.value:,.0f} alerts are false"
        )
        yield gated("MM053", titles["MM053"], made.alerts.value, made.alerts.ends, None, about)
