"""The validation's findings, MM001 to MM014: every figure beside the gate that the Spec wrote before the first run."""

from collections.abc import Mapping

import numpy as np

from configs.spec import Bound, Spec
from evidence.metrics import METRICS, Array, auroc, interval
from evidence.report import Finding, Report
from evidence.subgroups import Subgroup, subgroups
from evidence.utility import Utility, utility
from features.cohort import Cohort
from models.bundle import Bundle
from models.predict import TOLERANCE

METRIC_CODES = {
    "auroc": ("MM001", "AUROC"),
    "auprc": ("MM002", "AUPRC"),
    "brier": ("MM003", "Brier score"),
    "log_loss": ("MM004", "log loss"),
    "observed_over_expected": ("MM005", "observed / expected events"),
    "calibration_slope": ("MM006", "calibration slope"),
    "calibration_intercept": ("MM007", "calibration intercept"),
}


def judge(
    bundle: Bundle, cohort: Cohort, test_risk: Array, external_risk: Array, yardsticks: Mapping[str, Array]
) -> Report:
    """The validation report of a bundle.

    `test_risk` and `external_risk` are its risks for the cohort's test and external patients, in order; `yardsticks`
    holds, for each family of `gates.not_worse_than`, the test patients' log-odds from that family fitted alike.
    """
    spec = bundle.spec
    test = cohort.only("test")
    seed = spec.split.seed
    findings = [_metric(spec, name, test.y, test_risk) for name in METRICS]
    groups = subgroups(test.attributes, test.y, test_risk, seed)
    findings.append(worst_subgroup(groups, spec.gates.worst_subgroup_auroc))
    findings += [_subgroup(group) for group in groups]
    findings += [
        _not_worse(name, margin, test.y, test_risk, yardsticks[name])
        for name, margin in (spec.gates.not_worse_than or {}).items()
    ]
    findings.append(_parity(bundle.training["parity"]))
    for point, threshold in bundle.thresholds.items():
        findings.append(_operating_point(point, threshold, utility(test.y, test_risk, threshold)))
    findings += _external(cohort.only("external"), external_risk, seed)
    findings.append(_gates_judged(findings))
    return Report(spec.name, "validation", bundle.digest, cohort.fingerprint, tuple(findings))


def _metric(spec: Spec, name: str, y: Array, risk: Array) -> Finding:
    code, title = METRIC_CODES[name]
    value = METRICS[name](y, risk)
    bound: Bound | None = getattr(spec.gates, name)
    patients = f"{len(y)} test patients, {int(y.sum())} events"
    if not np.isfinite(value):
        verdict, why = ("failed" if bound else "not applicable"), f"cannot be computed on {patients}"
        return Finding(code, title, verdict, None, bound.text if bound else None, why)  # type: ignore[arg-type]
    spread = interval(METRICS[name], y, risk, spec.split.seed)
    return gated(code, title, value, spread, bound, patients)


def gated(
    code: str, title: str, value: float, spread: tuple[float, float] | None, bound: Bound | None, about: str
) -> Finding:
    """A figure against its gate; without a gate it is shown as it is."""
    if bound is None:
        return Finding(
            code, title, "not applicable", value, None, f"no gate in the spec; shown as it is: {about}", spread
        )
    low, high = (spread or (value, value)) if bound.by_interval else (value, value)
    inside = (bound.low is None or high >= bound.low) and (bound.high is None or low <= bound.high)
    return Finding(code, title, "passed" if inside else "failed", value, bound.text, about, spread)


def worst_subgroup(groups: list[Subgroup], bound: Bound | None) -> Finding:
    """The lowest AUROC among the subgroups that are large enough to be judged."""
    judged = [group for group in groups if group.auroc is not None]
    if not judged:
        why = (
            "; ".join(f"{group.attribute} {group.label}: {group.why}" for group in groups)
            or "the spec has no attributes"
        )
        limit = bound.text if bound else None
        return Finding("MM008", "worst subgroup's AUROC", "not applicable", None, limit, why)
    worst = min(judged, key=lambda group: group.auroc or 0.0)
    about = f"{worst.attribute} {worst.label}, {worst.n} test patients; {len(judged)} of {len(groups)} subgroups judged"
    assert worst.auroc is not None
    return gated("MM008", "worst subgroup's AUROC", worst.auroc, worst.interval, bound, about)


def _subgroup(group: Subgroup) -> Finding:
    why = group.why or f"no gate of its own; {group.n} test patients"
    title = f"AUROC, {group.attribute} {group.label}"
    return Finding("MM009", title, "not applicable", group.auroc, None, why, group.interval)


def _not_worse(name: str, margin: float, y: Array, risk: Array, yardstick: Array) -> Finding:
    other = auroc(y, yardstick)
    gap = auroc(y, risk) - other
    title = f"AUROC against {name}"
    bound = Bound(low=-margin, high=None)
    if not np.isfinite(gap):
        return Finding("MM010", title, "failed", None, bound.text, f"cannot be computed on {len(y)} test patients")
    about = f"{name}, fitted on the same patients, reaches {other:.3f} on the same test patients"
    return gated("MM010", title, gap, None, bound, about)


def _gates_judged(findings: list[Finding]) -> Finding:
    """How many of the spec's gates were judged at all: a report in which none could be is no evidence."""
    of_the_spec = [finding for finding in findings if finding.limit is not None and finding.code != "MM011"]
    judged = sum(finding.verdict == "passed" for finding in of_the_spec)
    failed = sum(finding.verdict == "failed" for finding in of_the_spec)
    about = f"{judged} passed and {failed} failed; a gate that could not be judged counts for nothing"
    return gated("MM014", "gates judged", float(judged + failed), None, Bound(low=1, high=None), about)


def _parity(parity: float) -> Finding:
    about = "largest gap in risk between the exported and the fitted model, over every row and random valid records"
    return gated("MM011", "export parity", parity, None, Bound(low=None, high=TOLERANCE), about)


def _operating_point(point: str, threshold: float, at: Utility) -> Finding:
    said = ", ".join(
        f"{label} {'undefined' if value is None else format(value, '.3f')}"
        for label, value in (
            ("sensitivity", at.sensitivity),
            ("specificity", at.specificity),
            ("PPV", at.ppv),
            ("NPV", at.npv),
            ("net benefit", at.net_benefit),
            ("treat all", at.net_benefit_treat_all),
        )
    )
    about = f"risk >= {threshold:.3f}: {said}, {at.alerts_per_100:.0f} alerts per 100 test patients"
    return Finding("MM012", f"operating point {point}", "not applicable", threshold, None, about)


def _external(external: Cohort, risk: Array, seed: int) -> list[Finding]:
    """Each external site as it is: discrimination and calibration where nothing was learned."""
    findings = []
    for site in sorted(set(external.attributes.get("site", np.full(len(external), "external")).tolist())):
        rows = external.attributes["site"] == site if "site" in external.attributes else np.ones(len(external), bool)
        (group,) = subgroups({"site": np.full(int(rows.sum()), site)}, external.y[rows], risk[rows], seed)
        events, expected = int(external.y[rows].sum()), float(risk[rows].sum())
        about = group.why or f"{group.n} patients, {events} events where {expected:.0f} were expected"
        title = f"AUROC at the external site {site}"
        about = f"{about}; shown as it is" if not group.why else about
        findings.append(Finding("MM013", title, "not applicable", group.auroc, None, about, group.interval))
    return findings
