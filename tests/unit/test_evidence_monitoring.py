"""The window's findings: quiet without drift, loud with it, and never a crash."""

from dataclasses import replace
from html import escape

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from configs.spec import RetrainWhen, Uncertainty
from evidence import monitoring, page
from evidence.card import card
from evidence.report import Report
from models.conformal import Conformal
from models.predict import Predictor
from models.training import train

WINDOW = 150
NOW = 1.8e9


@pytest.fixture(scope="module")
def patients(disease_of, document):
    """Many more patients of the same kind as the model learned from."""
    many = disease_of(document, 6000, seed=99).cohort
    return many.where(many.part != "external")


@pytest.fixture
def judged(trained, predictor):
    """`judged(X, outcomes, site)`: the report of a window of these feature rows."""

    def judge(X, outcomes=None, site="north", skewed=0, refused=None) -> Report:
        n = len(X)
        known = np.full(n, np.nan) if outcomes is None else outcomes
        seen = monitoring.Seen(
            X=X,
            risk=predictor.risk(X),
            outcomes=known,
            attributes={"site": np.full(n, site)},
            received=NOW - np.arange(n, 0, -1.0),
            now=NOW,
            skewed=skewed,
            sampled=n,
            refused=refused or {},
        )
        return monitoring.judge(trained, f"{n} predictions", seen)

    return judge


def by_code(report, code):
    return [finding for finding in report.findings if finding.code == code]


def test_older_patients_are_found_as_drift_of_age_alone(patients, judged):
    old = patients.X[patients.X[:, 0] > 65][:WINDOW]

    report = judged(old)

    failed = {finding.title for finding in report.failed}
    assert "drift: age_years" in failed
    assert "drift: pain" not in failed


def test_a_column_missing_in_every_record_is_a_finding_with_the_site_named(patients, judged):
    X = patients.X[:WINDOW].copy()
    X[:, 2] = np.nan

    report = judged(X, site="east")

    (finding,) = (found for found in by_code(report, "MW002") if found.title == "missing: cholesterol_mg_dl")
    assert finding.verdict == "failed"
    assert "missing in every record" in finding.explanation
    assert "east 100%" in finding.explanation
    (drift,) = (found for found in by_code(report, "MW003") if found.title == "drift: cholesterol_mg_dl")
    assert drift.verdict == "not applicable"


@pytest.mark.parametrize("n", [1, 2, 9])
def test_of_fewer_than_ten_predictions_nothing_is_told_but_the_servers_state(n, patients, judged):
    """A mean of one patient's risk is that patient's risk, and a share missing of one tells what was missing."""
    report = judged(patients.X[:n], patients.y[:n], skewed=1, refused={("out_of_range", "age_years"): 3})

    assert [finding.code for finding in report.findings] == ["MW001", "MW005", "MW019"]
    assert report.figures == {}
    assert (report.findings[0].verdict, report.findings[0].value) == ("passed", None)
    assert report.findings[0].explanation == "fewer than 10 predictions"
    assert (report.findings[1].verdict, report.findings[1].value) == ("failed", None)
    assert "fewer than 10 predictions computed again" in report.findings[1].explanation
    assert Report.from_json(report.to_json()) == report


def test_a_window_of_ten_is_judged(patients, judged):
    report = judged(patients.X[:10])

    assert report.finding("MW001").value == 10
    assert {"MW002", "MW003", "MW004", "MW018"} < {finding.code for finding in report.findings}


def test_an_empty_window_is_a_failed_finding(trained):
    nothing = np.empty((0, 0), np.float32)
    none = np.empty(0)
    seen = monitoring.Seen(nothing, none, none, {}, none, NOW, 0, 0, {})

    report = monitoring.judge(trained, "an empty window", seen)

    assert [finding.code for finding in report.failed] == ["MW001"]
    assert {finding.verdict for finding in by_code(report, "MW007")} == {"not applicable"}


def test_outcomes_are_judged_only_when_there_are_enough(patients, judged):
    outcomes = patients.y[:WINDOW].copy()
    outcomes[19:] = np.nan

    few = judged(patients.X[:WINDOW], outcomes)
    many = judged(patients.X[:WINDOW], patients.y[:WINDOW])

    assert "19 outcomes are known, 20 are needed" in few.finding("MW007").explanation
    assert many.finding("MW007").verdict == "passed"
    assert many.finding("MW006").verdict == "passed"


def test_a_window_of_events_alone_has_no_auroc_and_no_crash(patients, judged):
    events = patients.X[patients.y == 1][:WINDOW]

    report = judged(events, np.ones(WINDOW))

    assert report.finding("MW007").verdict == "not applicable"
    assert report.finding("MW006").verdict == "failed"


def test_skew_between_training_and_serving_is_a_finding(patients, judged):
    assert judged(patients.X[:WINDOW], skewed=1).finding("MW005").verdict == "failed"


def test_p_values_are_scipys_own():
    before, now = [40, 30, 30], [10, 30, 60]

    assert monitoring.p_value(before, now) == pytest.approx(chi2_contingency([before, now])[1], abs=1e-12)
    assert monitoring.p_value([5, 5], [0, 0]) == 1.0
    assert monitoring.p_value([5, 0], [7, 0]) == 1.0


def test_the_stability_index_of_equal_histograms_is_zero_and_of_shifted_ones_is_its_textbook_sum():
    assert monitoring.stability_index([10, 20], [10, 20]) == 0
    expected = (0.7 - 0.5) * np.log(0.7 / 0.5) + (0.3 - 0.5) * np.log(0.3 / 0.5)
    assert monitoring.stability_index([50, 50], [70, 30]) == pytest.approx(expected, abs=1e-12)


def test_the_page_escapes_what_it_shows_and_holds_every_finding(patients, judged):
    report = judged(patients.X[:WINDOW])

    html = page.html(report, "<i>angina</i>", ["5 < 6"])

    assert "<i>" not in html
    assert "5 &lt; 6" in html
    assert all(escape(finding.explanation) in html for finding in report.findings)


def test_the_card_holds_facts_and_no_patient(trained, report_on, marker):
    told = card(trained, 3, report_on(trained.digest))

    assert told["version"] == 3
    assert told["intended_use"] == trained.spec.intended_use
    assert told["digests"]["bundle"] == trained.digest
    assert marker not in str(told)


# With outcomes, estimates, refusals, units, the clock; and what makes a retraining due.


def drawn(predictor, X, seed, shift=0.0):
    """Outcomes drawn from the risks, shifted on the scale of log-odds."""
    risk = predictor.risk(X)
    odds = np.log(risk / (1 - risk)) + shift
    return (np.random.default_rng(seed).random(len(X)) < 1 / (1 + np.exp(-odds))).astype(float)


WHEN = RetrainWhen(auroc=">= 0.70", observed_over_expected=[0.8, 1.25], calibration_slope=[0.5, 2])


def test_two_hundred_windows_without_drift_alarm_at_most_ten_times_and_retrain_nothing(patients, predictor, judged):
    dice, figures, alarmed = np.random.default_rng(11), [], 0
    for seed in range(200):
        X = patients.X[dice.integers(0, len(patients), WINDOW)]
        report = judged(X, drawn(predictor, X, seed))
        figures.append(report.figures)
        alarmed += any(finding.code not in monitoring.OF_OUTCOMES for finding in report.failed)
    assert alarmed <= 10
    for end in range(1, 201):
        assert monitoring.due(figures[:end], WHEN) == ()


def test_a_model_that_says_too_little_twice_in_a_row_is_due_and_a_single_time_is_not(patients, predictor, judged):
    X = patients.X[:WINDOW]
    good, bad = judged(X, drawn(predictor, X, 1)).figures, judged(X, drawn(predictor, X, 1, shift=2.0)).figures
    unknown = judged(X).figures
    assert monitoring.due([good, bad], WHEN) == ()
    (said,) = monitoring.due([good, bad, bad], WHEN)
    assert said.startswith("observed / expected events") and "above" in said
    assert monitoring.due([bad, good, bad], WHEN) == ()
    assert len(monitoring.due([bad, unknown, bad, unknown], WHEN)) == 1, "a window without outcomes says nothing"
    assert monitoring.due([], WHEN) == () == monitoring.due([bad], WHEN)


def test_drift_of_the_inputs_alone_makes_nothing_due(patients, predictor, judged):
    old = patients.X[patients.X[:, 0] > 65][:WINDOW]
    report = judged(old, drawn(predictor, old, 3))
    assert "MW003" in {finding.code for finding in report.failed}
    assert monitoring.due([report.figures] * 3, WHEN) == ()


def test_an_estimate_makes_due_only_what_it_has_earned():
    def window(said, came):
        figure = {"value": said, "low": said - 0.03, "high": said + 0.03}
        known = {"auroc": {"value": came, "low": came - 0.03, "high": came + 0.03}} if came else {}
        return {"estimate": {"auroc": figure}, "realized": known}

    history = [window(0.8, 0.8)] * 5
    assert monitoring.due([*history, *[window(0.6, None)] * 2], WHEN)
    assert "estimated" in monitoring.due([*history, *[window(0.6, None)] * 2], WHEN)[0]
    wrong = [window(0.9, 0.8)] * 5
    assert not monitoring.due([*wrong, *[window(0.6, None)] * 2], WHEN)
    assert not monitoring.due([*history[:4], *[window(0.6, None)] * 2], WHEN)


def test_realized_figures_are_those_of_the_libraries(patients, predictor, trained):
    import statsmodels.api as sm
    from sklearn.metrics import brier_score_loss, roc_auc_score

    X = patients.X[:400]
    y, risk = drawn(predictor, X, 5), predictor.risk(X)
    found = monitoring.realized(y, risk, trained.thresholds, 17)
    odds = np.log(risk / (1 - risk))
    fitted = sm.GLM(y, sm.add_constant(odds), family=sm.families.Binomial()).fit()
    offset = sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), offset=odds).fit()
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(y, risk))
    assert found["brier"]["value"] == pytest.approx(brier_score_loss(y, risk))
    ends = [found["calibration_slope"][end] for end in ("value", "low", "high")]
    assert ends == pytest.approx([fitted.params[1], *fitted.conf_int()[1]], rel=1e-4)
    ends = [found["calibration_intercept"][end] for end in ("value", "low", "high")]
    assert ends == pytest.approx([offset.params[0], *offset.conf_int()[0]], rel=1e-4)
    assert found["observed_over_expected"]["low"] < y.sum() / risk.sum() < found["observed_over_expected"]["high"]


def test_values_in_another_unit_are_named(patients, judged, trained):
    place = list(trained.reference["features"]).index("cholesterol_mg_dl")
    X = patients.X[:WINDOW].copy()
    fine = judged(X)
    X[:, place] /= 38.665
    report = judged(X)
    (unit,) = by_code(report, "MW014")
    assert unit.verdict == "failed" and "100% of the values look like mmol/L" in unit.explanation
    assert by_code(fine, "MW014")[0].verdict == "passed"


def test_what_the_contract_refused_is_named_by_its_field_with_a_hint_at_the_unit(patients, judged):
    X = patients.X[:WINDOW]
    refused = {("out_of_range", "cholesterol_mg_dl"): 40, ("unknown_category", "pain"): 12, ("malformed", ""): 1}
    report = judged(X, refused=refused)
    (out,), (new,) = by_code(report, "MW015"), by_code(report, "MW016")
    assert (out.verdict, new.verdict) == ("failed", "failed") and out.title == "out of range: cholesterol_mg_dl"
    assert "is it mmol/L?" in out.explanation and "40 of 203" in out.explanation
    (other,) = by_code(report, "MW017")
    assert other.verdict == "passed" and "fewer than 10" in other.explanation and other.value is None


def test_a_clock_that_went_back_is_told_and_nothing_else_changes(trained, predictor, patients):
    X = patients.X[:40]
    received = NOW - np.arange(40, 0, -1.0)
    received[20:] -= 7200
    seen = monitoring.Seen(X, predictor.risk(X), np.full(40, np.nan), {}, received, NOW, 0, 40, {})
    report = monitoring.judge(trained, "40", seen)
    assert [finding.code for finding in report.failed] == ["MW019"]
    assert "went back by 7" in report.finding("MW019").explanation


@pytest.mark.parametrize("kind", ["one class", "one patient", "two patients", "all missing", "equal risks", "nobody"])
def test_whatever_comes_a_window_is_judged_without_a_crash(kind, trained, predictor, patients, judged):
    X = {"one patient": patients.X[:1], "two patients": patients.X[:2], "nobody": patients.X[:0]}.get(
        kind, patients.X[:60]
    )
    if kind == "all missing":
        X = np.full_like(X, np.nan)
    if kind == "equal risks":
        X = np.repeat(X[:1], 60, axis=0)
    outcomes = np.zeros(len(X)) if kind == "one class" else np.arange(len(X)) % 2.0
    report = judged(X, outcomes)
    assert Report.from_json(report.to_json()) == report
    if kind == "one class":
        assert report.finding("MW007").verdict == "not applicable" and "realized" in report.figures
    assert monitoring.due([report.figures] * 2, RetrainWhen(auroc=">= 0.70")) == ()


def test_no_figure_tells_of_fewer_than_ten(patients, predictor, judged):
    X = patients.X[:60]
    y = np.zeros(60)
    y[:4] = 1
    report = judged(X, y)
    said = " ".join(finding.explanation for finding in report.findings)
    assert "4 events" not in said and "fewer than 10 events" in said
    assert "ppv" not in report.figures["realized"]


def window_of(auroc=None, said=None):
    def figure(value):
        return {"value": value, "low": value - 0.03, "high": value + 0.03}

    return {
        "estimate": {"auroc": figure(said)} if said else {},
        "realized": {"auroc": figure(auroc)} if auroc else {},
    }


def test_estimates_that_see_no_fall_do_not_hide_the_one_that_outcomes_saw():
    history = [window_of(0.8, 0.8)] * 20
    fell = [window_of(0.6, 0.8)] * 2
    newest = [window_of(None, 0.8)] * 3
    assert monitoring.trust([*history, *fell], "auroc").trusted
    (said,) = monitoring.due([*history, *fell, *newest], WHEN)
    assert "estimated" not in said and "below" in said


@pytest.mark.parametrize(("n", "level", "seeds"), [(30, -3.5, 200), (50, 2.5, 200), (50, 0.0, 200)])
def test_few_events_or_non_events_retrain_nothing(n, level, seeds):
    dice, figures = np.random.default_rng(7), []
    for seed in range(seeds):
        risk = 1 / (1 + np.exp(-dice.normal(level, 1.5, n)))
        y = (dice.random(n) < risk).astype(float)
        figures.append({"realized": monitoring.realized(y, risk, {}, seed)})
    for end in range(2, seeds + 1):
        assert monitoring.due(figures[end - 2 : end], WHEN) == ()


def test_no_event_of_few_that_were_expected_says_little():
    found = monitoring.realized(np.zeros(30), np.full(30, 0.04), {}, 17)["observed_over_expected"]
    assert found["value"] == 0 and found["low"] == 0 and found["high"] > 1


def test_a_column_that_is_nearly_always_missing_may_be_missing_in_a_whole_window(trained, predictor, patients):
    known = trained.reference["features"]["cholesterol_mg_dl"]
    n = trained.reference["n"]
    mostly = {**known, "missing": round(0.95 * n)}
    gone = np.ones(40, bool)
    assert monitoring._missingness("cholesterol_mg_dl", mostly, n, gone, 0.001, {}).verdict == "passed"
    assert monitoring._missingness("cholesterol_mg_dl", known, n, gone, 0.001, {}).verdict == "failed"


def test_rare_categories_raise_no_more_alarms_than_their_share_and_are_found_all_the_same():
    dice = np.random.default_rng(3)
    shares = [0.6, 0.38, 0.01, 0.004, 0.003, 0.003]
    ps = [monitoring.p_value(dice.multinomial(400, shares), dice.multinomial(60, shares), 0.01) for _ in range(1000)]
    assert sum(p < 0.01 for p in ps) <= 20
    assert sum(p < 0.05 for p in ps) <= 75
    alpha = 0.01 / 401  # of 200 features
    assert monitoring.p_value([240, 152, 4, 2, 1, 1], [36, 14, 0, 0, 10, 0], alpha) < alpha


def test_a_site_that_changed_its_unit_is_found_among_the_others(patients, judged, trained):
    place = list(trained.reference["features"]).index("cholesterol_mg_dl")
    X = patients.X[:WINDOW].copy()
    X[:60, place] /= 38.665
    (unit,) = by_code(judged(X), "MW014")
    assert unit.verdict == "failed" and "look like mmol/L" in unit.explanation
    share = np.isfinite(X[:60, place]).sum() / np.isfinite(X[:, place]).sum()
    assert f"{share:.0%} of the values" in unit.explanation


def test_drift_is_not_taken_for_another_unit(patients, judged, trained):
    place = list(trained.reference["features"]).index("cholesterol_mg_dl")
    X = patients.X[:WINDOW].copy()
    X[:, place] *= 1.6
    report = judged(X)
    assert "drift: cholesterol_mg_dl" in {finding.title for finding in report.failed}
    assert by_code(report, "MW014")[0].verdict == "passed"


def test_every_figure_with_a_gate_is_judged_by_its_interval(patients, predictor, judged):
    X = patients.X[:WINDOW]
    good, bad = judged(X, drawn(predictor, X, 1)), judged(X, 1 - drawn(predictor, X, 1))
    assert (good.finding("MW021").verdict, bad.finding("MW021").verdict) == ("passed", "failed")
    assert good.finding("MW022").verdict == "not applicable" and good.finding("MW022").interval is not None
    assert {finding.title for finding in by_code(good, "MW023")} == {"PPV: rule_out", "PPV: alert"}
    assert "came true: it was off by" in good.finding("MW018").explanation


@pytest.fixture(scope="module")
def certain_of(trained):
    """`certain_of(held, n)`: sets that hold what happened to `held` of `n` patients, and those: bundle, y, risk."""
    rule = Uncertainty(coverage=0.9, abstain_unless_one_label=False)
    spec = trained.spec.model_copy(update={"uncertainty": rule})
    bundle = replace(trained, spec=spec, conformal=Conformal(coverage=0.9, negative=0.4, positive=0.6))

    def make(held, n):
        y = np.arange(n) % 2.0
        return bundle, y, np.where(np.arange(n) < held, y, 1 - y)

    return make


@pytest.mark.parametrize(("held", "verdict"), [(90, "passed"), (70, "failed"), (97, "passed")])
def test_coverage_fails_below_what_chance_explains(held, verdict, certain_of):
    bundle, y, risk = certain_of(held, 100)
    finding = monitoring._covered(bundle, monitoring._in_sets(bundle, y, risk, None, None), 20)
    assert finding.verdict == verdict
    assert (finding.value, finding.interval is None) == ((None, True) if held == 97 else (held / 100, False))
    assert "97" not in finding.explanation


@given(
    labels=st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), min_size=10, max_size=150),
)
def test_no_groups_coverage_is_of_fewer_than_ten_nor_can_be_found_by_subtraction(labels, certain_of):
    bundle, _, _ = certain_of(0, 10)
    groups, events, inside = (np.array(column) for column in zip(*labels, strict=True))
    y = events.astype(float)
    known = monitoring._in_sets(bundle, y, np.where(events == inside, 1.0, 0.0), None, None)
    rows = monitoring._coverage(bundle, known, {"ward": groups})
    outcome = np.where(events, "event", "no event")
    for name, of in {"all": np.full(len(y), ""), "outcome": outcome, "ward": groups}.items():
        told = [row for row in rows if row["attribute"] == name and row["n"] is not None]
        for counted in (inside, ~inside):
            shown = [int(counted[of == row["label"]].sum()) for row in told]
            assert all(count >= 10 for count in shown)
            left = int(counted.sum()) - sum(shown)
            assert not left or left >= 10 or not told


@given(
    labels=st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), min_size=1, max_size=120), missing=st.booleans()
)
def test_no_sites_share_is_of_fewer_than_ten_nor_can_be_found_by_subtraction(labels, missing):
    sites, rows = (np.array(column) for column in zip(*labels, strict=True))
    said = monitoring._by_site(rows, {"site": sites}, everybody=missing)
    told = [site for site in set(sites.tolist()) if f"{site}: not told" not in said]
    for inside in (True, False):
        shown = [int((rows[sites == site] == inside).sum()) for site in told]
        assert all(count >= 10 or (missing and not count) for count in shown)
        left = int((rows == inside).sum()) - sum(shown)
        assert not left or left >= 10 or not told


def test_a_group_of_whom_no_event_was_expected_has_no_ratio_and_the_report_can_be_written(patients, trained):
    X, y = patients.X[:60], np.arange(60) % 2.0
    seen = monitoring.Seen(X, np.zeros(60), y, {"site": np.full(60, "north")}, np.arange(60.0), NOW, 0, 60, {})
    report = monitoring.judge(trained, "60", seen)
    assert report.figures["subgroups"][0]["observed_over_expected"] is None
    assert Report.from_json(report.to_json()) == report


def test_looked_at_whenever_outcomes_come_the_prevalence_alarms_in_about_one_window_of_a_hundred(trained):
    share, alarms = trained.reference["events"] / trained.reference["n"], 0
    for seed in range(150):
        dice = np.random.default_rng(seed)
        y = (dice.random(100) < share).astype(float)
        looks = [monitoring._prevalence(trained, y[:n], {}, False) for n in range(50, 101, 10)]
        alarms += any(look.verdict == "failed" for look in looks)
    assert alarms <= 4


def test_prevalence_and_cusum_wait_for_half_of_the_outcomes(patients, judged):
    y = patients.y[:100].copy()
    y[49:] = np.nan
    early, half = judged(patients.X[:100], y), judged(patients.X[:98], y[:98])
    for code in ("MW006", "MW011"):
        assert early.finding(code).verdict == "not applicable" and "from half on" in early.finding(code).explanation
        assert half.finding(code).verdict != "not applicable"
    assert "cusum" not in early.figures and "realized" in early.figures


def test_outcomes_under_ten_are_not_told(patients, judged):
    outcomes = np.full(60, np.nan)
    outcomes[:3] = 1
    assert judged(patients.X[:60], outcomes).figures["outcomes"] is None
    assert judged(patients.X[:60]).figures["outcomes"] == 0


def test_a_window_of_few_events_says_so_to_whoever_tells_its_figures_further(patients, judged):
    few, many = np.zeros(60), np.arange(60) % 2.0
    few[:4] = 1
    assert judged(patients.X[:60], few).figures["few"] is True
    assert "few" not in judged(patients.X[:60], many).figures


def test_a_groups_number_is_not_told_where_it_would_tell_anothers(trained, predictor, patients):
    y, risk = patients.y[:100], predictor.risk(patients.X[:100])
    wards = np.array(["a"] * 40 + ["b"] * 56 + ["c"] * 4)
    (first, second) = monitoring._groups(y, risk, {"ward": wards})
    assert (first["n"], second["n"]) == (None, 56)


def test_a_window_of_many_patients_needs_no_more_memory_than_one_of_few():
    import tracemalloc

    risk = np.random.default_rng(1).random(50_000)
    y = (np.random.default_rng(2).random(50_000) < risk).astype(float)
    tracemalloc.start()
    monitoring.realized(y, risk, {}, 17)
    monitoring.estimate.estimate(risk, {"alert": 0.5}, 17)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 150e6


# --- several classes


@pytest.fixture(scope="module")
def of_classes(disease_of_classes, disease_of, document_of_classes, tmp_path_factory):
    """A predictor of three classes, and many more patients of the same kind as it learned from."""
    spec = disease_of_classes.spec
    folder = tmp_path_factory.mktemp("classes") / "angina"
    predictor = Predictor(train(spec, disease_of_classes.plan, disease_of_classes.cohort, folder))
    many = disease_of(document_of_classes, 6000, seed=99).cohort
    return predictor, many.where(many.part != "external")


def judged_by_class(of_classes, rows, label=None):
    """The report of a window of these patients, in which `label` came true."""
    predictor, patients = of_classes
    X = patients.X[rows]
    risks, n = predictor.risks(X), len(X)
    label = np.full(n, np.nan) if label is None else label
    seen = monitoring.Seen(
        X=X,
        risk=predictor.positive(risks),
        outcomes=patients.y[rows],
        attributes={"site": np.full(n, "north")},
        received=NOW - np.arange(n, 0, -1.0),
        now=NOW,
        skewed=0,
        sampled=n,
        refused={},
        risks=risks,
        label=label,
    )
    return monitoring.judge(predictor.bundle, f"{n} predictions", seen)


def test_a_window_of_the_same_patients_has_each_class_as_often_as_expected(of_classes):
    rows = np.arange(400)

    report = judged_by_class(of_classes, rows, of_classes[1].label[rows])

    assert [found.title for found in by_code(report, "MW024")] == [
        f"drift: risk of {name}" for name in ("none", "stable", "unstable")
    ]
    assert {found.verdict for found in by_code(report, "MW024")} == {"passed"}
    totals = by_code(report, "MW025")
    assert [found.title.rpartition(" ")[2] for found in totals] == ["none", "stable", "unstable"]
    for found in totals:
        low, high = found.interval
        assert low < 1 < high and found.verdict == "not applicable"
    coverage = report.finding("MW012")
    assert coverage.verdict == "passed" and 0.7 < coverage.value < 0.95
    groups = {row["label"] for row in report.figures["coverage"] if row["attribute"] == "outcome"}
    assert groups == {"none", "stable", "unstable"}


def test_more_of_one_class_than_the_model_expects_is_drift_of_its_risk_and_is_counted(of_classes):
    patients = of_classes[1]
    unstable, others = np.flatnonzero(patients.label == 2)[:150], np.flatnonzero(patients.label != 2)[:150]
    rows = np.concatenate([unstable, others])

    report = judged_by_class(of_classes, rows, patients.label[rows])

    drifted = {found.title for found in by_code(report, "MW024") if found.verdict == "failed"}
    assert "drift: risk of unstable" in drifted
    (found,) = (found for found in by_code(report, "MW025") if found.title.endswith("unstable"))
    assert found.interval[0] > 1


def test_where_the_class_is_not_known_the_event_is_judged_and_the_classes_are_not(of_classes):
    rows = np.arange(200)

    report = judged_by_class(of_classes, rows)

    assert report.finding("MW007").value is not None
    assert {found.value for found in by_code(report, "MW025")} == {None}
    assert report.finding("MW012").verdict == "not applicable"
    assert "the class of 0 patients is known, 20 are needed" in report.finding("MW012").explanation


@pytest.mark.parametrize(("unnamed", "is_told"), [(9, True), (10, False)])
def test_classes_are_not_counted_where_events_do_not_say_which_they_are(of_classes, unnamed, is_told):
    rows = np.arange(400)
    label = of_classes[1].label[rows].copy()
    label[np.flatnonzero(of_classes[1].y[rows] == 1)[:unnamed]] = np.nan  # told as `true`; who has none has no event

    totals = by_code(judged_by_class(of_classes, rows, label), "MW025")

    assert {found.value is not None for found in totals} == {is_told}


def test_a_class_of_fewer_than_ten_is_told_by_no_figure_nor_by_subtraction(of_classes):
    patients = of_classes[1]
    rows = np.concatenate([np.flatnonzero(patients.label == place)[:n] for place, n in enumerate((90, 7, 60))])

    report = judged_by_class(of_classes, rows, patients.label[rows])

    told = {found.title.rpartition(" ")[2]: found.value for found in by_code(report, "MW025")}
    assert told["stable"] is None
    assert [told["none"], told["unstable"]].count(None) == 1, "of the other two one is hidden, or 7 is what is left"


def test_a_window_of_a_model_without_classes_has_nothing_of_them(patients, judged):
    report = judged(patients.X[:WINDOW], patients.y[:WINDOW])
    assert not {"MW024", "MW025"} & {finding.code for finding in report.findings}
