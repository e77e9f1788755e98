"""The review page: what a person reads before a version may answer patients, as one HTML file that opens anywhere.

Made of the bundle and its report alone: no network, no script, no patient. Verdicts first, then what changed against
the champion, then every figure in words, as a plot and as a table, and at the end the commands that decide.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from evidence import exhibits, svg
from evidence.exhibits import table
from evidence.page import ORDER
from evidence.report import Finding, Report
from models.bundle import Bundle

Judged = tuple[int, Bundle, Report]
"""A registered version: its number, its bundle, its report."""

MARKS = {"passed": "✓", "failed": "✕", "not applicable": "–"}
SECTIONS = {
    "verdicts": "Verdicts",
    "changes": "Against the champion",
    "discrimination": "Discrimination",
    "calibration": "Calibration",
    "use": "Clinical use",
    "fairness": "Subgroups and sites",
    "uncertainty": "Uncertainty",
    "reliance": "What it relies on",
    "patients": "Patients",
    "lineage": "Lineage",
    "decision": "Decision",
}
TILES = {"MM001": "AUROC", "MM006": "calibration slope", "MM005": "observed / expected", "MM003": "Brier score"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""A browser that opens the page fetches nothing and runs nothing, whatever a spec's words might hold."""
STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1a1f24; --muted: #56606a; --rule: #dcdfe3; --soft: #f3f4f3;
  --accent: #0a5a8c; --good: #17672f; --bad: #b0201a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaec; --muted: #a6afb8; --rule: #353c43;
  --soft: #1d2226; --accent: #74bdf0; --good: #62d18a; --bad: #ff8f86; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
header, main, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1, h2, h3 { line-height: 1.2; letter-spacing: -.012em; text-wrap: balance; }
h1 { font-size: clamp(1.6rem, 1.2rem + 2vw, 2.4rem); font-weight: 680; margin: .35rem 0 .5rem; }
h2 { font-size: 1.4rem; font-weight: 650; margin: 3.25rem 0 1rem; padding-top: 1rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1.02rem; font-weight: 640; margin: 1.5rem 0 .6rem; letter-spacing: 0; }
p { max-width: 44rem; margin: .5rem 0; }
a { color: var(--accent); text-underline-offset: .18em; }
a:focus-visible, summary:focus-visible, .wide:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
code, pre { font: .9em/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.eyebrow, .about { color: var(--muted); margin: 0; } .eyebrow { font-size: .9rem; letter-spacing: .02em; }
.skip { position: absolute; left: -99rem; } .skip:focus { position: static; }
.absent, .note { color: var(--muted); }
.invented { border: 2px dashed var(--muted); padding: .5rem .9rem; font-weight: 600; }
.passed .mark, .passed.verdict { color: var(--good); } .failed .mark, .failed.verdict { color: var(--bad); }
.verdict { font-size: 1.25rem; font-weight: 650; margin: 1.5rem 0 0; padding: .8rem 1.1rem; border-left: 5px solid;
  background: var(--soft); max-width: none; }
.verdict.not-applicable { color: var(--ink); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0 1.75rem;
  margin: 1.5rem 0 0; }
.tiles div { border-top: 1px solid var(--rule); padding: .6rem 0; }
dt { color: var(--muted); font-size: .9rem; } dd { margin: 0; overflow-wrap: anywhere; }
.tiles dd { font-size: 1.45rem; font-weight: 620; font-variant-numeric: tabular-nums; line-height: 1.3; }
.tiles small { display: block; font-size: .85rem; font-weight: 400; color: var(--muted); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.25rem; padding: 0; margin: 1.5rem 0 0; }
nav a { display: inline-block; padding: .2rem 0; }
.findings { list-style: none; padding: 0; margin: 0; }
.findings li { display: grid; grid-template-columns: 9rem 1fr 15rem; gap: .1rem 1.25rem; padding: .7rem 0;
  border-bottom: 1px solid var(--rule); }
.findings .mark { font-weight: 650; } .findings .figure { font-variant-numeric: tabular-nums; }
.findings .title { font-weight: 600; } .code { color: var(--muted); font-weight: 400; font-size: .9rem; }
.findings .why, .findings .limit { color: var(--muted); font-size: .93rem; overflow-wrap: anywhere; }
.findings .why { grid-column: 2; } .findings .limit { grid-column: 3; grid-row: 2; }
.exhibits { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 3rem; }
.exhibit { min-width: 0; }
figure { margin: 0; max-width: 31rem; } figcaption { color: var(--muted); font-size: .93rem; margin-top: .6rem; }
details { margin: .6rem 0 0; } summary { cursor: pointer; color: var(--accent); padding: .2rem 0; }
.wide { overflow-x: auto; max-width: 100%; margin: .6rem 0; }
details .wide { max-height: 24rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; min-width: 100%; }
caption { text-align: left; color: var(--muted); padding: 0 0 .4rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem 1.1rem .35rem 0; border-bottom: 1px solid var(--rule); }
thead th { color: var(--muted); font-weight: 500; } tbody th { font-weight: 500; }
.flow { padding: 0; margin: 0; list-style: none; max-width: 36rem; }
.flow > li { border: 1px solid var(--rule); padding: .6rem .9rem; }
.flow > li + li { margin-top: 1.5rem; position: relative; }
.flow > li + li::before { content: "↓" / ""; position: absolute; top: -1.6rem; left: 1rem; color: var(--muted); }
.flow > .lost { margin-left: 2.5rem; border-style: dashed; color: var(--muted); }
.flow ul { margin: .2rem 0 0; padding-left: 1.1rem; }
.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .35rem 1.5rem; margin: 0; }
.facts dt { font-size: 1rem; }
pre { background: var(--soft); border: 1px solid var(--rule); padding: .8rem 1rem; margin: .4rem 0 1rem;
  white-space: pre-wrap; }
footer { color: var(--muted); font-size: .9rem; padding-top: 3rem; padding-bottom: 3rem; }
@media (max-width: 46rem) {
  .findings li { grid-template-columns: 1fr; } .findings .why, .findings .limit { grid-column: 1; grid-row: auto; }
  .facts { grid-template-columns: minmax(0, 1fr); gap: 0; } .facts dd { margin-bottom: .5rem; }
}
@media print {
  :root { --paper: #fff; --ink: #000; --muted: #444; --rule: #bbb; --soft: #fff; --accent: #084a75; --good: #0c4f21;
    --bad: #8d1510; color-scheme: light; }
  @page { margin: 16mm; } body { font-size: 9.5pt; } header, main, footer { max-width: none; padding: 0; }
  nav, .skip, .exhibits details { display: none; } a { color: inherit; text-decoration: none; }
  .exhibits { grid-template-columns: 1fr 1fr; gap: 0 2rem; } h2, h3 { break-after: avoid; }
  figure, .findings li, .flow > li, tr, .tiles div { break-inside: avoid; } .wide { overflow: visible; }
}
"""


def html(bundle: Bundle, report: Report, version: int | None, champion: Judged | None) -> str:
    """The page of one version. `version` is None as long as the registry has not numbered it; `champion` is who answers
    patients now, None if nobody does."""
    spec = bundle.spec
    named = f"{spec.name}@{version}" if version is not None else f"{spec.name}@VERSION"
    figures = report.figures
    lineage = figures.get("lineage") or {}
    bodies = {
        "verdicts": _verdicts(report),
        "changes": _changes(bundle, report, champion),
        "discrimination": exhibits.discrimination(figures),
        "calibration": exhibits.calibration(figures),
        "use": exhibits.use(figures),
        "fairness": exhibits.fairness(figures),
        "uncertainty": exhibits.uncertainty(figures, spec.uncertainty is not None),
        "reliance": exhibits.reliance(figures),
        "patients": exhibits.patients(figures),
        "lineage": _lineage(bundle, report, lineage),
        "decision": _decision(named, bundle, champion),
    }
    contents = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title in SECTIONS.items())
    sections = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{SECTIONS[key]}</h2>{body}</section>'
        for key, body in bodies.items()
    )
    title = f"{named}: review"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}{svg.STYLE}</style></head><body>"
        f'<header><a class="skip" href="#verdicts">To the verdicts</a>'
        f'<p class="eyebrow">Review of a model version · {escape(named)}</p><h1>{escape(spec.title)}</h1>'
        f'<p>{escape(spec.intended_use)}</p><p class="about">{escape(_family(bundle))}, {_patients(bundle)}. '
        f"Owner: {escape(spec.owner)}.</p>{_invented(lineage)}{_banner(report)}{_tiles(report)}"
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


def _invented(lineage: Mapping[str, Any]) -> str:
    if not lineage.get("synthetic"):
        return ""
    return '<p class="invented">The data are synthetic: no figure here says anything about real patients.</p>'


def _banner(report: Report) -> str:
    gated = [finding for finding in report.findings if finding.verdict != "not applicable"]
    failed = report.failed
    if failed:
        named = ", ".join(dict.fromkeys(f"{finding.code} {finding.title}" for finding in failed))
        kind, said = "failed", f"✕ Failed: {len(failed)} of {len(gated)} verdicts. {named}."
    elif report.passed:
        kind, said = "passed", f"✓ Passed: all {len(gated)} verdicts."
    else:
        kind, said = "not-applicable", "– Nothing could be judged: this report promotes nobody."
    return f'<p class="verdict {kind}">{escape(said)}</p>'


def _tiles(report: Report) -> str:
    told = []
    for code, title in TILES.items():
        found = next((finding for finding in report.findings if finding.code == code), None)
        if found is None or found.value is None:
            continue
        interval = "" if found.interval is None else f"95 %: {_interval(found.interval)}"
        told.append(f"<div><dt>{title}</dt><dd>{exhibits.number(found.value)}<small>{interval}</small></dd></div>")
    return f'<dl class="tiles">{"".join(told)}</dl>' if told else ""


def _verdicts(report: Report) -> str:
    ordered = sorted(report.findings, key=lambda finding: ORDER[finding.verdict])
    judged = [f for f in ordered if f.verdict != "not applicable" or f.limit is not None]
    shown = [f for f in ordered if f not in judged]
    first = f'<ul class="findings">{"".join(map(_finding, judged))}</ul>' if judged else "<p>There is no verdict.</p>"
    if not shown:
        return first
    rows = [[f.code, f.title, _figure(f), f.explanation] for f in shown]
    held = table("Findings without a gate", ("code", "finding", "value (95 %)", "about"), rows)
    return f"{first}<details><summary>{len(shown)} more findings without a gate</summary>{held}</details>"


def _finding(finding: Finding) -> str:
    limit = (finding.limit or "none").replace(">=", "≥").replace("<=", "≤").replace("-", "−")
    kind = finding.verdict.replace(" ", "-")
    return (
        f'<li class="{kind}"><span class="mark">{MARKS[finding.verdict]} {finding.verdict}</span>'
        f'<span class="title">{escape(finding.title)} <span class="code">{escape(finding.code)}</span></span>'
        f'<span class="figure">{_figure(finding)}</span><span class="why">{escape(finding.explanation)}</span>'
        f'<span class="limit">limit: {escape(limit)}</span></li>'
    )


def _figure(finding: Finding) -> str:
    if finding.value is None:
        return "no value"
    value = _short(finding.value)
    return value if finding.interval is None else f"{value} ({_interval(finding.interval)})"


def _short(value: float) -> str:
    """Three decimals, or what is left of a small or large number."""
    shown = f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.3g}"
    return shown.replace("-", "−")


def _interval(interval: tuple[float, float]) -> str:
    return f"{_short(interval[0])} to {_short(interval[1])}"


def _changes(bundle: Bundle, report: Report, champion: Judged | None) -> str:
    if champion is None:
        return "<p>Nobody answers patients yet: there is no champion to compare with.</p>"
    number, before, its_report = champion
    name = f"{bundle.spec.name}@{number}"
    if before.digest == bundle.digest:
        return f"<p>This version is the champion, {escape(name)}.</p>"
    against = [finding for finding in report.findings if "champion" in finding.title.lower()]
    compared = f'<ul class="findings">{"".join(map(_finding, against))}</ul>' if against else ""
    rows = [[what, old, new] for what, old, new in _differences(before, bundle) if old != new]
    if rows:
        differ = table(f"What differs from {name}", ("what", name, "this version"), rows)
    else:
        differ = "<p>Family, features, data, spec, code and libraries are the champion's.</p>"
    theirs = {(f.code, f.title): f for f in its_report.findings}
    both = [
        [finding.title, _figure(old), _figure(finding)]
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
    return f'<p class="note">Digests are SHA-256.</p><dl class="facts">{told}</dl>'


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
