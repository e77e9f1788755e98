"""A retrained model beside the champion on the same patients: is it better, and by more than chance.

The gates of a spec are for a first release. A candidate is judged against who answers now: on patients among whom
neither reaches a gate, the better calibrated of the two still serves them better.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from configs.spec import Retrain
from evidence import comparison
from evidence.checks import BESIDE_GATES
from evidence.comparison import Paired, delong, paired_interval
from evidence.metrics import METRICS, Array
from evidence.report import Finding, Report, Verdict
from evidence.subgroups import SMALLEST_CELL

TITLES = {"log_loss": "log loss", "brier": "Brier score"}
OF_A_RELEASE = BESIDE_GATES & {"MM025", "MM026", "MM022"}
"""Findings with a limit that hold for patients like those of the training part, not for newest ones of elsewhere."""


def judge(case: Report, asked: Retrain, against: Mapping[str, Any], findings: Sequence[Finding]) -> Report:
    """The report of a retrained bundle: its whole case on the newest patients, judged by `findings`, from `compare`.

    A figure's gate is shown and not judged; what would make any model untrustworthy (a leak, another export) still
    fails it. `against` names the champion, and holds the figures of both: {"version", "bundle", "paired"}.
    """
    shown = [_shown(finding) for finding in case.findings]
    figures = {**case.figures, "retraining": {**against, "score": asked.score}}
    return replace(case, kind="retraining", findings=(*findings, *shown), figures=figures)


def compare(asked: Retrain, y: Array, candidate: Array, champion: Array, seed: int) -> list[Finding]:
    """MR001 to MR003: the candidate against the champion, whose risks are of the same patients, in order.

    `y` (n,) is 0 or 1. With fewer events or non-events than asked for, nothing is judged, and MR003 fails.
    """
    events = int(y.sum())
    non_events = len(y) - events
    enough = events >= asked.min_events and non_events >= asked.min_non_events
    limit = f">= {asked.min_events} events and {asked.min_non_events} non-events"
    few = min(events, non_events) < SMALLEST_CELL
    about = f"fewer than {SMALLEST_CELL} events or non-events" if few else f"{events} events, {non_events} non-events"
    about = f"{about} among the same {len(y)} patients"
    counted = Finding("MR003", "patients to compare on", "passed" if enough else "failed", float(len(y)), limit, about)
    score = paired_interval(METRICS[asked.score], y, candidate, champion, seed)
    return [
        _score(TITLES[asked.score], score, enough),
        _auroc(delong(y, candidate, champion), asked.auroc_drop, enough),
        counted,
    ]


def better(findings: Sequence[Finding]) -> bool | None:
    """Whether the candidate is better by these findings of `compare`; None where there are too few to say."""
    judged = {finding.code: finding.verdict for finding in findings}
    if judged["MR003"] != "passed":
        return None
    return judged["MR001"] == judged["MR002"] == "passed"


def paired(y: Array, candidate: Array, champion: Array, seed: int) -> dict[str, dict[str, float | None]]:
    """Every figure of both and their difference with its interval, as plain JSON: evidence to keep."""
    return {name: pair.document for name, pair in comparison.figures(y, candidate, champion, seed).items()}


def worse(asked: Retrain, y: Array, new: Array, old: Array, seed: int) -> str | None:
    """Why the new champion is worse than the old one on these patients, by more than chance; None: it is not."""
    pair = paired_interval(METRICS[asked.score], y, new, old, seed)
    if pair.low is None or not pair.low > 0:
        return None
    return f"{_told(TITLES[asked.score], pair)}: worse than the earlier champion's on the same {len(y)} patients"


def _score(title: str, pair: Paired, enough: bool) -> Finding:
    """Lower is better: the whole interval of the difference lies below 0."""
    verdict: Verdict = "failed" if pair.high is None or not pair.high < 0 else "passed"
    return Finding(
        "MR001",
        f"{title} less the champion's",
        verdict if enough else "not applicable",
        _finite(pair.difference),
        "its interval < 0",
        _told(title, pair),
        None if pair.low is None or pair.high is None else (pair.low, pair.high),
    )


def _auroc(pair: Paired, drop: float, enough: bool) -> Finding:
    verdict: Verdict = "passed" if pair.difference >= -drop else "failed"  # a NaN fails
    return Finding(
        "MR002",
        "AUROC less the champion's",
        verdict if enough else "not applicable",
        _finite(pair.difference),
        f">= {-drop:g}",
        _told("AUROC", pair),
        None if pair.low is None or pair.high is None else (pair.low, pair.high),
    )


def _told(title: str, pair: Paired) -> str:
    spread = "" if pair.low is None else f" ({pair.low:+.3f} to {pair.high:+.3f})"
    return f"{title} {pair.a:.3f}, the other's {pair.b:.3f}, difference {pair.difference:+.3f}{spread}"


def _shown(finding: Finding) -> Finding:
    """A finding of the case as a retrained model's report has it."""
    if finding.limit is None or (finding.code in BESIDE_GATES and finding.code not in OF_A_RELEASE):
        return finding
    about = f"for a first release {finding.limit} is asked for; {finding.explanation}"
    return replace(finding, verdict="not applicable", limit=None, explanation=about)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
