"""The validation's findings: every figure beside the gate that the Spec wrote before the first run."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.spec import Bound, Outcome, Spec
from evidence import probes
from evidence.calibration import brier_decomposition, ici
from evidence.comparison import Paired, delong, delong_interval
from evidence.metrics import METRICS, Array, auroc, interval, wilson
from evidence.probes import Change, worst
from evidence.report import Finding, Report, Verdict
from evidence.sample_size import Criterion, criteria, r2_of_nothing_known
from evidence.subgroups import FEWEST_PATIENTS, SMALLEST_CELL, Subgroup, equalized_odds_difference, subgroups
from evidence.utility import Utility, decision_curve, utility
from features import build
from features.cohort import Cohort
from features.outcomes import CENSORED
from models.bundle import Bundle
from models.family import Fitted
from models.predict import TOLERANCE, Predictor

METRIC_CODES = {
    "auroc": ("MM001", "AUROC"),
    "auprc": ("MM002", "AUPRC"),
    "brier": ("MM003", "Brier score"),
    "log_loss": ("MM004", "log loss"),
    "observed_over_expected": ("MM005", "observed / expected events"),
    "calibration_slope": ("MM006", "calibration slope"),
    "calibration_intercept": ("MM007", "calibration intercept"),
}

LABELS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "alerts_per_100": "alerts per 100 patients",
}
BRIER_BINS = 10
BESIDE_GATES = {"MM011", "MM022", "MM025", "MM026", "MM032", "MM033", "MM034", "MM035", "MM036", "MM047"}
"""Findings with a limit that no gate of the spec set: they may fail a report, and are no evidence that it is good."""
FEWEST_ELSEWHERE = 10
"""Fewer events or non-events than this and an AUROC's interval covers most of its scale; our own floor.

A hundred of each are what is recommended (Vergouwe et al. J Clin Epidemiol 2005;58:475-483).
"""


def judge(
    bundle: Bundle,
    cohort: Cohort,
    test_risk: Array,
    external_risk: Array,
    yardsticks: Mapping[str, Array],
    further: Sequence[Finding] = (),
) -> Report:
    """The validation report of a bundle.

    `test_risk` and `external_risk` are its risks for the cohort's test and external patients, in order; `yardsticks`
    holds, for each family of `gates.not_worse_than`, the test patients' log-odds from that family fitted alike.
    `further` findings are those that take more than its risks to make (evidence/case.py).
    """
    spec = bundle.spec
    test = cohort.only("test")
    seed = spec.split.seed
    findings = [_metric(spec, name, test.y, test_risk) for name in METRICS]
    groups = subgroups(test.attributes, test.y, test_risk, seed, bundle.thresholds)
    findings.append(worst_subgroup(groups, spec.gates.worst_subgroup_auroc))
    findings += [_subgroup(group) for group in groups]
    findings += [
        _not_worse(name, margin, test.y, test_risk, yardsticks[name])
        for name, margin in (spec.gates.not_worse_than or {}).items()
    ]
    findings.append(_parity(bundle.training["parity"]))
    for point, threshold in bundle.thresholds.items():
        findings.append(_operating_point(point, threshold, utility(test.y, test_risk, threshold)))
    findings += calibrated(spec, test.y, test_risk)
    findings += useful(bundle, test.y, test_risk)
    findings.append(equal_odds(spec, groups, bundle.thresholds))
    findings += _external(cohort.only("external"), external_risk, seed)
    findings += further
    findings.append(_gates_judged(findings))
    return Report(spec.name, "validation", bundle.digest, cohort.fingerprint, tuple(findings))


def judge_elsewhere(
    bundle: Bundle,
    data: str,
    y: Array,
    risk: Array,
    attributes: Mapping[str, NDArray[np.str_]],
    learned_from: int | None,
    further: Sequence[Finding] = (),
) -> Report:
    """What the bundle's risks (n,) are worth for patients of somewhere else, by the same gates; `data` names them.

    `learned_from`: how many of them the bundle learned from; None where that cannot be known. `further` as of `judge`.
    """
    spec = bundle.spec
    findings = [_metric(spec, name, y, risk) for name in METRICS]
    if learned_from is not None:
        about = f"of {len(y)} patients; they say nothing of others"
        seen = Bound(low=None, high=0.0)
        findings.append(_figure("MM034", "patients whom the model learned from", float(learned_from), seen, about))
    groups = subgroups(attributes, y, risk, spec.split.seed, bundle.thresholds)
    findings.append(worst_subgroup(groups, spec.gates.worst_subgroup_auroc))
    findings += [_subgroup(group) for group in groups]
    findings += calibrated(spec, y, risk)
    findings += useful(bundle, y, risk)
    findings.append(equal_odds(spec, groups, bundle.thresholds))
    findings += further
    findings.append(_gates_judged(findings))
    return Report(spec.name, "external validation", bundle.digest, data, tuple(findings))


def calibrated(spec: Spec, y: Array, risk: Array) -> list[Finding]:
    """MM017 to MM021: how far the risks lie from what is observed, smoothed, and the Brier score in its parts."""
    about = f"{len(y)} patients, {int(y.sum())} events"
    far = dict(zip(("ICI", "E50", "E90"), ici(y, risk), strict=True))
    found = [
        _figure("MM017", "ICI", far["ICI"], spec.gates.ici, f"mean distance of risk and smoothed outcome; {about}"),
        _figure("MM018", "E50", far["E50"], None, f"median of the same distances; {about}"),
        _figure("MM019", "E90", far["E90"], None, f"90th percentile of the same distances; {about}"),
    ]
    parts = brier_decomposition(y, risk, BRIER_BINS)
    told = (
        f"Brier score = reliability - resolution + uncertainty {parts.uncertainty:.3f} + what differs within "
        f"{BRIER_BINS} bins"
    )
    found.append(_figure("MM020", "Brier score, reliability", parts.reliability, None, f"lower is better; {told}"))
    found.append(_figure("MM021", "Brier score, resolution", parts.resolution, None, f"higher is better; {told}"))
    return found


def useful(bundle: Bundle, y: Array, risk: Array) -> list[Finding]:
    """MM022, every figure of each operating point, and MM023, net benefit where anybody would act."""
    found = []
    for point, threshold in bundle.thresholds.items():
        promised, acted = bundle.spec.operating_points.get(point), utility(y, risk, threshold)
        for figure, label in LABELS.items():
            value, limit = getattr(acted, figure), getattr(promised, figure, None)
            bound = None if limit is None else Bound(low=limit, high=None, by_interval=True)
            title, about = f"operating point {point}: {label}", f"risk >= {threshold:.3f}, {len(y)} patients"
            if value is None:
                limited = bound.text if bound else None
                found.append(Finding("MM022", title, "not applicable", None, limited, f"nobody on that side; {about}"))
            else:
                found.append(_figure("MM022", title, value, bound, about, acted.intervals.get(figure)))
    return [*found, _net_benefit(bundle.spec, y, risk)]


def _net_benefit(spec: Spec, y: Array, risk: Array) -> Finding:
    title, bound = "net benefit over the better of treating all and none", spec.gates.net_benefit
    if spec.relevant_thresholds is None:
        why = "the spec names no `relevant_thresholds`, the risks at which anybody would act"
        return Finding("MM023", title, "not applicable", None, None, why)
    low, high = spec.relevant_thresholds
    curve = decision_curve(y, risk, np.linspace(low, high, 51))
    gain = curve.model - np.maximum(curve.treat_all, curve.treat_none)
    at = int(np.argmin(gain))
    helps = float((gain > 0).mean())
    about = (
        f"the least, at a threshold of {curve.threshold[at]:.2f} of {low:g} to {high:g}; above 0 at {helps:.0%} of them"
    )
    return _figure("MM023", title, float(gain[at]), bound, about)


def equal_odds(spec: Spec, groups: Sequence[Subgroup], points: Iterable[str]) -> Finding:
    """MM024: the largest gap between two subgroups in sensitivity or in false alarms, over attributes and points."""
    title, bound = "equalized odds difference", spec.gates.equalized_odds_difference
    attributes = dict.fromkeys(group.attribute for group in groups)
    gaps = [equalized_odds_difference(groups, attribute, point) for attribute in attributes for point in points]
    known = [gap for gap in gaps if gap.value is not None]
    if not known:
        why = "; ".join(gap.about for gap in gaps) or "the spec has no attributes"
        return Finding("MM024", title, "not applicable", None, bound.text if bound else None, why)
    worst = max(known, key=lambda gap: gap.value or 0.0)
    return _figure("MM024", title, worst.value, bound, f"{worst.about}; the largest of {len(known)} comparisons")


def against(y: Array, risk: Array, shown: str, champion: Array | None, why: str, logistic: Array) -> list[Finding]:
    """MM015 and MM016: AUROC against the champion (`why` it cannot be compared) and the logistic yardstick."""
    title = "AUROC against the champion"
    if champion is None:
        found = [Finding("MM015", title, "not applicable", None, None, why)]
    else:
        found = [_delong("MM015", title, shown, delong(y, risk, champion))]
    yardstick = "logistic, fitted on the same patients,"
    return [*found, _delong("MM016", "AUROC against logistic, by DeLong", yardstick, delong(y, risk, logistic))]


def _delong(code: str, title: str, shown: str, paired: Paired) -> Finding:
    p = "no test could be made" if paired.p is None else f"DeLong p {paired.p:.2g}"
    about = f"{shown} reaches {paired.b:.3f}, this one {paired.a:.3f} on the same test patients; {p}"
    spread = None if paired.low is None or paired.high is None else (paired.low, paired.high)
    return _figure(code, title, paired.difference, None, about, spread)


def certain(predictor: Predictor, test: Cohort, risks: Array) -> list[Finding]:
    """MM025 to MM028: do the prediction sets hold what happened as often as promised, and how often is it silent."""
    rule, sets = predictor.spec.uncertainty, predictor.sets(risks)
    if rule is None or sets is None:
        why = "the spec has no `uncertainty`, so the model has no prediction sets"
        return [
            Finding(code, title, "not applicable", None, None, why)
            for code, title in (
                ("MM025", "coverage of the prediction sets"),
                ("MM026", "coverage by outcome"),
                ("MM027", "coverage by subgroup"),
                ("MM028", "patients for whom no band is told"),
            )
        ]
    found = []
    for code, title, rows in _covered(predictor.spec.outcome, test):
        covered, n = _coverage(sets[rows], test.target[rows])
        # No set is made for a subgroup: of many, some miss it by chance.
        least = None if code == "MM027" else least_covered(predictor.bundle, title, n, rule.coverage)
        bound = None if least is None else Bound(low=least, high=None)
        if n < FEWEST_PATIENTS:
            few = f"{n} patients" if n >= SMALLEST_CELL else f"fewer than {SMALLEST_CELL} patients"
            about = f"{few}, at least {FEWEST_PATIENTS} are needed"
            found.append(Finding(code, title, "not applicable", None, bound.text if bound else None, about))
        else:
            counted = "" if code == "MM027" else f"{n} patients; "  # counts by subgroup are MM009's to tell
            about = f"{counted}class-conditional sets for {rule.coverage:.0%}"
            found.append(_figure(code, title, covered / n, bound, about, wilson(covered, n)))
    silent = silence(predictor, test, risks)
    one_left = float((sets.sum(axis=1) == 1).mean())
    about = f"by the spec's rule, of {len(test)} patients; {one_left:.0%} have one outcome left"
    return [*found, _figure("MM028", "patients for whom no band is told", silent, None, about)]


def coverage(predictor: Predictor, test: Cohort, risks: Array) -> list[dict[str, Any]]:
    """The coverage of the prediction sets, of all, by outcome and by subgroup, as the review page draws it."""
    rule, sets = predictor.spec.uncertainty, predictor.sets(risks)
    if rule is None or sets is None:
        return []
    found = []
    for code, title, rows in _covered(predictor.spec.outcome, test):
        covered, n = _coverage(sets[rows], test.target[rows])
        if n >= FEWEST_PATIENTS:
            low, high = wilson(covered, n) or (None, None)
            group = title.removeprefix("coverage of the prediction sets").removeprefix(", ") or "all"
            shown = n if code != "MM027" else None
            about = {"group": group, "n": shown, "coverage": covered / n, "low": low, "high": high}
            silent = silence(predictor, test.where(rows), risks[rows])
            found.append({**about, "nominal": rule.coverage, "abstained": silent})
    return found


def silence(predictor: Predictor, patients: Cohort, risks: Array) -> float:
    """The share of the patients whom the spec's rule tells no band. Columns that are no features count as known."""
    plan = predictor.plan
    columns = [plan.places(name).start for name in plan.names if name in predictor.spec.columns]
    gone = np.isnan(patients.X[:, columns]).sum(axis=1).tolist()
    why = predictor.abstains(risks, [["missing"] * count for count in gone])
    return float("nan") if why is None or not why else sum(reason is not None for reason in why) / len(why)


def _covered(outcome: Outcome, test: Cohort) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Whose coverage is looked at: code, title and rows (n,) of everybody, each outcome or class, each subgroup."""
    title = "coverage of the prediction sets"
    yield "MM025", title, np.ones(len(test), bool)
    for place, name in enumerate(outcome.classes or ("no event", "event")):
        yield "MM026", f"{title}, {name}", test.target == place
    for attribute, labels in test.attributes.items():
        for label in sorted(set(labels.tolist())):
            yield "MM027", f"{title}, {attribute} {label}", labels == label


def least_covered(bundle: Bundle, title: str, n: int, coverage: float) -> float:
    """The lowest coverage among `n` test patients that chance still explains, where the sets keep their promise.

    What the thresholds of m calibration patients cover is itself drawn, from Beta(k, m + 1 - k), k = ceil((m + 1)
    coverage); of n new patients it is a beta-binomial. A chance of 2.5 % is shared among the findings, that of all and
    one for each outcome or class.
    Source: Vovk V. Conditional validity of inductive conformal predictors. ACML 2012.
    """
    from scipy.stats import betabinom

    learned = bundle.training["patients"]["train"]
    by_title = learned.get("classes") or {"no event": learned["n"] - learned["events"], "event": learned["events"]}
    m = by_title.get(title.rpartition(", ")[2], learned["n"])
    k = min(math.ceil((m + 1) * coverage), m)
    return float(betabinom.ppf(0.025 / (1 + len(by_title)), n, k, m + 1 - k)) / n if n else 0.0


def _coverage(sets: NDArray[np.bool_], target: Array) -> tuple[int, int]:
    """How many sets (n, K) hold what happened (n,), and of how many."""
    return int(sets[np.arange(len(target)), target.astype(np.int64)].sum()), len(target)


def robust(spec: Spec, changes: Mapping[str, Sequence[Change]]) -> list[Finding]:
    """MM029 to MM031: the worst that a missing value, another unit and noise do to the AUROC."""
    return [
        _spoilt("MM029", "AUROC when an input is missing", spec, changes["missing"], "it is missing for everybody"),
        _spoilt("MM030", "AUROC when a unit is mistaken", spec, changes["unit slip"], "it is in another unit"),
        _spoilt(
            "MM031", "AUROC under noise", spec, changes["noise"], "a tenth of each number's spread is added as noise"
        ),
    ]


def _spoilt(code: str, title: str, spec: Spec, changes: Sequence[Change], how: str) -> Finding:
    bound = spec.gates.robustness
    change = worst(changes)
    if change is None:
        why = "the contract refuses every such fault" if changes else "no input can be spoilt so"
        return Finding(code, title, "not applicable", None, bound.text if bound else None, why)
    caught = f"; the contract refuses {change.refused:.0%} of such values" if change.refused else ""
    of = f"the worst of {len(changes)}: {change.name}" if change.name else "all numbers at once"
    spread = None if change.low is None or change.high is None else (change.low, change.high)
    return _figure(code, title, change.change, bound, f"{of}, {how}{caught}", spread)


def leaks(
    bundle: Bundle, cohort: Cohort, fit: Callable[[Cohort], Fitted], fit_plain: Callable[[Cohort], Fitted]
) -> list[Finding]:
    """MM032 to MM036, and MM055: whether the model knows the answer by a door that should be shut."""
    spec = bundle.spec
    none, inside = Bound(low=None, high=0.0), cohort.where(cohort.part != "external")
    plan = build.plan(spec)
    name, alone = max(probes.single_feature(plan, cohort), key=lambda found: found[1])
    limit = spec.gates.single_feature_auroc or Bound(low=None, high=probes.LEAKS)
    later = probes.measured_later(cohort)
    chance_pairs = probes.shared_by_chance(replace(cohort, X=plan.summary(cohort.X)))
    about_rows = f"of {probes.distinct_rows(cohort)} distinct rows; {chance_pairs:.2g} would be alike by chance"
    permuted = probes.label_permutation(inside, fit, spec.split.seed)
    chance = Bound(low=permuted.low, high=permuted.high)
    found = [_figure("MM032", "AUROC of the best single feature", alone, limit, f"{name} alone")]
    if later is None:
        why = "the spec has no `at`, or no column says when it was `measured_at`"
        found.append(Finding("MM033", "values measured after the prediction", "not applicable", None, none.text, why))
    else:
        found.append(_figure("MM033", "values measured after the prediction", float(later[0]), none, later[1]))
    shared = float(probes.shared_patients(cohort))
    found.append(_figure("MM034", "patients in more than one part", shared, none, f"of {len(set(cohort.patient))}"))
    alike = float(probes.shared_rows(cohort))
    by_chance = chance_pairs >= 0.5  # coarse features: two patients may agree in all of them
    found.append(_figure("MM035", "rows alike in more than one part", alike, None if by_chance else none, about_rows))
    about = f"{bundle.training['family']}, fitted on permuted labels {probes.PERMUTATIONS} times: 0.5 is chance"
    found.append(_figure("MM036", "AUROC of permuted labels", permuted.auroc, chance, about))
    return [*found, _absence(bundle, replace(inside, X=plan.summary(inside.X), signals=()), fit_plain)]


def _absence(bundle: Bundle, cohort: Cohort, fit: Callable[[Cohort], Fitted]) -> Finding:
    title, told = "AUROC of what is missing alone", probes.absence(cohort, fit)
    if told is None:
        return Finding("MM055", title, "not applicable", None, None, "nothing is missing")
    value, ends = told
    about = f"{probes.plain_family(bundle.training['family'])}, fitted on which features are missing, without a value"
    return _figure("MM055", title, value, None, about, ends)


def sizes(bundle: Bundle, cohort: Cohort) -> Finding:
    """MM037: what Riley's criteria ask of the training part, and what there is. A warning, never a gate."""
    n, parameters, asked = _asked(bundle, cohort)
    title = "patients needed by Riley's criteria"
    if not asked:
        about = f"{n} training patients; the criteria count plain predictors, and the model reads signals as a whole"
        return Finding("MM037", title, "not applicable", None, None, about)
    told = "; ".join(f"{one.title}: {one.needed if one.why is None else one.why}" for one in asked)
    needed = max((one.needed for one in asked if one.needed is not None), default=None)
    enough = needed is not None and n >= needed
    about = (
        f"{'enough' if enough else 'warning: fewer than asked for'}: {n} training patients, {parameters} candidate "
        f"parameters, if nothing is known of the model beforehand ({told})"
    )
    value = None if needed is None else float(needed)
    return Finding("MM037", title, "not applicable", value, None, about)


def censored(cohort: Cohort) -> list[Finding]:
    """MM056: the share left out because the record ends before the horizon, and what the event's share may be for all.

    A short record that holds the event stays in and one that does not is left out, so the cohort's share, and with it
    every risk, lies above that of all who come. Nothing where nobody was left out.
    """
    lost = cohort.dropped.get(CENSORED, 0)
    if not lost:
        return []
    events, everybody = int(cohort.y.sum()), len(cohort) + lost
    about = (
        f"warning: {lost} of {everybody} patients; whose short record holds the event stays in, so risks are too high "
        f"for all who come: {events / len(cohort):.1%} of the others have it, {events / everybody:.1%} of all if none "
        "of those left out had"
    )
    return [_figure("MM056", "left out as censored before the horizon", lost / everybody, None, about)]


def asked_by_riley(bundle: Bundle, cohort: Cohort) -> list[dict[str, Any]]:
    """Each of Riley's criteria, the patients it asks for, and the training part's."""
    n, _, asked = _asked(bundle, cohort)
    return [{"criterion": one.title, "needed": one.needed, "have": n} for one in asked]


def _asked(bundle: Bundle, cohort: Cohort) -> tuple[int, int, Sequence[Criterion]]:
    """The training part's patients, the candidate parameters, and what each criterion asks for; nothing of signals."""
    learned, plan = cohort.only("train"), build.plan(bundle.spec)
    prevalence = float(learned.y.mean())
    parameters = sum(max(len(feature.categories) - 1, 1) for feature in plan.features)
    if plan.signals:
        return len(learned), parameters, ()
    return len(learned), parameters, criteria(parameters, prevalence, r2_of_nothing_known(prevalence))


def left_out(sites: Mapping[str, tuple[Array, Array]]) -> list[Finding]:
    """MM038: each site's AUROC, of a model of all the other sites."""
    title = "AUROC with the site left out"
    if not sites:
        return [Finding("MM038", title, "not applicable", None, None, "the cohort does not come from two sites")]
    found = []
    for site, (y, risk) in sites.items():
        events, non_events = int(y.sum()), int(len(y) - y.sum())
        if min(events, non_events) < FEWEST_ELSEWHERE:
            few = f"{events} events and {non_events} non-events, at least {FEWEST_ELSEWHERE} of each are needed"
            found.append(Finding("MM038", f"{title}: {site}", "not applicable", None, None, few))
        elif not np.isfinite(risk).all():
            few = "the other sites have too few patients of a class to learn from"
            found.append(Finding("MM038", f"{title}: {site}", "not applicable", None, None, few))
        else:
            about = f"{len(y)} patients, {events} events where {risk.sum():.0f} were expected; learned from the others"
            found.append(_figure("MM038", f"{title}: {site}", auroc(y, risk), None, about, delong_interval(y, risk)))
    return found


def _figure(
    code: str,
    title: str,
    value: float | None,
    bound: Bound | None,
    about: str,
    spread: tuple[float, float] | None = None,
) -> Finding:
    """`gated`, with the interval last, which most figures do not have."""
    return gated(code, title, value, spread, bound, about)


def _metric(spec: Spec, name: str, y: Array, risk: Array) -> Finding:
    code, title = METRIC_CODES[name]
    value = METRICS[name](y, risk)
    bound: Bound | None = getattr(spec.gates, name)
    patients = f"{len(y)} patients, {int(y.sum())} events"
    if not np.isfinite(value):
        verdict, why = ("failed" if bound else "not applicable"), f"cannot be computed on {patients}"
        return Finding(code, title, verdict, None, bound.text if bound else None, why)  # type: ignore[arg-type]
    spread = interval(METRICS[name], y, risk, spec.split.seed)
    return gated(code, title, value, spread, bound, patients)


def gated(
    code: str, title: str, value: float | None, spread: tuple[float, float] | None, bound: Bound | None, about: str
) -> Finding:
    """A figure against its gate, or as it is; what cannot be computed fails a gate and is never a number."""
    if value is None or not np.isfinite(value):
        verdict: Verdict = "failed" if bound else "not applicable"
        return Finding(code, title, verdict, None, bound.text if bound else None, f"cannot be computed: {about}")
    value = float(value)
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
    about = f"{worst.attribute} {worst.label}, {worst.n} patients; {len(judged)} of {len(groups)} subgroups judged"
    assert worst.auroc is not None
    return gated("MM008", "worst subgroup's AUROC", worst.auroc, worst.interval, bound, about)


def _subgroup(group: Subgroup) -> Finding:
    why = group.why or f"no gate of its own; {group.counted}"
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
    of_the_spec = [finding for finding in findings if finding.limit is not None and finding.code not in BESIDE_GATES]
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
        about = group.why or f"{group.counted}, {events} events where {expected:.0f} were expected"
        title = f"AUROC at the external site {site}"
        about = f"{about}; shown as it is" if not group.why else about
        findings.append(Finding("MM013", title, "not applicable", group.auroc, None, about, group.interval))
    return findings
