"""The command line. Heavy libraries are imported by the command that needs them: `medimind --help` is instant."""

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.errors import MediMindError

if TYPE_CHECKING:
    from configs.settings import Settings

app = typer.Typer(
    name="medimind",
    help="One page of YAML about a clinical question becomes a risk model, trained, judged, served and watched.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
ledger_app = typer.Typer(help="Back up, restore and purge the ledger.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger")
keys_app = typer.Typer(help="Whose signature on a bundle counts here.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

Name = Annotated[str, typer.Argument(help="A disease: the name of its YAML.")]
Version = Annotated[str, typer.Argument(help="A version, NAME@VERSION.")]
Number = Annotated[int | None, typer.Argument(metavar="[VERSION]", help="Its number, where only NAME is given.")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
KEEP_ALIVE_S = 75
"""How long an idle connection stays open: longer than the minute after which most clients let go of theirs."""

AsFlow = Annotated[bool, typer.Option("--flow", help="Run as a Prefect flow, as with PREFECT_API_URL set.")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False) -> None:
    if debug:
        os.environ["MEDIMIND_TRACE"] = "1"


def main() -> None:
    """The entry point: an error is one line on standard error, and exit code 2."""
    try:
        app()
    except Exception as exc:
        if os.environ.pop("MEDIMIND_TRACE", None):
            raise
        explained = isinstance(exc, MediMindError)
        said = str(exc) if explained else f"an error of our own ({type(exc).__name__}); `medimind --debug …` shows it"
        print(f"medimind: {said}", file=sys.stderr)
        sys.exit(2)


@app.command("list")
def list_() -> None:
    """The diseases, which of them are released, their champions, and what is stopped, retired or expired."""
    from configs.spec import diseases, enabled, load_spec
    from ledger import stops
    from ledger.database import connect
    from ledger.promotions import find_champion
    from pipelines import story
    from pipelines.stop import state

    settings = _settings()
    released = enabled(settings.configs)
    engine = connect(settings)
    for name in diseases(settings.configs):
        who = state(find_champion(engine, name), stops.find(engine, name), settings)
        title = load_spec(name, settings.configs).title
        story.say(f"{name:24} {'released' if name in released else 'draft':9} {who:48} {title}")


@app.command()
def check(name: Name) -> None:
    """Does the YAML hold together: is every name in it a thing in the repository."""
    from pipelines import sources, story
    from pipelines.check import check

    settings = _settings()
    spec = check(name, settings)
    story.say(
        f"configs/diseases/{name}.yaml holds together: {len(spec.columns)} columns, {len(spec.features)} features, "
        f"candidates {', '.join(spec.candidates)}; spec {spec.digest[:12]}."
    )
    for file in sources.absent(spec, settings):
        story.say(file)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new disease's name: lower-case letters, digits and _.")],
    source: Annotated[Path, typer.Option("--from", help="A table, .csv or .parquet.")],
) -> None:
    """Draft a disease's YAML from a table, with a TODO for what only a clinician knows."""
    from configs.errors import SpecError
    from pipelines import story
    from pipelines.draft import draft
    from pipelines.files import replacing

    configs = _settings().configs
    path = configs / "diseases" / f"{name}.yaml"
    if path.exists():
        raise SpecError(f"configs/diseases/{name}.yaml exists already; nothing was changed.")
    source, root = source.resolve(), configs.parent.resolve()
    text = draft(name, source, source.relative_to(root) if source.is_relative_to(root) else source)
    with replacing(path, SpecError) as partial:
        partial.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    story.say(f"{path} is drafted. Fill in each TODO, then: medimind check {name}; medimind run {name}")


@app.command()
def run(names: Annotated[list[str], typer.Argument(help="Diseases.")]) -> None:
    """Ingest, prepare, train, validate, and promote if the gates pass. Runs as a flow."""
    from configs.errors import PromotionError, SourceError
    from pipelines import sources
    from pipelines.check import check

    settings = _settings()
    for name in names:
        if lacking := sources.absent(check(name, settings), settings):
            raise SourceError(" ".join(lacking))  # before a flow is started to find that out
    flows = _flows()
    if refused := flows.run(names):
        raise PromotionError(
            f"{', '.join(refused)}: not promoted, a gate failed; the version is registered with its report."
        )


@app.command()
def ingest(name: Name, flow: AsFlow = False) -> None:
    """Read the source, check every row against the contract, keep the records."""
    if _as_flow(flow):
        _flows().ingest(name)
        return
    from pipelines import story
    from pipelines.ingest import ingest

    story.ingested(ingest(name, _settings()))


@app.command()
def prepare(name: Name, flow: AsFlow = False) -> None:
    """Turn records into a cohort: features, outcomes, split."""
    if _as_flow(flow):
        _flows().prepare(name)
        return
    from pipelines import story
    from pipelines.prepare import prepare

    story.prepared(prepare(name, _settings()))


@app.command()
def train(
    name: Name,
    flow: AsFlow = False,
    resume: Annotated[bool, typer.Option("--resume", help="Networks go on where a killed training left them.")] = False,
    memory: Annotated[
        bool, typer.Option("--explain-memory", help="Say what each network's training takes, in MB, and train nothing.")
    ] = False,
) -> None:
    """Compare the candidates, calibrate the best, write the bundle."""
    from pipelines.check import check

    settings = _settings()
    check(name, settings)
    if memory:
        from pipelines.train import explain_memory

        _tell(*explain_memory(name, settings))
        return
    if _as_flow(flow):
        _flows().train(name, resume)
        return
    from pipelines import story
    from pipelines.train import train

    story.trained(train(name, settings, resume=resume))


@app.command()
def validate(
    name: Annotated[str, typer.Argument(help="A disease; with --on a version, NAME@VERSION.")],
    on: Annotated[
        str | None, typer.Option("--on", help="Patients of somewhere else: a .csv or .parquet file, or a disease.")
    ] = None,
    flow: AsFlow = False,
) -> None:
    """Judge the bundle on patients it never saw, and register it with the report; --on: a version, elsewhere."""
    from pipelines import story

    if on is not None:
        from pipelines.external import validate_on
        from pipelines.promote import parse_version

        story.validated_on(validate_on(*parse_version(name), on, _settings()))
        return
    if _as_flow(flow):
        _flows().validate(name)
        return
    from pipelines.validate import validate

    story.validated(validate(name, _settings()))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A version, NAME@VERSION.")],
    b: Annotated[str, typer.Argument(help="Another version of the same disease.")],
) -> None:
    """Two versions on the same test patients: paired figures with intervals, and what differs between them."""
    from pipelines import story
    from pipelines.compare import compare
    from pipelines.promote import parse_pair

    story.compared(compare(*parse_pair(a, b), _settings()))


@app.command()
def promote(
    version: Version,
    reason: Why,
    flow: AsFlow = False,
) -> None:
    """Make a version champion; refused unless its own report passes and it has the approvals that its plan asks for."""
    from pipelines.promote import parse_version, promote

    name, number = parse_version(version)
    if _as_flow(flow):
        _flows().promote(name, number, reason)
        return
    from pipelines import story

    done = promote(name, number, reason, _settings())
    story.promoted(done)
    _tell(*done.notes)


@app.command()
def review(version: Version, number: Number = None) -> None:
    """Write the version's review page: one HTML file, to be read before it is approved, promoted or rejected."""
    from pipelines.review import asked, review

    _tell(f"review    {review(*asked(version, number), _settings())}")


@app.command()
def report(
    version: Version,
    form: Annotated[str, typer.Option("--format", help="tripod (TRIPOD+AI), chai (CHAI's model card) or card (JSON).")],
    number: Number = None,
    output: Annotated[Path | None, typer.Option(help="A file; default: standard output.")] = None,
) -> None:
    """The version's facts in the order of a reporting guideline; what nobody wrote down is said to be missing."""
    from configs.errors import PromotionError
    from pipelines.files import replacing
    from pipelines.review import asked, report

    text = report(*asked(version, number), form, _settings())
    if output is None:
        print(text, end="")
        return
    with replacing(output, PromotionError) as partial:
        partial.write_text(text, encoding="utf-8")


@app.command()
def approve(version: Version, reason: Why) -> None:
    """Approve a version: exactly this bundle and report. Who you are is MEDIMIND_USER, asserted, not authenticated."""
    from pipelines.approve import approve
    from pipelines.promote import parse_version

    done = approve(*parse_version(version), reason, _settings())
    _tell(f"{version} (bundle {done.bundle[:12]}) is approved by {done.actor}, asserted, not authenticated: {reason}")
    _tell(f"waits: {done.waits_for}" if done.waits_for else f'next: medimind promote {version} --reason "…"')


@app.command()
def reject(version: Version, reason: Why) -> None:
    """Reject a version: nobody promotes it until you approve it after all. Who you are is MEDIMIND_USER."""
    from pipelines.approve import reject
    from pipelines.promote import parse_version

    done = reject(*parse_version(version), reason, _settings())
    _tell(f"{version} (bundle {done.bundle[:12]}) is rejected by {done.actor}, asserted, not authenticated: {reason}")


@app.command()
def history(
    name: Name,
    at: Annotated[
        str | None, typer.Option("--at", help="A time, UTC unless it says otherwise: who was champion.")
    ] = None,
) -> None:
    """Every decision about a disease, in order; with --at who was champion then, and why."""
    from pipelines import history

    settings = _settings()
    _tell(*(history.at(name, at, settings) if at else history.history(name, settings)))


@app.command()
def verify() -> None:
    """Is every decision still as it was taken, and every bundle that answers whole. Exit code 1 if anything is not."""
    from pipelines import story
    from pipelines.verify import verify

    done = verify(_settings())
    story.verified(done)
    if done.problems:
        raise typer.Exit(1)


@app.command()
def rollback(name: Name, reason: Why) -> None:
    """Make the champion before the present one champion again; a second rollback goes further back."""
    from pipelines.promote import rollback

    done = rollback(name, reason, _settings())
    _tell(f"{name}@{done.promotion.version} is champion again: {reason}", *done.notes)
    if done.alias:
        _tell(f"MLflow's champion alias could not be copied: {done.alias}")


@app.command()
def stop(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="Why; every caller is told it, so nothing of a patient.")],
    lift: Annotated[bool, typer.Option("--lift", help="End the stop.")] = False,
) -> None:
    """Answer 503 with the reason instead of a risk, on every worker, until the stop is lifted."""
    from pipelines.stop import lift as end
    from pipelines.stop import stop

    if lift:
        end(name, reason, _settings())
        _tell(f"{name} is not stopped any more: {reason}")
        return
    stop(name, reason, _settings())
    _tell(f"{name} is stopped: {reason}", f'`medimind stop {name} --lift --reason "…"` ends it')


@app.command()
def retire(
    version: Version,
    reason: Annotated[str, typer.Option("--reason", help="Why; callers are told it, so nothing of a patient.")],
) -> None:
    """Let a version never answer again. There is no way back: a retired version stays retired."""
    from pipelines.promote import parse_version
    from pipelines.stop import retire

    name, number = parse_version(version)
    champion = retire(name, number, reason, _settings())
    _tell(f"{version} is retired, for good: {reason}")
    if champion:
        _tell(
            f'it is the champion, so {name} answers 503 now: `medimind rollback {name} --reason "…"` goes back to '
            f'the champion before, `medimind promote {name}@VERSION --reason "…"` makes another one'
        )


@app.command()
def traffic(
    name: Name,
    shadow: Annotated[str | None, typer.Option(help="NAME@VERSION scores the same records and never answers.")] = None,
    canary: Annotated[str | None, typer.Option(help="NAME@VERSION answers a --share of the patients.")] = None,
    share: Annotated[float | None, typer.Option(help="Of a canary: above 0, at most 1.")] = None,
    ab: Annotated[str | None, typer.Option(help="TAG=NAME@VERSION answers what is tagged TAG.")] = None,
    off: Annotated[str | None, typer.Option(help="shadow, canary or a TAG: the champion answers again.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the record.")] = None,
) -> None:
    """Let another version than the champion score or answer some records; without an option: what is set."""
    from pipelines.traffic import change, told

    settings = _settings()
    asked = {"--shadow": shadow, "--canary": canary, "--ab": ab, "--off": off}
    change(name, {option: value for option, value in asked.items() if value is not None}, share, reason, settings)
    _tell(*told(name, settings))


@app.command()
def predict(name: Name, file: Annotated[Path, typer.Argument(help="A JSON file of one record or several.")]) -> None:
    """What the champion says of a file's records. Not put on record; the server's answers are."""
    import json

    from pipelines.score import predict

    print(json.dumps(predict(name, file, _settings()), indent=2, ensure_ascii=False))


@app.command()
def score(
    name: Name,
    source: Annotated[Path, typer.Option("--input", help="A table, .csv or .parquet.")],
    target: Annotated[Path, typer.Option("--output", help="Where risk and band of each row go, .csv or .parquet.")],
) -> None:
    """Score a whole table with the champion. Not put on record."""
    from pipelines import story
    from pipelines.score import score

    scored, refused = score(name, source, target, _settings())
    story.say(f"{scored} rows scored, {refused} refused, each with its reason: {target}")


@app.command()
def replay(prediction: Annotated[str, typer.Argument(help="A prediction's id, such as 17-0.")]) -> None:
    """Compute a prediction on record once more, with the bundle that made it. Exit code 1 if it comes out otherwise."""
    from ledger.database import connect
    from ledger.replay import replay
    from pipelines import story

    settings = _settings()
    done = replay(connect(settings), settings, prediction)
    story.replayed(done)
    if not done.holds:
        raise typer.Exit(1)


@app.command()
def monitor(
    name: Name,
    since: Annotated[
        str | None, typer.Option("--since", help="A time: look at all since then, once, off the record.")
    ] = None,
    flow: AsFlow = False,
) -> None:
    """Judge the champion's windows of predictions and outcomes, tell whom it concerns, and write their pages."""
    from ledger.predictions import since as parse

    begin = parse(since) if since else None
    if _as_flow(flow):
        _flows().monitor(name, begin)
        return
    from pipelines import story
    from pipelines.monitor import monitor

    story.monitored(monitor(name, begin, _settings()))


@app.command()
def retrain(
    name: Name,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Begin one now, whatever the spec's triggers say, and why.")
    ] = None,
    flow: AsFlow = False,
) -> None:
    """The loop, once: is a retraining due, or under way; then as far as the evidence carries it now."""
    if _as_flow(flow):
        _flows().retrain(name, reason)
        return
    from ledger.database import connect
    from pipelines import alerts, story
    from pipelines.retrain import retrain

    settings = _settings()
    story.retrained(retrain(name, settings, reason))
    alerts.deliver(connect(settings), settings)


@app.command()
def simulate(
    name: Name,
    source: Annotated[
        str | None, typer.Option("--source", help="Who comes in: a .csv or .parquet file. Default: the external part.")
    ] = None,
    per_day: Annotated[
        int | None, typer.Option("--per-day", help="Patients a day, where the source has no time. Default: 10.")
    ] = None,
    outcomes_after: Annotated[
        float, typer.Option("--outcomes-after", help="Days until an outcome is known, half more or less.")
    ] = 1,
    plant: Annotated[bool, typer.Option("--plant", help="Plant a bad candidate: once refused, once forced.")] = False,
    limit: Annotated[int | None, typer.Option(help="The first so many patients alone.")] = None,
    output: Annotated[Path | None, typer.Option(help="A folder that the pages are copied to.")] = None,
) -> None:
    """Replay history through the whole loop, in a ledger of its own: what would be watched, retrained and promoted."""
    from pipelines import story
    from pipelines.simulate import Asked, simulate

    asked = Asked(source, per_day, outcomes_after, plant, limit, output)
    story.simulated(simulate(name, asked, _settings(), story.happened))


@app.command()
def serve(
    names: Annotated[list[str] | None, typer.Argument(help="Diseases; default: the released ones.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: MEDIMIND_PORT, or 8400.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    host: Annotated[
        str, typer.Option(help="Another address than loopback needs --allow-unauthenticated.")
    ] = "127.0.0.1",
    allow_unauthenticated: Annotated[bool, typer.Option(help="Serve beyond this machine, to anybody.")] = False,
) -> None:
    """Serve the champions over HTTP, until interrupted."""
    from configs.errors import ServiceError
    from configs.spec import enabled, load_spec
    from ledger.database import connect

    settings = _settings()
    chosen = names or enabled(settings.configs)
    for name in chosen:
        load_spec(name, settings.configs)
    if host not in ("127.0.0.1", "localhost", "::1") and not allow_unauthenticated:
        raise ServiceError(
            f"--host {host}: there is no authentication yet, so only 127.0.0.1 is served; --allow-unauthenticated "
            "serves anybody who reaches that address."
        )
    connect(settings).dispose()  # migrated once, before the workers open it
    import resource

    from configs.settings import ROOT

    # A connection is an open file, and a shell's usual limit is 1,024 of them.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    os.environ["MEDIMIND_SERVED"] = ",".join(chosen)
    os.environ["MEDIMIND_WORKERS"] = str(workers)
    os.environ["MEDIMIND_PARENT"] = str(os.getpid())  # what is executed below keeps the number
    os.environ["BENTOML_HOME"] = str(settings.private(settings.home / "bentoml"))
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Service", "--working-dir", str(ROOT)]
    command += ["--timeout-keep-alive", str(KEEP_ALIVE_S), "--host", host, "--port", str(port or settings.port)]
    os.execv(sys.executable, command)


@app.command()
def load(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Records: .json, .jsonl, .csv or .parquet.")],
    rate: Annotated[float, typer.Option(help="Requests a second; one core sends about 1,500.")],
    seconds: Annotated[float, typer.Option(help="For how long.")] = 10.0,
    url: Annotated[str | None, typer.Option(help="Default: http://127.0.0.1, port MEDIMIND_PORT or 8400.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Records in a request.")] = 1,
    connections: Annotated[int, typer.Option(min=1, help="At most so many requests are on their way.")] = 64,
) -> None:
    """Replay a file of records to the server here at a set rate; they go on record. Exit code 1 if a request fails."""
    from pipelines import story
    from pipelines.load import Plan, load

    settings = _settings()
    plan = Plan(rate, seconds, batch, connections)
    done = load(name, file, url or f"http://127.0.0.1:{settings.port}", plan, settings)
    story.loaded(done)
    if done.errors:
        raise typer.Exit(1)


@app.command()
def schedule() -> None:
    """Deploy the released diseases' flows to the Prefect server at PREFECT_API_URL."""
    from configs.errors import ServiceError
    from configs.spec import enabled
    from pipelines import story

    settings = _settings()
    if "PREFECT_API_URL" not in os.environ:
        raise ServiceError("PREFECT_API_URL is not set: `make up` starts a Prefect server here and prints its address.")
    flows = _flows()
    try:
        made = flows.deploy(enabled(settings.configs))
    except (OSError, RuntimeError) as exc:
        raise ServiceError(f"the Prefect server {os.environ['PREFECT_API_URL']} does not answer ({exc}).") from exc
    story.say(f"deployed {', '.join(made)}; a worker of the pool {flows.WORK_POOL!r} runs them (`make up` starts one)")


@ledger_app.command()
def backup(target: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Copy the ledger to a file while the server goes on."""
    from ledger.database import backup
    from pipelines import story

    backup(_settings(), target)
    story.say(f"the ledger is backed up to {target}")


@ledger_app.command()
def restore(source: Annotated[Path, typer.Argument(help="A backup.")]) -> None:
    """Put a backup in the ledger's place; the replaced ledger is kept beside it."""
    from ledger.database import restore
    from pipelines import story

    kept = restore(_settings(), source)
    before = f"the one before is kept as {kept}" if kept.exists() else "there was none before"
    story.say(f"the ledger is restored from {source}; {before}")


@ledger_app.command()
def purge(before: Annotated[str, typer.Option("--before", help="A time; what is older is purged.")]) -> None:
    """Remove patients' records from old predictions; their digests, risks and bands stay."""
    from configs.errors import LedgerError
    from ledger.database import connect, now
    from ledger.predictions import purge, since
    from pipelines import story

    settings = _settings()
    time = since(before)
    if time > now():
        raise LedgerError(f"--before {before} lies in the future (UTC unless it says otherwise). Nothing was purged.")
    count = purge(connect(settings), time, settings.actor)
    story.say(f"{count} predictions before {before} are purged")
    story.say(
        "not reached, delete them yourself: backups, earlier ledgers that restore kept (*.before-restore-*), "
        f"drift drawings under {settings.reports}, what {settings.home / 'spool'} still holds"
    )


@keys_app.command("list")
def list_keys() -> None:
    """The trusted keys, their days, and which one signs here."""
    from pipelines import keys

    settings = _settings()
    listed = keys.listed(settings)
    for each in listed:
        days = f"since {each.key.added}" + (f", to {each.key.expires}" if each.key.expires else "")
        _tell(f"{each.key.id} {each.state}, {days}{', signs here' if each.signs else ''}: {each.key.note}")
    if not listed:
        _tell(f"{settings.trust_file} lists no key; the first version that is registered here makes one")


@keys_app.command()
def rotate(reason: Why) -> None:
    """Sign with a new key; what the old one signed stays served, its private key is destroyed."""
    from pipelines import keys

    old, new = keys.rotate(reason, _settings())
    _tell(f"key {new} signs from now on" + (f"; what {old} signed stays accepted" if old else ""))


@keys_app.command()
def trust(
    file: Annotated[Path, typer.Argument(help="A public key in PEM, as `keys export` writes it.")],
    note: Annotated[str, typer.Option(help="Whose it is, and how you know.")],
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day, UTC; default: none.")
    ] = None,
) -> None:
    """Accept what another machine's key signed."""
    from pipelines import keys

    key = keys.trust(file, note, expires.date() if expires else None, _settings())
    _tell(f"key {key.id} is trusted" + (f" to {key.expires}" if key.expires else ""))


@keys_app.command()
def revoke(key: Annotated[str, typer.Argument(help="A key's id.")], reason: Why) -> None:
    """Accept nothing that a key signed; servers refuse its bundles when they next load them."""
    from pipelines import keys

    revoked = keys.revoke(key, reason, _settings())
    _tell(f"key {revoked.id} is revoked; `medimind verify` tells which of the bundles that answer it signed")


@keys_app.command()
def export() -> None:
    """Print this machine's public key, for another machine's `keys trust`."""
    from models.signing import own_public

    typer.echo(own_public(_settings()).decode(), nl=False)


@keys_app.command("sign")
def sign_version(version: Version, reason: Why) -> None:
    """Sign a version of an earlier release, or of a key that no longer counts, once its files and self-test hold."""
    from pipelines import keys
    from pipelines.promote import parse_version

    digest = keys.sign(*parse_version(version), reason, _settings())
    _tell(f"{version} is signed, bundle {digest[:12]}")


def _tell(*lines: str) -> None:
    """Lines that may hold a person's words, which are no markup."""
    from rich.markup import escape

    from pipelines import story

    for line in lines:
        story.say(escape(line))


def _settings() -> "Settings":
    from configs.settings import settings

    here = settings()
    here.private(here.home)  # before DVC, or a library, makes it for everybody to read
    return here


def _as_flow(asked: bool) -> bool:
    return asked or "PREFECT_API_URL" in os.environ


def _flows() -> Any:
    """The flows' module, with Prefect's state under our home and its own noise off."""
    settings = _settings()
    os.environ.setdefault("PREFECT_HOME", str(settings.private(settings.home / "prefect")))
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
    # Prefect logs a failed flow with its trace; here the error is told once, in one line, by main().
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR" if "MEDIMIND_TRACE" in os.environ else "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    from pipelines import flows

    return flows


if __name__ == "__main__":
    main()
