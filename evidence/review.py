"""The review page: what a person reads before a version may answer patients, as one HTML file that opens anywhere.

Made of the bundle and its report alone: no network, no script, no patient. Verdicts first, then what changed against
the champion, then every figure in words, as a plot and as a table, and at the end the commands that decide.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from evidence import exhibits
from evidence.card import inputs
from evidence.exhibits import table
from evidence.page import banner, figure, interval, top, verdict, verdicts
from evidence.report import Report
from models.bundle import Bundle

Judged = tuple[int, Bundle, Report]
"""A registered version: its number, its bundle, its report."""

SECTIONS = {
    "verdicts": "Verdicts",
    "changes": "Against the champion",
    "discrimination": "Discrimination",
    "calibration": "Calibration",
    "classes": "Several classes",
    "use": "Clinical use",
    "screening": "Screening",
    "fairness": "Subgroups and sites",
    "uncertainty": "Uncertainty",
    "reliance": "What it relies on",
    "patients": "Patients",
    "lineage": "Lineage",
    "decision": "Decision",
}
TILES = {"MM001": "AUROC", "MM006": "calibration slope", "MM005": "observed / expected", "MM003": "Brier score"}


def html(bundle: Bundle, report: Report, version: int | None, champion: Judged | None) -> str:
    """The page of one version. `version` is None as long as the registry has not numbered it; `champion` is who answers
    patients now, None if nobody does."""
    spec = bundle.spec
    named = f"{spec.name}@{version}" if version is not None else f"{spec.name}@VERSION"
    figures = report.figures
    lineage = figures.get("lineage") or {}
    bodies = {
        "verdicts": verdicts(report),
        "changes": _changes(bundle, report, champion),
        "discrimination": exhibits.discrimination(figures),
        "calibration": exhibits.calibration(figures),
        "classes": exhibits.classes(figures),
        "use": exhibits.use(figures),
        "screening": exhibits.screening(figures),
        "fairness": exhibits.fairness(figures),
        "uncertainty": exhibits.uncertainty(figures, spec.uncertainty is not None),
        "reliance": exhibits.reliance(figures),
        "patients": exhibits.patients(figures) + _inputs(bundle),
        "lineage": _lineage(bundle, report, lineage),
        "decision": _decision(named, bundle, champion),
    }
    held = {key: body for key, body in bodies.items() if body}
    contents = "".join(f'<li><a href="#{key}">{SECTIONS[key]}</a></li>' for key in held)
    sections = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{SECTIONS[key]}</h2>{body}</section>'
        for key, body in held.items()
    )
    title = f"{named}: review"
    return (
        f'{top(title)}<header><a class="skip" href="#verdicts">To the verdicts</a>'
        f'<p class="eyebrow">Review of a model version · {escape(named)}</p><h1>{escape(spec.title)}</h1>'
        f'<p>{escape(spec.intended_use)}</p><p class="about">{escape(_family(bundle))}, {_patients(bundle)}. '
        f"Owner: {escape(spec.owner)}.</p>{_classes(bundle)}{_invented(bundle)}{banner(report)}{_tiles(report)}"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav></header>'
        f"<main>{sections}</main>"
        f"<footer><p>Made by MediMind from bundle <code>{bundle.digest[:12]}</code> and its report. "
        "Research software, not a medical device. Holds no patient's data.</p></footer></body></html>\n"
    )


def _family(bundle: Bundle) -> str:
    return f"Model family {bundle.training['family']}"


def _patients(bundle: Bundle) -> str:
    train, test = (bundle.training["patients"][part] for part in ("train", "test"))
    return f"learned from {train['n']:,} patients ({train['events']:,} events), judged on {test['n']:,} others"


def _classes(bundle: Bundle) -> str:
    """What an event is where there are several classes: every other word of the page is about that."""
    outcome = bundle.spec.outcome
    if outcome.classes is None:
        return ""
    said = (
        f"It tells {', '.join(outcome.classes)} apart. An event is any of {', '.join(outcome.positive)}; the risk is "
        "the probability of them all."
    )
    return f'<p class="about">{escape(said)}</p>'


def _invented(bundle: Bundle) -> str:
    if bundle.spec.source.simulated is None:
        return ""
    return '<p class="invented">The patients are simulated: no figure here says anything about real ones.</p>'


def _tiles(report: Report) -> str:
    told = []
    for code, title in TILES.items():
        found = next((finding for finding in report.findings if finding.code == code), None)
        if found is None or found.value is None:
            continue
        spread = "" if found.interval is None else f"95 %: {interval(found.interval)}"
        told.append(f"<div><dt>{title}</dt><dd>{exhibits.number(found.value)}<small>{spread}</small></dd></div>")
    return f'<dl class="tiles">{"".join(told)}</dl>' if told else ""


def _inputs(bundle: Bundle) -> str:
    heads = {"name": "input", "type": "type", "unit": "unit", "loinc": "LOINC", "snomed": "SNOMED CT"}
    rows = [[str(told[key] or "none") for key in heads] for told in inputs(bundle)]
    contract = table("The contract, in UCUM units", tuple(heads.values()), rows)
    return f'<section class="exhibit"><h3>Inputs</h3>{contract}</section>'


def _changes(bundle: Bundle, report: Report, champion: Judged | None) -> str:
    if champion is None:
        return "<p>Nobody answers patients yet: there is no champion to compare with.</p>"
    number, before, its_report = champion
    name = f"{bundle.spec.name}@{number}"
    if before.digest == bundle.digest:
        return f"<p>This version is the champion, {escape(name)}.</p>"
    against = [finding for finding in report.findings if "champion" in finding.title.lower()]
    compared = f'<ul class="findings">{"".join(map(verdict, against))}</ul>' if against else ""
    rows = [[what, old, new] for what, old, new in _differences(before, bundle) if old != new]
    if rows:
        differ = table(f"What differs from {name}", ("what", name, "this version"), rows)
    else:
        differ = "<p>Family, features, data, spec, code and libraries are the champion's.</p>"
    theirs = {(f.code, f.title): f for f in its_report.findings}
    both = [
        [finding.title, figure(old), figure(finding)]
        for finding in report.findings
        if (old := theirs.get((finding.code, finding.title))) and old.value is not None and finding.value is not None
    ]
    same = (
        "Both were judged on the same data."
        if its_report.data == report.data
        else "They were judged on different data, so a gap between two figures is no comparison."
    )
    figures = (
        table(f"The figures of {name} and of this version", ("figure", name, "this version"), both) if both else ""
    )
    return f"<p>The champion is {escape(name)}. {same}</p>{compared}{differ}<h3>Side by side</h3>{figures}"


def _differences(before: Bundle, after: Bundle) -> Iterator[tuple[str, str, str]]:
    """What the two may differ in: what it is, as the one has it, as the other has it."""
    yield "family", str(before.training["family"]), str(after.training["family"])
    theirs, ours = before.spec.features, after.spec.features
    gone, come = [f for f in theirs if f not in ours], [f for f in ours if f not in theirs]
    yield "features only here", ", ".join(gone) or "none", ", ".join(come) or "none"
    for part in ("train", "test", "external"):
        people = [_people(bundle.training["patients"].get(part)) for bundle in (before, after)]
        yield f"{part} patients", people[0], people[1]
    yield "data", before.training["data"][:12], after.training["data"][:12]
    yield "code", before.training["code"][:12], after.training["code"][:12]
    libraries = [bundle.training["libraries"] for bundle in (before, after)]
    for name in sorted({*libraries[0], *libraries[1]}):
        yield f"library {name}", libraries[0].get(name, "none"), libraries[1].get(name, "none")
    documents = [dict(_leaves(bundle.spec.document)) for bundle in (before, after)]
    for key in dict.fromkeys([*documents[0], *documents[1]]):
        old, new = (held.get(key, "not there") for held in documents)
        if key == "source.sql" and old != new:  # an address may hold a password
            old, new = "a database", "another database"
        yield f"spec: {key}", old, new


def _people(count: Mapping[str, int] | None) -> str:
    return f"{count['n']:,} ({count['events']:,} events)" if count else "none"


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """A document's values by their dotted keys; a list is one value."""
    if isinstance(value, dict) and value:
        for name, held in value.items():
            yield from _leaves(held, f"{key}.{name}" if key else str(name))
    else:
        yield key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _lineage(bundle: Bundle, report: Report, lineage: Mapping[str, Any]) -> str:
    training = bundle.training
    libraries = lineage.get("libraries") or training["libraries"]
    facts = {
        "bundle": bundle.digest,
        "git commit": lineage.get("git") or f"not reported: {exhibits.absent({})}",
        "data": training["data"],
        "judged on": report.data,
        "spec": bundle.spec.digest,
        "code": training["code"],
        "source": _source(bundle),
        "libraries": ", ".join(f"{name} {number}" for name, number in libraries.items()),
        "seed": str(bundle.spec.split.seed),
    }
    plain = ("source", "libraries", "seed")
    values = {key: escape(fact) if key in plain else f"<code>{escape(fact)}</code>" for key, fact in facts.items()}
    told = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in values.items())
    return f'<p class="note">Digests are SHA-256.</p><dl class="facts">{told}</dl>{_trials(bundle)}'


def _trials(bundle: Bundle) -> str:
    """What each candidate's search chose, and how often; nothing where the spec asks for no trials."""
    found = bundle.training.get("trials")
    if not found:
        return ""
    rows = []
    for candidate, held in found.items():
        counts = [str(held[state]) for state in ("complete", "pruned", "failed")]
        figures = [exhibits.number(held[key], 4) for key in ("log_loss_of_own", "log_loss")]
        rows.append([candidate, exhibits.parameters(held["parameters"]), *counts, *figures])
    heads = ("candidate", "parameters chosen", "complete", "pruned", "failed", "log loss of its own", "of those chosen")
    return (
        '<section class="exhibit"><h3>Trials</h3><p class="note">The log loss is that by which the parameters were '
        "chosen: it is too good, and no figure above is made of it.</p>"
        f"{table('Parameters chosen over the whole training part', heads, rows)}</section>"
    )


def _source(bundle: Bundle) -> str:
    """Where the rows came from; of a database only that it was one, as its URL may hold a password."""
    source = bundle.spec.source
    if source.sql is not None:
        return "a database query"
    return str(source.wheel or source.sklearn or source.csv or source.parquet or "")


def _decision(named: str, bundle: Bundle, champion: Judged | None) -> str:
    control = bundle.spec.change_control
    name = bundle.spec.name
    may = ", ".join(word.replace("_", " ") for word in control.allowed) or "nothing"
    by = f" by {', '.join(control.approvers)}" if control.approvers else ""
    steps = {
        "Approve": f'medimind approve {named} --reason "…"',
        "Promote": f'medimind promote {named} --reason "…"',
        "Reject": f'medimind reject {named} --reason "…"',
    }
    if champion is not None:
        steps["Go back to the champion before"] = f'medimind rollback {name} --reason "…"'
    told = "".join(f"<h3>{what}</h3><pre><code>{escape(command)}</code></pre>" for what, command in steps.items())
    asked = (
        f"any other change waits for {control.approvals}{by}" if control.approvals else "no other waits for one either"
    )
    return (
        f"<p>The spec's change control: {escape(may)} may change without an approval; {escape(asked)}. "
        f"A reason is kept in the ledger, with who gave it and when.</p>{told}"
    )
