"""A version's facts in the order that a reporting guideline asks for them: TRIPOD+AI, CHAI's model card, our own card.

Every item is a fact out of spec, bundle or report, or "not reported" with the reason. What only a person can know (who
paid, who was asked, what it means) is nowhere in them, so it is never written here.

Sources: TRIPOD+AI, 27 items with their parts, Collins et al. BMJ 2024;385:e078378. CHAI applied model card, Coalition
for Health AI, draft of November 2024. Source attributes of a predictive intervention, 45 CFR 170.315(b)(11)(iv)(B).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from evidence.card import card
from evidence.report import Finding, Report
from models.bundle import Bundle

NOBODY_SAYS = "neither spec nor bundle nor report says so; the owner has to"
NO_DATES = "the spec names no dates of the data"
NO_TREATMENTS = "the contract holds what the model reads, and no treatment is named as one"
NO_FIGURES = "this version's report does not hold it"
NO_GROUPS = "the spec names no attributes"

Item = tuple[str, str, str]
"""Number, what is asked, and the answer."""


@dataclass(frozen=True)
class Facts:
    """What spec, bundle and report say, in sentences. None where they say nothing."""

    bundle: Bundle
    number: int
    report: Report

    @property
    def version(self) -> str:
        return f"{self.bundle.spec.name}@{self.number}"

    @cached_property
    def counts(self) -> str:
        people = self.bundle.training["patients"]
        return "; ".join(f"{part} {held['n']} patients, {held['events']} events" for part, held in people.items())

    @property
    def dropped(self) -> str:
        lost = self.bundle.training["dropped"]
        return "; ".join(f"{count} left out: {reason}" for reason, count in lost.items()) or "none left out"

    @property
    def source(self) -> str:
        held = self.bundle.spec.source
        if held.sql is not None:
            return "a database query"  # its URL may hold a password
        named = held.wheel or held.sklearn or held.csv or held.parquet or held.xlsx
        if held.simulated is not None:
            named = (
                f"simulated: {held.patients} people of {held.simulated} from seed {held.seed}, of whom nobody exists"
            )
        inside = f", {held.member} with SHA-256 {held.sha256}" if held.member else ""
        return f"{named}{inside}; cohort's fingerprint {self.bundle.training['data']}"

    @property
    def sites(self) -> str | None:
        spec = self.bundle.spec
        learned = f"learned from and tested on the sites {', '.join(spec.split.sites)}" if spec.split.sites else None
        elsewhere = spec.external
        kept = f"external sites {', '.join(elsewhere.sites)}" if elsewhere and elsewhere.sites else None
        if elsewhere and elsewhere.after:
            kept = f"external are all who came on {elsewhere.after} or after it"
        return "; ".join(filter(None, (learned, kept))) or None

    @property
    def outcome(self) -> str:
        held = self.bundle.spec.outcome
        if held.classes is not None:
            coded = "; ".join(f"{name} is {', '.join(map(str, codes))}" for name, codes in held.classes.items())
            return f"the source's column {held.column}, coded {coded}; the event is {' or '.join(held.positive)}"
        codes = f"coded {', '.join(map(str, held.values))}"
        if held.range is not None:
            codes = f"measured, {held.range[0]:g} to {held.range[1]:g}"
        return f"the source's column {held.column} {held.positive}, {codes}"

    @property
    def features(self) -> str:
        return ", ".join(self.bundle.spec.features)

    @property
    def columns(self) -> str:
        spec = self.bundle.spec
        told = []
        for name, column in (*spec.columns.items(), *((f"event {code}", event) for code, event in spec.events.items())):
            kind: str = column.type
            if column.range:
                length = f" of {column.size}" if column.size else ""
                kind = f"{kind}{length} in {column.unit}, {column.range[0]:g} to {column.range[1]:g}"
            elif column.event is not None:
                kind = f"{column.reduce} of {column.event} over {column.window or 'all time'}, in {column.unit}"
            said = [kind]
            said += [f"LOINC {column.loinc}"] if column.loinc else []
            said += [f"SNOMED CT {column.snomed}"] if column.snomed else []
            for word, rule in (("below", column.below_detection), ("above", column.above_detection)):
                said += [f"{word} {rule.limit:g} counts as {rule.counts_as:g}"] if rule else []
            told.append(f"{name} ({', '.join(said)})")
        return "; ".join(told)

    @property
    def missing(self) -> str:
        columns = self.bundle.spec.columns
        needed = [name for name, column in columns.items() if column.required] or ["none"]
        coded = [f"{name} {list(column.missing_if)}" for name, column in columns.items() if column.missing_if]
        read_so = f"; read as missing: {', '.join(coded)}" if coded else ""
        family = self.bundle.training["family"]
        return (
            f"never missing: {', '.join(needed)}; every other column may be{read_so}; a missing value is treated as "
            f"written in models/families/{family}.py"
        )

    @property
    def fitting(self) -> str:
        held = self.bundle.training["candidates"]
        compared = "; ".join(
            f"{name} AUROC {figures['auroc']:.3f}, log loss {figures['log_loss']:.3f}" for name, figures in held.items()
        )
        terms = ", ".join(f"{name} {value:.4g}" for name, value in self.bundle.calibration.terms.items())
        return (
            f"candidates compared on out-of-fold predictions of the training part ({compared}); the lowest log loss is "
            f"chosen: {self.bundle.training['family']}; recalibrated on the same predictions, {terms}{self._tuning}"
        )

    @property
    def _tuning(self) -> str:
        """How parameters were chosen; empty where the spec asks for no trials."""
        asked, tuned = self.bundle.spec.trials, self.bundle.training.get("trials", {})
        if asked is None or not tuned:
            return ""
        return (
            f"; parameters of {', '.join(tuned)} chosen by {asked.count} trials each, by log loss over {asked.folds} "
            "folds, anew within each fold of the comparison and once over the training part"
        )

    @property
    def split(self) -> str:
        held = self.bundle.spec.split
        if held.test_after:
            tested = f"who came on {held.test_after} or later"
        elif held.test_sites:
            tested = f"the sites {', '.join(held.test_sites)}"
        else:
            tested = f"{held.test_fraction:.0%} of the patients"
        return f"the test part is {tested}, seed {held.seed}; {self.counts}"

    @property
    def thresholds(self) -> str:
        points = self.bundle.spec.operating_points
        asked = {
            name: ", ".join(f"{k} {v:g}" for k, v in point.model_dump(exclude_none=True).items())
            for name, point in points.items()
        }
        told = "; ".join(f"{name} from risk {self.bundle.thresholds[name]:.3f}, for {asked[name]}" for name in points)
        return f"a risk between 0 and 1, and the highest operating point reached: {told}{self.classes}"

    @property
    def classes(self) -> str:
        """What is said of several classes; empty where there is one event alone."""
        outcome = self.bundle.spec.outcome
        if outcome.classes is None:
            return ""
        rule = "the likeliest is named"
        if outcome.costs is not None:
            costs = "; ".join(
                f"of {true}, {', '.join(f'{said} {cost:g}' for said, cost in of_true.items())}"
                for true, of_true in outcome.costs.items()
            )
            rule = f"the one of least expected cost is named, where it costs to say {costs}"
        of, each = " or ".join(outcome.positive), ", ".join(outcome.classes)
        return f"; the risk is of {of}; each of {each} has its own, and {rule}"

    @property
    def gates(self) -> str:
        held = [f"{f.title} {f.limit}" for f in self.report.findings if f.limit is not None]
        return "; ".join(dict.fromkeys(held)) or "none"

    def findings(self, *codes: str) -> str | None:
        """The findings of these codes."""
        return "; ".join(_said(finding) for finding in self.report.findings if finding.code in codes) or None

    @property
    def performance(self) -> str | None:
        spread = ("MM017", "MM018", "MM019", "MM020", "MM021")
        further = ("MM012", "MM022", "MM023", *(f"MM0{place}" for place in range(39, 55)))
        return self.findings(*(f"MM00{place}" for place in range(1, 8)), *spread, *further)

    @property
    def fairness(self) -> str | None:
        return self.findings("MM008", "MM009", "MM024")

    @property
    def external(self) -> str | None:
        return self.findings("MM013")

    @property
    def heterogeneity(self) -> str | None:
        return self.findings("MM013", "MM038")

    @property
    def sample_size(self) -> str | None:
        return self.findings("MM037")

    @property
    def reliability(self) -> str | None:
        return self.findings(*(f"MM0{place}" for place in range(25, 37)))

    @property
    def table1(self) -> str | None:
        held = self.report.figures.get("table1")
        if not held:
            return None
        heads = held["columns"]
        rows = []
        for row in held["rows"]:
            name = f"{row['name']} {row['level']}" if row.get("level") else row["name"]
            rows.append(
                f"{name}: " + ", ".join(f"{head} {cell}" for head, cell in zip(heads, row["cells"], strict=True))
            )
        return "; ".join(rows)

    @property
    def importance(self) -> str | None:
        held = self.report.figures.get("importance")
        told = [f"{row['feature']} {row['drop']:.3f}" for row in held or ()]
        return f"loss of AUROC when shuffled: {', '.join(told)}" if told else None

    @property
    def monitoring(self) -> str:
        held = self.bundle.spec.monitoring
        return (
            f"`medimind monitor` judges the newest {held.window} predictions against the training, and their outcomes "
            f"once {held.min_outcomes} are known"
        )

    @property
    def change_control(self) -> str:
        held = self.bundle.spec.change_control
        may = ", ".join(held.allowed) or "nothing"
        least = held.retrain
        return (
            f"may change without anybody's approval: {may}; other changes need {held.approvals} approvals; a retrained "
            f"version needs a better log loss than the champion, at most {least.auroc_drop:g} less AUROC, and at least "
            f"{least.min_events} events and {least.min_non_events} non-events"
        )

    @property
    def expires(self) -> str | None:
        last = self.bundle.spec.serving.expires_on
        return f"it answers until {last} and no longer" if last else None

    @property
    def lineage(self) -> str:
        training = self.bundle.training
        git = (self.report.figures.get("lineage") or {}).get("git")
        libraries = ", ".join(f"{name} {number}" for name, number in training["libraries"].items())
        commit = f"git commit {git}; " if git else ""
        return f"{commit}code {training['code']}; {libraries}"

    @property
    def specification(self) -> str:
        encoder = self.bundle.spec.encoder if self.bundle.training["family"] == "frozen_encoder" else None
        beside = "" if encoder is None else f", and the encoder with SHA-256 {encoder.sha256}, which no bundle holds"
        return f"the model's files, calibration.json and thresholds.json of bundle {self.bundle.digest}{beside}"

    @property
    def attributes(self) -> str | None:
        return ", ".join(self.bundle.spec.attributes) or None


def tripod(bundle: Bundle, number: int, report: Report) -> str:
    """TRIPOD+AI's items, in Markdown."""
    return _markdown(f"TRIPOD+AI: {bundle.spec.name}@{number}", tripod_items(Facts(bundle, number, report)))


def chai(bundle: Bundle, number: int, report: Report) -> str:
    """CHAI's applied model card, and the source attributes that the law asks for, in Markdown."""
    facts = Facts(bundle, number, report)
    sections = {**chai_items(facts), "Source attributes, 45 CFR 170.315(b)(11)(iv)(B)": source_attributes(facts)}
    return _markdown(f"Applied model card: {facts.version}", sections)


def as_json(bundle: Bundle, number: int, report: Report) -> str:
    """The card as GET /v1/models/{name} gives it."""
    return json.dumps(card(bundle, number, report), indent=1, ensure_ascii=False) + "\n"


FORMS: dict[str, Callable[[Bundle, int, Report], str]] = {"tripod": tripod, "chai": chai, "card": as_json}


def tripod_items(facts: Facts) -> dict[str, list[Item]]:
    """The 27 items with their parts, by section."""
    spec = facts.bundle.spec
    return {
        "Title and abstract": [
            _item("1", "title", f"{spec.title}: a prediction model, developed and evaluated; {facts.version}"),
            _item("2", "abstract", None, "an abstract is written by people; the items below are its facts"),
        ],
        "Introduction": [
            _item("3a", "healthcare context and rationale", None),
            _item("3b", "target population, purpose and users", f"{spec.title}. {spec.intended_use}"),
            _item("3c", "known health inequalities", None),
            _item("4", "objectives", f"to develop and evaluate a model of {facts.outcome}"),
        ],
        "Methods": [
            _item("5a", "sources of data", facts.source),
            _item("5b", "dates of data", None, NO_DATES),
            _item("6a", "setting and centres", facts.sites, "the spec names no sites"),
            _item("6b", "eligibility", f"rows that keep the contract; {facts.dropped}"),
            _item("6c", "treatments received", None, NO_TREATMENTS),
            _item("7", "data preparation", f"each column checked against its contract: {facts.columns}"),
            _item("8a", "outcome and its horizon", facts.outcome),
            _item("8b", "who assessed the outcome", None),
            _item("8c", "blinding of the outcome's assessment", None),
            _item("9a", "choice of predictors", f"fixed in the spec before the first run: {facts.features}"),
            _item("9b", "definition of predictors", facts.columns),
            _item("9c", "who assessed the predictors", None),
            _item("10", "sample size", facts.sample_size, NO_FIGURES),
            _item("11", "missing data", facts.missing),
            _item("12a", "use of the data in development and evaluation", facts.split),
            _item(
                "12b", "handling of predictors", f"features as built, encoded in models/encoding.py: {facts.features}"
            ),
            _item("12c", "type of model, building and internal validation", facts.fitting),
            _item("12d", "differences between clusters", facts.heterogeneity, "no site was judged by itself"),
            _item("12e", "measures of performance", f"judged by gates: {facts.gates}"),
            _item("12f", "model updating after evaluation", "none: the test part is read once, and changes nothing"),
            _item("12g", "how predictions were calculated for evaluation", f"by {facts.specification}"),
            _item("13", "class imbalance", None, "no resampling or weighting is recorded in the bundle"),
            _item("14", "fairness in development", facts.attributes and f"subgroups by {facts.attributes}", NO_GROUPS),
            _item("15", "output and thresholds", facts.thresholds),
            _item("16", "differences between development and evaluation", facts.sites, "both come from one source"),
            _item("17", "ethical approval", None),
        ],
        "Open science": [
            _item("18a", "funding", None),
            _item("18b", "conflicts of interest", None),
            _item("18c", "protocol", f"the spec, digest {spec.digest}, written before the run"),
            _item("18d", "registration", None),
            _item("18e", "data sharing", f"the source is {facts.source}"),
            _item("18f", "code sharing", facts.lineage),
            _item("19", "patients' and the public's part", None),
        ],
        "Results": [
            _item("20a", "flow of participants", f"{facts.counts}; {facts.dropped}"),
            _item("20b", "characteristics", facts.table1, NO_FIGURES),
            _item("20c", "development against evaluation data", None, "no comparison of the parts is computed"),
            _item("21", "participants and events in each analysis", facts.counts),
            _item("22", "full model", facts.specification),
            _item(
                "23a", "performance with intervals and subgroups", _both(facts.performance, facts.fairness), NO_FIGURES
            ),
            _item("23b", "heterogeneity of performance", facts.heterogeneity, "no site was judged by itself"),
            _item("24", "results of updating", "none: the model was not updated after its evaluation"),
        ],
        "Discussion": [
            _item("25", "interpretation", None, "an interpretation is a person's; the findings are in 23a"),
            _item("26", "limitations", None, "limitations are a person's to name; failed findings are in 23a"),
            _item("27a", "input of poor quality or missing", f"what breaks the contract is refused; {facts.missing}"),
            _item("27b", "users' part and expertise", None),
            _item("27c", "next steps and generalisability", None),
        ],
    }


def chai_items(facts: Facts) -> dict[str, list[Item]]:
    """The sections of CHAI's applied model card."""
    spec = facts.bundle.spec
    metrics = ("goal", "result", "interpretation", "type of test", "testing data", "validation process")
    results = {
        "Usefulness, usability and efficacy": facts.performance,
        "Fairness and equity": facts.fairness,
        "Safety and reliability": facts.reliability,
    }
    goals = f"the spec's gates: {facts.gates}"
    keys = {
        title: dict(
            zip(
                metrics,
                (goals, result, None, "held-out patients of the same source", facts.split, facts.external),
                strict=True,
            )
        )
        for title, result in results.items()
    }
    sections: dict[str, list[tuple[str, str | None, str]]] = {
        "Release": [
            ("name", spec.title, ""),
            ("developer", spec.owner, ""),
            ("inquiries and reports of issues", None, "the spec names an owner and no address"),
            ("release stage", "a registered version; whether it answers is in the ledger", ""),
            ("release date", None, "the registry holds it, and the bundle no clock"),
            ("release version", facts.version, ""),
            ("global availability", None, NOBODY_SAYS),
            ("regulatory approval", None, "none is recorded"),
            ("summary", f"{spec.title}. {facts.bundle.training['family']}; {facts.counts}", ""),
            ("keywords", None, NOBODY_SAYS),
        ],
        "Uses and directions": [
            ("intended use and workflow", spec.intended_use, ""),
            ("primary intended users", None, NOBODY_SAYS),
            ("how to use", facts.thresholds, ""),
            ("targeted patients", spec.title, ""),
            ("cautioned out-of-scope uses", f"values outside the contract are refused: {facts.columns}", ""),
        ],
        "Warnings": [
            ("known risks and limitations", _failed(facts.report), "no finding failed; others are a person's to name"),
            ("known biases and ethical considerations", facts.fairness, NO_GROUPS),
            ("clinical risk level", None, NOBODY_SAYS),
        ],
        "Trust ingredients": [
            ("outcome and output", f"{facts.outcome}; {facts.thresholds}", ""),
            ("model type", facts.bundle.training["family"], ""),
            ("foundation models", "none", ""),
            ("input data source", facts.source, ""),
            ("input and output types", facts.columns, ""),
            ("development data", f"{facts.counts}; {facts.dropped}", ""),
            ("bias mitigation", None, "no mitigation is recorded in the bundle; subgroups are judged"),
            ("ongoing maintenance", f"{facts.monitoring}; {facts.change_control}", ""),
            ("security and compliance", f"bundle {facts.bundle.digest}, each file's SHA-256 in its manifest", ""),
            ("transparency and accountability", facts.importance, NO_FIGURES),
        ],
        "Transparency": [
            ("funding of the technical implementation", None, NOBODY_SAYS),
            ("third parties", facts.lineage, ""),
            ("stakeholders consulted", None, NOBODY_SAYS),
        ],
        "Resources": [
            ("evaluation references", f"the validation report of bundle {facts.report.bundle}", ""),
            ("clinical trial", None, "none is recorded"),
            ("peer-reviewed publications", None, "none is recorded"),
            ("reimbursement status", None, NOBODY_SAYS),
            ("patients' consent or disclosure", None, NOBODY_SAYS),
        ],
    }
    made: dict[str, list[Item]] = {}
    order = ("Release", "Uses and directions", "Warnings", "Trust ingredients", "Transparency")
    for place, section in enumerate(order, start=1):
        made[section] = _numbered(str(place), sections[section])
    for place, (title, asked) in enumerate(keys.items(), start=6):
        rows = [(name, fact, _why_no_metric(name)) for name, fact in asked.items()]
        made[f"Key metrics: {title.lower()}"] = _numbered(str(place), rows)
    made["Resources"] = _numbered("9", sections["Resources"])
    return made


def source_attributes(facts: Facts) -> list[Item]:
    """The 31 attributes, numbered as the rule numbers them."""
    spec = facts.bundle.spec
    groups: list[list[tuple[str, str | None, str]]] = [
        [
            ("developer and contact", spec.owner, ""),
            ("funding of the technical implementation", None, NOBODY_SAYS),
            ("value produced as output", facts.thresholds, ""),
            ("kind of output", "a prediction: the probability of the outcome", ""),
        ],
        [
            ("intended use", spec.intended_use, ""),
            ("intended patients", spec.title, ""),
            ("intended users", None, NOBODY_SAYS),
            ("intended role in decisions", spec.intended_use, ""),
        ],
        [
            (
                "cautioned tasks, situations, populations",
                f"values outside the contract are refused: {facts.columns}",
                "",
            ),
            (
                "known risks, inappropriate uses, limitations",
                _failed(facts.report),
                "no finding failed; others are a person's to name",
            ),
        ],
        [
            ("inclusion and exclusion of the training data", f"rows that keep the contract; {facts.dropped}", ""),
            ("demographic variables among the inputs", f"the inputs are {facts.features}", ""),
            ("demographic representativeness of the training data", facts.table1, NO_FIGURES),
            ("relevance of the training data to the setting", facts.sites, "the spec names no sites"),
        ],
        [
            ("approach to a fair output", facts.attributes and f"subgroups judged by {facts.attributes}", NO_GROUPS),
            ("approach to bias", None, "no mitigation is recorded in the bundle; subgroups are judged"),
        ],
        [
            (
                "data and setting of the external validation",
                facts.sites if spec.external else None,
                "the spec names no external sites",
            ),
            ("party that did it", None, NOBODY_SAYS),
            (
                "demographic representativeness of the external data",
                None,
                "Table 1 is of the patients learned from and tested on",
            ),
            ("process of the external validation", facts.external, "no external site was judged"),
        ],
        [
            ("validity in test data of the same source", facts.performance, NO_FIGURES),
            ("fairness in test data of the same source", facts.fairness, NO_GROUPS),
            ("validity in external data", facts.external, "no external site was judged"),
            ("fairness in external data", None, "subgroups of an external site are not judged"),
            ("references to the effect on outcomes", None, "none is recorded"),
        ],
        [
            ("monitoring of validity", facts.monitoring, ""),
            ("validity in local data", None, "a monitoring report holds it; this is the validation's"),
            ("monitoring of fairness", None, "`medimind monitor` judges all patients together"),
            ("fairness in local data", None, "`medimind monitor` judges all patients together"),
        ],
        [
            ("update of the model", facts.change_control, ""),
            (
                "correction when validity or fairness is at risk",
                facts.expires,
                "the spec sets no last day, and no schedule",
            ),
        ],
    ]
    numerals = ("i", "ii", "iii", "iv", "v")
    return [
        _item(f"({place})({numerals[at]})", asked, fact, why)
        for place, group in enumerate(groups, start=1)
        for at, (asked, fact, why) in enumerate(group)
    ]


def _item(number: str, asked: str, fact: str | None, why: str = NOBODY_SAYS) -> Item:
    return number, asked, fact or f"not reported: {why}"


def _numbered(place: str, rows: Iterable[tuple[str, str | None, str]]) -> list[Item]:
    return [_item(f"{place}.{at}", asked, fact, why) for at, (asked, fact, why) in enumerate(rows, start=1)]


def _why_no_metric(name: str) -> str:
    reasons = {
        "result": NO_FIGURES,
        "interpretation": "an interpretation is a person's",
        "validation process": "no external site was judged",
    }
    return reasons.get(name, NOBODY_SAYS)


def _said(finding: Finding) -> str:
    if finding.value is None:
        return f"{finding.title}: {finding.verdict}, {finding.explanation}"
    interval = "" if finding.interval is None else f" ({finding.interval[0]:.3f} to {finding.interval[1]:.3f})"
    limit = f", limit {finding.limit}, {finding.verdict}" if finding.limit else ""
    about = f", {finding.explanation}" if finding.code == "MM012" else ""
    return f"{finding.title} {finding.value:.3f}{interval}{limit}{about}"


def _failed(report: Report) -> str | None:
    return "; ".join(f"failed: {_said(finding)}" for finding in report.failed) or None


def _both(first: str | None, second: str | None) -> str | None:
    return "; ".join(filter(None, (first, second))) or None


def _markdown(title: str, sections: Mapping[str, list[Item]]) -> str:
    lines = [f"# {title}", ""]
    for section, items in sections.items():
        lines += [f"## {section}", ""]
        lines += [f"- **{number}** {asked}: {_plain(answer)}" for number, asked, answer in items]
        lines.append("")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """One line, in which nothing of a spec's own words is markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("<", "\\<")
