"""What a person at the terminal reads while the verbs run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evidence.report import Finding, Report

if TYPE_CHECKING:
    from datetime import date

    from features.cohort import Cohort
    from ledger.replay import Replay
    from models.bundle import Bundle
    from pipelines.compare import Comparison
    from pipelines.external import External
    from pipelines.ingest import Ingested
    from pipelines.load import Loaded
    from pipelines.monitor import Monitored
    from pipelines.promote import Promoted, Waits
    from pipelines.retrain import Done
    from pipelines.simulate import Simulated
    from pipelines.validate import Validated
    from pipelines.verify import Verified

COLOURS = {"passed": "green", "failed": "red", "not applicable": "dim"}


def say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text)


def chapter(title: str) -> None:
    Console().rule(f"[bold]{escape(title)}", align="left")


def ingested(done: "Ingested") -> None:
    lost = _counts(done.dropped) or "none left out"
    say(f"[bold]ingest[/]    {done.rows} rows read, {done.kept} keep the contract ({lost}); "
        f"Great Expectations: {done.expectations[0]} of {done.expectations[1]} expectations met")  # fmt: skip
    beyond = [
        f"{column} {', '.join(f'{count} {side}' for side, count in sides.items() if count)}"
        for column, sides in done.beyond.items()
        if any(sides.values())
    ]
    if beyond:
        say(f"          beyond detection: {'; '.join(beyond)}")
    if (held := done.histories) is not None:
        others = f", and {held.not_read} of codes that the spec does not name" if held.not_read else ""
        say(f"          {held.read} events read{others}; {len(held.events)} distinct ones keep the contract")
        for code, reasons in held.reasons.items():
            say(f"          {escape(code)}: {_counts(reasons)}")


def prepared(cohort: "Cohort") -> None:
    from evidence.exhibits import attrition
    from evidence.figures import flow

    say(f"[bold]prepare[/]   {len(cohort)} patients, {cohort.y.mean():.1%} with the event")
    drawn = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    for heading in ("", "step", "rows", "left", "events"):
        drawn.add_column(heading, justify="left" if heading in ("", "step") else "right")
    for step in attrition(flow(cohort)):
        drawn.add_row("         ", *map(escape, step))
    Console(highlight=False).print(drawn)


def trained(bundle: "Bundle") -> None:
    from evidence.exhibits import parameters

    compared = ", ".join(
        f"{name} AUROC {figures['auroc']:.3f}, log loss {figures['log_loss']:.3f}"
        for name, figures in bundle.training["candidates"].items()
    )
    points = ", ".join(f"{name} from {threshold:.3f}" for name, threshold in bundle.thresholds.items())
    say(f"[bold]train[/]     out of fold: {compared}")
    chosen = bundle.training["family"]
    for name, found in bundle.training.get("trials", {}).items():
        count = sum(found[state] for state in ("complete", "pruned", "failed"))
        say(f"          {name}, by {count} trials: {escape(parameters(found['parameters']))}")
    say(f"          [bold]{chosen}[/] is chosen and calibrated; {points}; bundle {bundle.digest[:12]}")


def validated(done: "Validated") -> None:
    news = "registered as" if done.new else "unchanged, it is still"
    say(f"[bold]validate[/]  {news} [bold]{done.version}[/], {_verdict(done.report)}")
    findings([finding for finding in done.report.findings if finding.limit or finding.code in ("MM012", "MM013")])


def validated_on(done: "External") -> None:
    say(f"[bold]validate[/]  on patients of somewhere else: {_verdict(done.report)}")
    findings([finding for finding in done.report.findings if finding.code not in ("MM009", "MM014")])
    say(f"          report {escape(str(done.page))}")


def compared(done: "Comparison") -> None:
    say(f"[bold]compare[/]   {done.a} with {done.b}, on the same {done.n} test patients, {done.events} events")
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    for heading in ("", "figure", done.a, done.b, "difference", "95 % interval", "p"):
        table.add_column(heading)
    for name, paired in done.paired.items():
        spread = "" if paired.low is None or paired.high is None else f"{paired.low:+.3f} to {paired.high:+.3f}"
        p = "" if paired.p is None else f"{paired.p:.2g}"
        told = (f"{paired.a:.3f}", f"{paired.b:.3f}", f"{paired.difference:+.3f}", spread, p)
        table.add_row("  ", name.replace("_", " "), *told)
    Console(highlight=False).print(table)
    for difference in done.differs or ("nothing: the same data, spec and code",):
        say(f"          differs: {escape(difference)}")


def promoted(done: "Promoted") -> None:
    champion = done.promotion
    news = "is now champion" if done.new else "is champion already"
    say(f"[bold]promote[/]   {champion.model}@{champion.version} {news}: {escape(champion.reason)}")
    if done.alias:
        say(f"          [yellow]MLflow's champion alias could not be copied: {escape(done.alias)}[/]")


def waits(done: "Waits") -> None:
    say(f"[bold]promote[/]   {done.version} [yellow]waits[/], and the champion stays:")
    for why in done.why:
        say(f"          {escape(why)}")
    say(f"          next: {escape(done.command)}")


def verified(done: "Verified") -> None:
    say(f"[bold]verify[/]    {'; '.join(escape(what) for what in done.checked)}")
    for note in done.notes:
        say(f"          [dim]{escape(note)}[/]")
    for problem in done.problems:
        say(f"          [red]{escape(problem)}[/]")
    say(
        "          [red]not all is as it was decided[/]"
        if done.problems
        else "          [green]all as it was decided[/]"
    )


def monitored(done: "Monitored") -> None:
    say(f"[bold]monitor[/]   {escape(done.report.data)}: {_verdict(done.report)}")
    told = [finding for finding in done.report.findings if finding.verdict == "failed" or finding.code > "MW003"]
    findings(told)
    if done.watched is not None:
        older = done.watched.passed_over
        passed_over = f", {older:,} older predictions passed over" if older else ""
        say(f"          {len(done.watched.judged)} windows judged{passed_over}; "
            f"{len(done.watched.opened)} findings fail that did not before")  # fmt: skip
    if done.told is not None and done.told.waiting:
        say(f"          [yellow]{done.told.waiting} alerts could not be delivered; they are tried again[/]")
    say(f"          report {escape(str(done.page))}")
    if done.timeline is not None:
        say(f"          time line {escape(str(done.timeline))}")
    say(f"          drawing {escape(str(done.drawing))} (holds patients' values)")


def retrained(done: "Done") -> None:
    for step in done.steps:
        say(f"[bold]retrain[/]   {escape(step.told)}")
    if not done.steps or done.steps[-1].told != done.stands:
        say(f"[bold]retrain[/]   {escape(done.stands)}")


def happened(day: "date", what: str) -> None:
    say(f"{day:%Y-%m-%d}  {escape(what)}")


def simulated(done: "Simulated") -> None:
    coming = done.stream
    invented = "; [yellow]its times are invented[/]" if coming.invented else ""
    say(f"[bold]simulate[/]  {done.answered} of {len(coming.arrivals)} patients of {escape(coming.where)} answered, "
        f"{coming.outcomes} outcomes, on {done.days} days; {done.windows} windows judged{invented}")  # fmt: skip
    if coming.refused:
        say(f"          {coming.refused} rows break the contract and were not sent")
    if done.found:
        _table(
            ("code", "first failed", "window", "until", "failed in", "about"),
            [
                (
                    each.code,
                    each.title,
                    each.window,
                    f"{each.ends_at:%Y-%m-%d}",
                    f"{each.failed} of {each.judged}",
                    each.explanation,
                )
                for each in done.found
            ],
        )
    if done.earned:
        _table(
            ("estimate", "windows", "estimate less truth", "mean distance", "truth in its interval"),
            [
                (
                    name.replace("_", " "),
                    str(each.n),
                    f"{each.mean:+.3f}",
                    f"{each.distance:.3f}",
                    f"{each.inside} of {each.n}",
                )
                for name, each in done.earned.items()
            ],
        )
    for each in done.compared:
        came = "promoted" if each.action == "promote" else "back again"
        say(f"          @{each.version}, {came}, beside @{each.earlier}, the champion before it, on the {each.n} "
            f"patients whom it answered then, {each.events} events")  # fmt: skip
        _table(
            ("figure", f"@{each.version}", f"@{each.earlier}", "difference", "95 % interval"),
            [
                (
                    name.replace("_", " "),
                    _number(pair["a"]),
                    _number(pair["b"]),
                    _number(pair["difference"], "+"),
                    _spread(pair),
                )
                for name, pair in each.paired.items()
            ],
        )
    for said in done.planted:
        say(f"          [bold]planted[/]  {escape(said)}")
    if done.timeline is None:
        say(f"          no window was full; simulation.json lies in {escape(str(done.folder))}")
    else:
        say(f"          time line {escape(str(done.timeline))}")


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.3f}"


def _spread(pair: Mapping[str, float | None]) -> str:
    low, high = pair["low"], pair["high"]
    return "" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    for heading in ("", *headings):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row("  ", *map(escape, row))
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=200)).print(table)


def replayed(done: "Replay") -> None:
    stored = done.stored
    say(f"prediction {stored.id} of {stored.model}@{stored.version}, {stored.received_at:%Y-%m-%d %H:%M:%S} UTC")
    say(f"  risk then {stored.risk!r}, now {done.risk!r}: {done.agrees}")
    for name, now in (done.risks or {}).items():
        then = (stored.risks or {})[name]
        said = ", the class that was said" if name == stored.label else ""
        say(f"    {name} then {then!r}, now {now!r}{said}")
    possible = f", set {' or '.join(done.certainty['set']) or 'empty'}" if "set" in done.certainty else ""
    silent = f" ({done.certainty['abstained']})" if "abstained" in done.certainty else ""
    say(f"  band {stored.band or 'none'}{silent}{possible}")
    digest = "the same digest" if done.same_features else "[red]another digest[/]"
    say(f"  features {digest} {stored.feature_digest[:12]}")


def loaded(done: "Loaded") -> None:
    plan = done.plan
    unsent = (
        f"; {plan.requests - done.sent} not sent, no connection was free in time" if done.sent < plan.requests else ""
    )
    say(f"[bold]load[/]      {done.sent} requests sent, {done.rate:.1f} a second of the {plan.rate:g} set{unsent}")
    refused = f" ({_counts(done.refused)})" if done.refused else ""
    errors = f"[red]{done.errors.total()} errors[/] ({_counts(done.errors)})" if done.errors else "no error"
    say(f"          {done.predictions} predictions, {done.refused.total()} records refused{refused}; "
        f"{done.unavailable} requests answered 503, {errors}")  # fmt: skip
    if done.took_ms:
        told = ", ".join(f"p{share * 100:g} {done.percentile_ms(share):.1f} ms" for share in (0.5, 0.95, 0.99))
        say(f"          from due to answered: {told}")


def findings(shown: list[Finding]) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    for heading in ("", "code", "finding", "value", "95 % interval", "limit", "verdict", "about"):
        table.add_column(heading, overflow="fold")
    for finding in shown:
        value = "" if finding.value is None else f"{finding.value:.3g}"
        spread = "" if finding.interval is None else f"{finding.interval[0]:.3f} to {finding.interval[1]:.3f}"
        verdict = f"[{COLOURS[finding.verdict]}]{finding.verdict}[/]"
        cells = (finding.code, finding.title, value, spread, finding.limit or "", verdict, finding.explanation)
        table.add_row("  ", *(cell if cell == verdict else escape(cell) for cell in cells))
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=200)
    console.print(table)


def _verdict(report: Report) -> str:
    if report.passed:
        return "[green]passed[/]"
    codes = ", ".join(dict.fromkeys(finding.code for finding in report.failed))
    return f"[red]failed[/]: {codes}" if codes else "[yellow]nothing could be judged[/]"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {escape(reason)}" for reason, count in counts.items())
