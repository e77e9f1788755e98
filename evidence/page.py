"""What every page of ours shares: one HTML file that opens anywhere, without a network, a script or a patient."""

from collections.abc import Sequence
from html import escape

from evidence import svg
from evidence.exhibits import table
from evidence.report import Finding, Report

ORDER = {"failed": 0, "passed": 1, "not applicable": 2}
MARKS = {"passed": "✓", "failed": "✕", "not applicable": "–"}
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
  background: var(--soft); max-width: none; overflow-wrap: anywhere; }
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
  border-bottom: 1px solid var(--rule); overflow-wrap: anywhere; }
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
.lined td, .lined th { white-space: nowrap; }
thead th { color: var(--muted); font-weight: 500; } tbody th { font-weight: 500; }
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
  figure, .findings li, tr, .tiles div { break-inside: avoid; } .wide { overflow: visible; }
}
"""


def html(report: Report, title: str, notes: list[str]) -> str:
    """A report's page: what it is about, `notes` as plain sentences, and the findings, failed ones first."""
    said = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return (
        f"{top(title)}<header><p class='eyebrow'>{escape(report.kind)} · {escape(report.name)}</p>"
        f"<h1>{escape(title)}</h1>{said}{banner(report)}</header>"
        f"<main><section aria-labelledby='verdicts'><h2 id='verdicts'>Verdicts</h2>{verdicts(report)}</section></main>"
        f"{foot(report)}"
    )


def top(title: str) -> str:
    """A page up to its body."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}{svg.STYLE}</style></head><body>"
    )


def foot(report: Report) -> str:
    return (
        f"<footer><p>Made by MediMind from bundle <code>{report.bundle[:12]}</code>, judged on "
        f"{escape(report.data[:120])}. Research software, not a medical device. Holds no patient's data.</p></footer>"
        "</body></html>\n"
    )


def banner(report: Report) -> str:
    """The report's verdict in a line."""
    gated = [finding for finding in report.findings if finding.verdict != "not applicable"]
    failed = report.failed
    if failed:
        kind, said = "failed", f"✕ Failed: {len(failed)} of {len(gated)} verdicts. {'; '.join(_named(failed))}."
    elif report.passed:
        kind, said = "passed", f"✓ Passed: all {len(gated)} verdicts."
    else:
        kind, said = "not-applicable", "– Nothing could be judged."
    return f'<p class="verdict {kind}">{escape(said)}</p>'


def _named(findings: Sequence[Finding]) -> list[str]:
    """The findings' titles; of one code and kind, such as "drift: age_years", all in one."""
    of_kind: dict[str, list[str]] = {}
    for finding in findings:
        kind, _, of = finding.title.partition(": ")
        of_kind.setdefault(f"{finding.code} {kind}", []).extend([of] if of else [])
    return [f"{kind}: {', '.join(dict.fromkeys(of))}" if of else kind for kind, of in of_kind.items()]


def verdicts(report: Report) -> str:
    """The findings, failed ones first; those without a gate in a table of their own."""
    ordered = sorted(report.findings, key=lambda finding: ORDER[finding.verdict])
    judged = [f for f in ordered if f.verdict != "not applicable" or f.limit is not None]
    shown = [f for f in ordered if f not in judged]
    first = f'<ul class="findings">{"".join(map(verdict, judged))}</ul>' if judged else "<p>There is no verdict.</p>"
    if not shown:
        return first
    rows = [[f.code, f.title, figure(f), f.explanation] for f in shown]
    held = table("Findings without a gate", ("code", "finding", "value (95 %)", "about"), rows)
    return f"{first}<details><summary>{len(shown)} more findings without a gate</summary>{held}</details>"


def verdict(finding: Finding) -> str:
    limit = (finding.limit or "none").replace(">=", "≥").replace("<=", "≤").replace("-", "−")
    kind = finding.verdict.replace(" ", "-")
    return (
        f'<li class="{kind}"><span class="mark">{MARKS[finding.verdict]} {finding.verdict}</span>'
        f'<span class="title">{escape(finding.title)} <span class="code">{escape(finding.code)}</span></span>'
        f'<span class="figure">{figure(finding)}</span><span class="why">{escape(finding.explanation)}</span>'
        f'<span class="limit">limit: {escape(limit)}</span></li>'
    )


def figure(finding: Finding) -> str:
    """A finding's value with its 95 % interval."""
    if finding.value is None:
        return "no value"
    value = _short(finding.value)
    return value if finding.interval is None else f"{value} ({interval(finding.interval)})"


def _short(value: float) -> str:
    """Three decimals, or what is left of a small or large number."""
    shown = f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.3g}"
    shown = f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else shown
    return shown.replace("-", "−")


def interval(ends: tuple[float, float]) -> str:
    return f"{_short(ends[0])} to {_short(ends[1])}"
