"""The whole loop over history, at full speed: the first model, patients, outcomes, windows, retrainings, the time line.

What answers, watches, retrains and promotes is what does it for real, in a home of its own: a ledger, a registry, a
store and keys that nobody else has. Only the clock is made up: `ledger.database.at` lets it be the moment that the
history has reached.
"""

import heapq
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from configs.errors import LedgerError, PromotionError, SourceError
from configs.settings import Settings
from configs.spec import Spec, load_spec
from evidence import retraining
from ledger import outcomes, predictions, promotions, refusals, retrainings, tables, traffic, windows
from ledger.database import Engine, at, connect, now, writing
from ledger.outcomes import Outcome
from ledger.predictions import Answered, Entry, by_class
from ledger.promotions import Promotion
from ledger.retrainings import Step
from ledger.windows import Judged
from models import bundle as bundles
from models.predict import Predictor
from pipelines import ingest, monitor, pages, plant, prepare, promote, retrain, sources, train, validate
from pipelines.files import replacing
from pipelines.promote import Waits
from pipelines.stream import Arrival, Stream, stream

BATCH = 20
"""Records of one request."""

JITTER = 0.5
"""By which share of the delay, at most, an outcome comes earlier or later: so they come out of order."""

Tell = Callable[[date, str], None]


@dataclass(frozen=True)
class Asked:
    """What is replayed, and how. `per_day`: of a source without times alone. `plant`: a bad candidate, twice."""

    source: str | None = None
    per_day: int | None = None
    outcomes_after_days: float = 1.0
    plant: bool = False
    limit: int | None = None
    output: Path | None = None


@dataclass(frozen=True)
class Found:
    """A finding that failed in a window: the first one, and in how many of how many windows."""

    code: str
    title: str
    explanation: str
    window: str
    ends_at: datetime
    failed: int
    judged: int


@dataclass(frozen=True)
class Earned:
    """How far the estimate without outcomes lay from what came true: over n windows, the mean difference and the mean
    distance, and how often what came true lay in its interval."""

    n: int
    mean: float
    distance: float
    inside: int


@dataclass(frozen=True)
class Crowned:
    """A promotion, or a rollback, as it stands on record."""

    version: int
    bundle: str
    at: datetime
    action: str
    reason: str


@dataclass(frozen=True)
class Compared:
    """A new champion beside the one before it, on the patients whom the new one answered: every figure, paired.

    `action`: promote, or rollback where it was champion before.
    """

    version: int
    earlier: int
    action: str
    n: int
    events: int
    paired: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Simulated:
    """What came of it. `planted` tells of the bad candidate, a sentence each."""

    name: str
    folder: Path
    timeline: Path | None
    """None where no window was full."""
    stream: Stream
    days: int
    """On which patients or outcomes came."""
    answered: int
    windows: int
    champions: tuple[Crowned, ...]
    found: tuple[Found, ...]
    earned: Mapping[str, Earned]
    steps: tuple[Step, ...]
    compared: tuple[Compared, ...]
    planted: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """One prediction as it was answered, for the comparison at the end. `features` (d,)."""

    bundle: str
    at: datetime
    risk: float
    features: NDArray[np.float32]
    outcome: int | None


@dataclass
class Clinic:
    """A model's home of its own, and who answers in it."""

    name: str
    settings: Settings
    engine: Engine
    key: bytes
    answers: list[Answer] = field(default_factory=list)
    _ready: dict[str, Predictor] = field(default_factory=dict)

    @property
    def champion(self) -> Promotion:
        found = promotions.find_champion(self.engine, self.name)
        assert found is not None
        return found

    def predictor(self, bundle: str) -> Predictor:
        if bundle not in self._ready:
            self._ready[bundle] = Predictor(bundles.get(bundle, self.settings))
        return self._ready[bundle]

    def answer(self, arrivals: Sequence[Arrival]) -> list[str | None]:
        """One request: answered, on record, and scored in the shadow. Each record's id; None if it was refused."""
        champion, lanes = self.champion, traffic.find(self.engine, self.name)
        sides: dict[bool, list[int]] = {False: [], True: []}
        for place, arrival in enumerate(arrivals):
            (whose,) = predictions.hash_patients(self.key, [arrival.record.get("patient")])
            canary = lanes.canary is not None and whose is not None and traffic.side(whose, lanes.canary)
            sides[canary].append(place)
        ids: list[str | None] = [None] * len(arrivals)
        for canary, places in sides.items():
            if not places:
                continue
            to = lanes.canary if canary and lanes.canary else champion
            kept = self._part([arrivals[place] for place in places], to.version, to.bundle, canary, lanes)
            for place, said in zip(places, kept, strict=True):
                ids[place] = said
        return ids

    def _part(
        self, arrivals: Sequence[Arrival], version: int, bundle: str, canary: bool, lanes: traffic.Traffic
    ) -> list[str | None]:
        """The records that one version answers; the shadow scores them as well."""
        predictor = self.predictor(bundle)
        checked = predictor.contract.check([arrival.record for arrival in arrivals], now())
        refused = Counter((self.name, error.code, error.field or "") for error in checked.errors.values())
        refusals.put(self.engine, refused)
        good = [place for place in range(len(arrivals)) if place not in checked.errors]
        if not good:
            return [None] * len(arrivals)
        X = predictor.matrix(checked.values, checked.at)
        said, missing = predictor.risks(X), predictor.missing(checked.values)
        risks, abstained = predictor.positive(said), predictor.abstains(said, missing)
        features, digests = predictions.kept_features(predictor.plan, X)
        row = Answered(
            self.name,
            version,
            bundle,
            now(),
            predictor.contract.table(checked.cells),
            checked.references,
            predictions.hash_patients(self.key, checked.patients),
            features,
            risks,
            predictor.bands(risks, abstained),
            lanes.canary.id if canary and lanes.canary else None,
            by_class(predictor, said, abstained),
            digests,
        )
        (number,) = json.loads(predictions.keep(self.engine, Entry([row], None, msgspec.json.encode)))
        if lanes.shadow is not None:
            self._shadow(lanes.shadow, number, [arrivals[place] for place in good])
        ids: list[str | None] = [None] * len(arrivals)
        for position, place in enumerate(good):
            ids[place] = predictions.prediction_id(number, position)
            self.answers.append(Answer(bundle, now(), float(risks[position]), X[position], arrivals[place].outcome))
        return ids

    def _shadow(self, route: traffic.Route, number: int, arrivals: Sequence[Arrival]) -> None:
        predictor = self.predictor(route.bundle)
        checked = predictor.contract.check([arrival.record for arrival in arrivals], now())
        risks = np.full(len(arrivals), np.nan)  # NaN: this version's contract refuses the record
        good = [place for place in range(len(arrivals)) if place not in checked.errors]
        if good:
            risks[good] = predictor.risk(predictor.matrix(checked.values, checked.at))
        row = {"version": route.version, "bundle": route.bundle, "risks": risks.tobytes(), "at": now()}
        with writing(self.engine) as connection:
            connection.execute(tables.shadows.insert(), {"request": number, **row})


def simulate(name: str, asked: Asked, settings: Settings, tell: Tell | None = None) -> Simulated:
    """Replay history through the whole loop, and draw its time line; `tell` hears of each step as it is taken.

    Raises SourceError if nobody could come in, or their outcomes cannot judge a model; PromotionError if the first
    model does not pass its gates.
    """
    if not 0 <= asked.outcomes_after_days < 36_500:
        raise SourceError(f"--outcomes-after {asked.outcomes_after_days:g}: 0 days or more are expected.")
    spec = load_spec(name, settings.configs)
    coming = stream(spec, asked.source, asked.per_day, asked.limit, settings)
    tell = tell or (lambda _, __: None)
    clinic = _opened(spec, settings)
    with at(_begin(coming.arrivals[0].at) - timedelta(days=1)):
        tell(now().date(), _first(name, clinic.settings))
    planting = plant.Plant(name, len(coming.arrivals) / 2) if asked.plant else None
    days = 0
    for end in _days(clinic, spec, coming, asked.outcomes_after_days):
        days += 1
        with at(end):
            champion = clinic.champion
            monitor.watch(clinic.engine, champion, clinic.predictor(champion.bundle), clinic.settings)
            for step in retrain.retrain(name, clinic.settings).steps:
                tell(now().date(), step.told)
            if planting is not None:
                for said in planting.look(clinic.engine, len(clinic.answers), clinic.settings):
                    tell(now().date(), said)
    return _told(clinic, spec, coming, days, planting, asked.output)


def _opened(spec: Spec, settings: Settings) -> Clinic:
    """A home of its own, with the source's file in it if this machine has that already."""
    home = settings.home / "simulations" / f"{spec.name}-{now():%Y%m%dT%H%M%S%f}"
    settings.private(home)
    # Every fact is written out: one that came from the environment would lead to the real ledger, registry or keys.
    scratch = Settings(
        home=home,
        configs=settings.configs,
        data=home / "data",
        ledger="",
        registry="",
        signing_key=SecretStr(""),
        trust="",
        alerts=SecretStr(""),
        user=settings.user,
    )
    for place in (spec.source, *spec.source.events):
        here, there = (sources.raw_file(spec.name, place, machine) for machine in (settings, scratch))
        if here is not None and there is not None and here != there and here.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(here, there)
    return Clinic(spec.name, scratch, connect(scratch), predictions.patient_key(home))


def _first(name: str, settings: Settings) -> str:
    """The first champion, by the verbs that make one for real; how it got there. Raises PromotionError if it waits."""
    ingest.ingest(name, settings)
    prepare.prepare(name, settings)
    train.train(name, settings)
    version = validate.validate(name, settings).version
    done = promote.offer(name, version.number, settings)
    if isinstance(done, Waits):
        raise PromotionError(f"{version}: the first model is not promoted by itself: {'; '.join(done.why)}.")
    return f"{version} promoted: {done.promotion.reason}"


def _days(clinic: Clinic, spec: Spec, coming: Stream, after_days: float) -> Iterator[datetime]:
    """Let each day's patients and outcomes come, and yield its end; days on which nothing comes are passed over."""
    dice = np.random.default_rng(spec.split.seed)
    waiting: list[tuple[datetime, int, str, int | str]] = []
    place = 0
    while place < len(coming.arrivals) or waiting:
        nearest = min([*(arrival.at for arrival in coming.arrivals[place : place + 1]), *(w[0] for w in waiting[:1])])
        end = _begin(nearest) + timedelta(days=1)
        while place < len(coming.arrivals) and coming.arrivals[place].at < end:
            batch = coming.arrivals[place : place + BATCH]
            batch = tuple(arrival for arrival in batch if arrival.at < end)
            with at(batch[-1].at):
                ids = clinic.answer(batch)
            for number, (arrival, said) in enumerate(zip(batch, ids, strict=True), start=place):
                if said is not None and arrival.outcome is not None:
                    delay = timedelta(days=after_days * dice.uniform(1 - JITTER, 1 + JITTER))
                    heapq.heappush(waiting, (batch[-1].at + delay, number, said, arrival.label or arrival.outcome))
            place += len(batch)
        with writing(clinic.engine) as connection:
            while waiting and waiting[0][0] < end:
                when, _, said, value = heapq.heappop(waiting)
                with at(when):
                    outcomes.record(connection, Outcome(said, None, None, value, when))
        yield end - timedelta(seconds=1)


def _begin(moment: datetime) -> datetime:
    """The beginning of its day, in UTC."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _told(
    clinic: Clinic, spec: Spec, coming: Stream, days: int, planting: "plant.Plant | None", output: Path | None
) -> Simulated:
    engine, name = clinic.engine, clinic.name
    crowned = _crowned(engine, name)
    judged = [one for bundle in {each.bundle: None for each in crowned} for one in windows.judged(engine, name, bundle)]
    judged.sort(key=lambda one: one.block.last)
    notes = [f"A replay of {coming.where}, in a ledger of its own: nobody was answered."]
    if coming.invented:
        notes.append("The source has no time: every day and hour here is invented, and only the order is meant.")
    if planting is not None:
        notes.append("A bad candidate was planted: once to be refused, once promoted by force to be rolled back.")
    timeline = None
    if judged:
        timeline, _ = pages.write(engine, name, clinic.settings, notes=notes)
    folder = clinic.settings.private(clinic.settings.reports / name)
    done = Simulated(
        name,
        folder,
        timeline,
        coming,
        days,
        len(clinic.answers),
        len(judged),
        crowned,
        _found(judged),
        _earned([one for one in judged if planting is None or one.block.version != planting.version]),
        tuple(retrainings.steps(engine, name)),
        _compared(clinic, spec, crowned),
        tuple(planting.said) if planting else (),
    )
    with replacing(folder / "simulation.json", LedgerError) as partial:
        partial.write_text(json.dumps(_plain(done), indent=1), encoding="utf-8")
    if output is None:
        return done
    try:
        shutil.copytree(folder, output, dirs_exist_ok=True)
    except (OSError, shutil.Error) as exc:
        raise SourceError(f"--output {output}: could not be written; everything lies in {folder}.") from exc
    return replace(done, folder=output, timeline=timeline and output / timeline.name)


def _crowned(engine: Engine, name: str) -> tuple[Crowned, ...]:
    told = [decision.fields for decision in pages.decided(engine, name) if decision.kind == "promotions"]
    return tuple(Crowned(*(each[key] for key in ("version", "bundle", "at", "action", "reason"))) for each in told)


def _found(judged: Sequence[Judged]) -> tuple[Found, ...]:
    """Of each finding that ever failed, where it first did."""
    first: dict[str, Found] = {}
    asked, failed = Counter[str](), Counter[str]()
    for one in judged:
        asked.update({finding.code for finding in one.report.findings if finding.verdict != "not applicable"})
        failed.update({finding.code for finding in one.report.failed})
        for finding in one.report.failed:
            window = f"@{one.block.version}, {one.block.number}"
            first.setdefault(
                finding.code, Found(finding.code, finding.title, finding.explanation, window, one.ends_at, 0, 0)
            )
    return tuple(replace(each, failed=failed[code], judged=asked[code]) for code, each in sorted(first.items()))


def _earned(judged: Sequence[Judged]) -> dict[str, Earned]:
    """For each figure that was estimated without outcomes, and then came true."""
    pairs: dict[str, list[tuple[float, bool]]] = {}
    for one in judged:
        true = _figures(one.report.figures.get("realized"))
        for name, guess in _figures(one.report.figures.get("estimate")).items():
            if (came := true.get(name)) is None:
                continue
            low, high = guess.get("low"), guess.get("high")
            inside = low is not None and high is not None and low <= came["value"] <= high
            pairs.setdefault(name, []).append((guess["value"] - came["value"], inside))
    return {
        name: Earned(
            len(each),
            float(np.mean([gap for gap, _ in each])),
            float(np.mean([abs(gap) for gap, _ in each])),
            sum(inside for _, inside in each),
        )
        for name, each in pairs.items()
    }


def _figures(told: Any, of: str = "") -> dict[str, Mapping[str, float]]:
    """The figures that have a value, by name; one of an operating point by both names."""
    if not isinstance(told, Mapping):
        return {}
    if "value" in told:
        return {} if told["value"] is None else {of: told}
    return {
        name: figure for key, each in told.items() for name, figure in _figures(each, f"{of} {key}".strip()).items()
    }


def _compared(clinic: Clinic, spec: Spec, crowned: Sequence[Crowned]) -> tuple[Compared, ...]:
    """Each champion that took another's place, beside that one, on all whom it answered until it was replaced."""
    found = []
    ends = [*(each.at for each in crowned[1:]), None]
    for before, present, end in zip(crowned, crowned[1:], ends[1:], strict=False):
        seen = [
            answer
            for answer in clinic.answers
            if answer.bundle == present.bundle
            and answer.outcome is not None
            and answer.at >= present.at
            and (end is None or answer.at < end)
        ]
        if not seen:
            continue
        y = np.array([answer.outcome for answer in seen], np.float64)
        new = np.array([answer.risk for answer in seen])
        old = clinic.predictor(before.bundle).risk(np.stack([answer.features for answer in seen]))
        paired = retraining.paired(y, new, old, spec.split.seed)
        found.append(Compared(present.version, before.version, present.action, len(y), int(y.sum()), paired))
    return tuple(found)


def _plain(done: Simulated) -> dict[str, Any]:
    """All but the patients, as plain JSON."""
    coming = done.stream
    return {
        "name": done.name,
        "stream": {
            "where": coming.where,
            "patients": len(coming.arrivals),
            "outcomes": coming.outcomes,
            "refused": coming.refused,
            "invented_times": coming.invented,
        },
        "days": done.days,
        "answered": done.answered,
        "windows": done.windows,
        "champions": [_dated(asdict(each)) for each in done.champions],
        "found": [_dated(asdict(each)) for each in done.found],
        "estimate": {name: asdict(each) for name, each in done.earned.items()},
        "steps": [_dated(asdict(each)) for each in done.steps],
        "compared": [asdict(each) for each in done.compared],
        "planted": list(done.planted),
    }


def _dated(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields.items()}
