"""A version held against the predetermined change control plan: may it be promoted by itself, or does it wait for whom.

The champion's own plan decides: a plan that is itself changed was not predetermined. Approvals are asked for by that
plan and by the version's own, so that nobody loosens both at once.
"""

import math
from dataclasses import dataclass
from typing import Any

from configs.errors import BundleError, CohortError, PromotionError
from configs.settings import Settings
from configs.spec import ChangeControl, Within
from evidence import change
from evidence.comparison import Paired
from evidence.report import Report
from features import cohort
from ledger import promotions
from ledger.database import Engine
from ledger.promotions import Promotion
from models import bundle as bundles
from models.bundle import Bundle
from pipelines import compare


@dataclass(frozen=True)
class Judged:
    """`outside`: why the version is not promoted by itself, a phrase each; empty: it is inside the plan.

    `plans`: those whose approvals it needs where it is outside. `evidence`: what changed, and the paired figures.
    """

    outside: tuple[str, ...]
    plans: tuple[ChangeControl, ...]
    evidence: dict[str, Any]


def judge(
    engine: Engine, number: int, bundle: Bundle, report: Report, champion: Promotion | None, settings: Settings
) -> Judged:
    """Hold this version, with its report, against the champion and its plan."""
    own = bundle.spec.change_control
    if champion is None:
        outside = ("it would be the first champion, and its spec asks for approvals",) if own.approvals else ()
        return Judged(outside, (own,), {"champion": None, "changes": [], "outside": list(outside)})
    shown = f"{champion.model}@{champion.version}"
    evidence: dict[str, Any] = {"champion": shown, "champion_bundle": champion.bundle}
    try:
        before = bundles.get(champion.bundle, settings)
    except BundleError as exc:
        outside = (f"the champion {shown} cannot be read, so what changed is not known: {exc}",)
        return Judged(outside, (own,), {**evidence, "changes": None, "outside": list(outside)})
    plan = before.spec.change_control
    changes = change.between(before, bundle)
    found = [f"the plan does not allow {phrase}" for phrase in changes.outside(plan.allowed)]
    if promotions.ever(engine, champion.model, number, bundle.digest):
        found.append("it was champion before; going back to it is a person's decision")
    if not found:  # else it waits anyway, whatever the figures say
        paired, why = _paired(f"{champion.model}@{number}", bundle, report, shown, before, settings)
        evidence["paired"] = {name: pair.document for name, pair in paired.items()}
        if why is not None:
            evidence["not_compared"] = why
        if plan.within is not None:
            found += [why] if why is not None else _beyond(plan.within, paired)
    evidence |= {"changes": list(changes.told), "outside": found}
    return Judged(tuple(found), (plan, own), evidence)


def _paired(
    shown: str, bundle: Bundle, report: Report, shown_before: str, before: Bundle, settings: Settings
) -> tuple[dict[str, Paired], str | None]:
    """The version's figures beside the champion's on the same test patients, or why there are none."""
    if report.kind == "retraining":
        figures = report.figures["retraining"]["paired"]
        unknown = {"a": math.nan, "b": math.nan, "difference": math.nan}
        known = {
            name: {part: value for part, value in one.items() if value is not None} for name, one in figures.items()
        }
        empty = {"low": None, "high": None, "p": None}
        return {name: Paired(**{**empty, **unknown, **one}) for name, one in known.items()}, None
    try:
        patients = cohort.load(settings.data / "cohorts" / f"{report.name}.parquet")
        if patients.fingerprint != report.data:
            return {}, "the present cohort is not the one that its report judged, so the two cannot be compared on it"
        return compare.judge(shown, bundle, shown_before, before, patients).paired, None
    except (CohortError, PromotionError, BundleError) as exc:
        return {}, f"it cannot be compared with the champion: {exc}"


def _beyond(within: Within, paired: dict[str, Paired]) -> list[str]:
    """Each bound that the version does not keep; a figure that cannot be computed keeps none."""
    found = []
    if within.auroc_drop is not None and not -paired["auroc"].difference <= within.auroc_drop:
        found.append(_told("AUROC", paired["auroc"], f"may drop by {within.auroc_drop:g}"))
    if within.brier_rise is not None and not paired["brier"].difference <= within.brier_rise:
        found.append(_told("Brier score", paired["brier"], f"may rise by {within.brier_rise:g}"))
    if within.calibration_slope is not None:
        low, high = within.calibration_slope
        if not low <= paired["calibration_slope"].a <= high:
            found.append(_told("calibration slope", paired["calibration_slope"], f"may be {low:g} to {high:g}"))
    return found


def _told(figure: str, pair: Paired, bound: str) -> str:
    return f"its {figure} is {pair.a:.4g}, the champion's {pair.b:.4g} on the same test patients, and {bound}"
