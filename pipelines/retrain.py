"""The loop, once: is a retraining due, or under way; then as far as the evidence carries it now.

Each step is put on record after what it says was done, and whatever it does can be done again: a process that dies
between two steps loses nothing, and the next one goes on from the last step on record.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from configs.errors import CohortError, LedgerError, NotOnRecordError, PromotionError, TooFewError, TrainingError
from configs.settings import Settings
from configs.spec import Retrain, Spec, load_spec
from evidence import monitoring, retraining
from evidence.metrics import METRICS, Array, interval
from evidence.report import Finding
from ledger import alerts, confirmed, locks, promotions, registry, retrainings, stops, traffic, windows
from ledger.database import Engine, connect, now
from ledger.promotions import Promotion
from ledger.retrainings import Name, Step
from ledger.traffic import Lane, Target
from models import bundle as bundles
from models.bundle import Bundle
from pipelines import alerts as telling
from pipelines import candidate, promote
from pipelines.candidate import Place
from pipelines.promote import Waits


@dataclass(frozen=True)
class Done:
    """`steps` were put on record by this call; `stands` says in words where the model's retraining is now."""

    name: str
    steps: tuple[Step, ...]
    stands: str


@dataclass(frozen=True)
class Scene:
    """Who answers now, by what, and where everything lies."""

    engine: Engine
    settings: Settings
    champion: Promotion
    bundle: Bundle

    @property
    def name(self) -> str:
        return self.champion.model

    @property
    def shown(self) -> str:
        return f"{self.champion.model}@{self.champion.version}"

    @property
    def spec(self) -> Spec:
        return self.bundle.spec

    @property
    def asked(self) -> Retrain:
        return self.spec.change_control.retrain

    @property
    def shadow(self) -> Lane:
        return Lane(self.name, "shadow")

    @property
    def canary(self) -> Lane:
        return Lane(self.name, "canary")


ANNOUNCED = {"promoted": "MR004", "rolled_back": "MR005", "offered": "MR006", "refused": "MR007"}
"""Steps that people are told of, each with its code (docs/evidence.md)."""

Next = tuple[Step | None, str]
"""The next step, its work done, or None; and where things stand."""


def retrain(name: str, settings: Settings, reason: str | None = None) -> Done:
    """Take the model's retraining as far as it goes now. `reason`: a person wants it, whatever the triggers say.

    Raises BusyError if another process is at it, LedgerError if the model has no champion, PromotionError if its YAML
    is not the champion's any more.
    """
    engine = connect(settings)
    with locks.alone(engine, settings, name) as lock:
        if (why := stops.find(engine, name).stopped) is not None:
            return Done(name, (), f"{name} is stopped ({why}): nothing is retrained until the stop is lifted")
        taken: list[Step] = []
        step = retrainings.newest(engine, name)
        _announce(engine, step, settings)  # an earlier process may have died before it did
        while True:
            found, stands = _next(_scene(engine, name, settings), step, reason)
            if found is None:
                return Done(name, tuple(taken), stands)
            lock.require()
            retrainings.put(engine, found)
            _announce(engine, found, settings)
            taken.append(found)
            if found.step == "waits" or not found.open:
                return Done(name, tuple(taken), found.told)
            step, reason = found, None


def due(name: str, settings: Settings) -> tuple[str, ...]:
    """Why `retrain` has something to do, a phrase each: triggers that fire, or a retraining that is under way."""
    engine = connect(settings)
    step = retrainings.newest(engine, name)
    if step is not None and step.open:
        return (f"its retraining is under way ({step.step})",)
    return _triggers(_scene(engine, name, settings))


def _announce(engine: Engine, step: Step | None, settings: Settings) -> None:
    """Put in the outbox what people are told of a step, once."""
    if step is None:
        return
    code = ANNOUNCED.get(step.step)
    texts = {}
    if code is not None and not alerts.begun_since(engine, step.model, code, step.at):
        texts[code] = step.told
    champion = promotions.find_champion(engine, step.model)
    if champion is not None:
        others = set(ANNOUNCED.values()) - {code}
        alerts.failing(engine, step.model, champion.version, texts, others, list(telling.channels(settings)))


def _scene(engine: Engine, name: str, settings: Settings) -> Scene:
    champion = promotions.find_champion(engine, name)
    if champion is None:
        raise LedgerError(f"{name}: has no champion; `medimind run {name}` makes one.")
    return Scene(engine, settings, champion, bundles.get(champion.bundle, settings))


def _next(scene: Scene, step: Step | None, reason: str | None) -> Next:
    match step.step if step is not None and step.open else None:
        case "begun":
            return _train(scene, _known(step))
        case "waits":
            return _wait(scene, _known(step))
        case "trial":
            return _trial(scene, _known(step))
        case "canary":
            return _canary(scene, _known(step))
        case "promoted":
            return _probation(scene, _known(step))
        case _:
            return _begin(scene, step, reason)


def _known(step: Step | None) -> Step:
    assert step is not None
    return step


def _begin(scene: Scene, before: Step | None, reason: str | None) -> Next:
    name, spec = scene.name, scene.spec
    fired: tuple[str, ...] = ()
    if reason is None:
        if spec.monitoring.retrain_when is None:
            return None, f"{name}: its spec has no `monitoring.retrain_when`; `--reason` retrains by hand"
        fired = _triggers(scene)
        if not fired:
            return None, f"{name}: nothing is due"
        reason = "; ".join(fired)
        if before is not None and before.evidence.get("champion", {}).get("bundle") == scene.champion.bundle:
            news = confirmed.count(scene.engine, name, before.evidence["outcomes_to"])
            if news < spec.monitoring.min_outcomes:
                return None, (
                    f"{name}: due ({reason}), and the last retraining ended so: {before.told}; "
                    f"{news} outcomes have come since, the next begins with {spec.monitoring.min_outcomes}"
                )
    if load_spec(name, scene.settings.configs).digest != spec.digest:
        raise PromotionError(
            f"{name}: its YAML is not the one that {scene.shown} was trained by, and a retraining changes nothing but "
            f"the data. `medimind run {name}` trains and judges by the present one."
        )
    evidence = {
        "triggers": list(fired),
        "outcomes_to": confirmed.newest_outcome(scene.engine),
        "champion": {"version": scene.champion.version, "bundle": scene.champion.bundle},
    }
    return retrainings.first(name, before, reason, evidence, scene.settings.actor), ""


def _triggers(scene: Scene) -> tuple[str, ...]:
    when = scene.spec.monitoring.retrain_when
    if when is None:
        return ()
    found: list[str] = []
    if when.bounds:
        judged = windows.judged(scene.engine, scene.name, scene.champion.bundle)
        found += monitoring.due([one.report.figures for one in judged], when)
    if when.new_outcomes is not None:
        _, cut = learned_to(scene.engine, scene.champion)
        news = confirmed.count(scene.engine, scene.name, cut)
        if news >= when.new_outcomes:
            found.append(f"{news} outcomes have come since {scene.shown} was trained, {when.new_outcomes} are enough")
    if when.age_days is not None:
        age = (now() - scene.champion.at).days  # a clock that was set back makes it young, never old
        if age >= when.age_days:
            found.append(f"{scene.shown} is champion for {age} days, {when.age_days} are the most")
    return tuple(found)


def _wait(scene: Scene, step: Step) -> Next:
    """Whether the patients that were too few are enough now."""
    if (other := _another(scene, step)) is not None:
        return other
    latest = confirmed.newest_outcome(scene.engine)
    if latest == step.evidence["outcomes_to"]:
        return None, step.told
    try:
        found = candidate.gather(
            scene.engine, scene.spec, latest, learned_to(scene.engine, scene.champion)[0], scene.settings
        )
    except TooFewError as exc:
        return None, f"{scene.name} waits: not applicable: {exc}"
    evidence = {**step.evidence, "outcomes_to": latest}
    why = f"{found.counts['confirmed']} outcomes are enough to go on with what had begun"
    return _step(replace(step, evidence=evidence), "begun", why, scene.settings), ""


def _train(scene: Scene, step: Step) -> Next:
    """From the confirmed outcomes to a registered candidate, judged beside the champion."""
    if (other := _another(scene, step)) is not None:
        return other
    engine, settings = scene.engine, scene.settings
    try:
        before, _ = learned_to(engine, scene.champion)
        found = candidate.gather(engine, scene.spec, step.evidence["outcomes_to"], before, settings)
        made = candidate.make(engine, scene.champion, found.patients, settings)
    except TooFewError as exc:
        return _step(step, "waits", f"not applicable: {exc}", settings), ""
    except (CohortError, TrainingError) as exc:
        return _step(step, "refused", f"no candidate could be trained: {exc}", settings), ""
    if made is None:
        return _step(step, "refused", "the same patients make the champion again", settings), ""
    evidence = {"learned_to": list(found.learned_to), "cohort": found.counts, "paired": made.paired}
    step = replace(
        step, version=made.version.number, bundle=made.version.bundle, evidence={**step.evidence, **evidence}
    )
    verdict = retraining.better(made.findings)
    if verdict is None:
        return _step(step, "waits", f"not applicable: {made.said}", settings), ""
    if not made.report.passed:
        failed = [finding for finding in made.report.failed if finding not in made.findings]
        why = "".join(f"; {finding.code} {finding.title}: {finding.explanation}" for finding in failed)
        return _step(step, "refused", f"{made.said}{why}", settings), ""
    if scene.asked.trial is None:
        command = f'medimind promote {made.version} --reason "…"'
        why = f"better: {made.said}; the spec has no trial, a person decides: `{command}`"
        return _step(step, "offered", why, settings), ""
    return _into_shadow(scene, step, f"better: {made.said}"), ""


def _into_shadow(scene: Scene, step: Step, why: str) -> Step:
    """The candidate in the shadow of the champion, for its silent trial."""
    taken = traffic.find(scene.engine, scene.name).shadow
    if taken is not None and taken.bundle != step.bundle:
        freed = f"`medimind traffic {scene.name} --off shadow` frees it"
        why = f"{why}; the shadow is {scene.name}@{taken.version}'s: {freed}"
        return _step(step, "offered", why, scene.settings)
    if taken is None:
        _shadow(scene, step.version, f"the silent trial of a retrained model; {why}")
    evidence = {**step.evidence, "after_request": confirmed.newest_request(scene.engine)}
    return _step(replace(step, evidence=evidence), "trial", why, scene.settings)


def _trial(scene: Scene, step: Step) -> Next:
    """The silent trial: decided once, when its outcomes are in."""
    if scene.champion.bundle == step.bundle:
        return _crowned(scene, step), ""
    if (other := _another(scene, step)) is not None:
        return other
    standing = traffic.find(scene.engine, scene.name).shadow
    if standing is None or standing.bundle != step.bundle:
        return _step(step, "ended", "somebody ended its shadow, or retired it", scene.settings), ""
    trial = scene.asked.trial
    assert trial is not None
    seen = confirmed.shadowed(
        scene.engine, scene.name, step.bundle, scene.champion.bundle, step.evidence["after_request"], None
    )
    y, n = seen.outcomes, len(seen.outcomes)
    findings = retraining.compare(scene.asked, y, seen.candidate, seen.champion, scene.spec.split.seed)
    if n < trial.outcomes or retraining.better(findings) is None:
        few = f"{scene.asked.min_events} events and {scene.asked.min_non_events} non-events among them"
        return None, f"{_shown(step)} is in its silent trial: {n} outcomes of {trial.outcomes}, and {few}, are in"
    said = f"in its silent trial, on {n} patients, {_said(findings)}"
    evidence = {"paired": retraining.paired(y, seen.candidate, seen.champion, scene.spec.split.seed), "n": n}
    made = replace(step, evidence={**step.evidence, "trial": evidence})
    if not retraining.better(findings):
        _off(scene, scene.shadow, "its silent trial is over, and it was not better")
        return _step(made, "refused", said, scene.settings), ""
    if scene.asked.canary is None:
        return _into_office(scene, made, f"better {said}"), ""
    return _into_canary(scene, made, f"better {said}"), ""


def _into_canary(scene: Scene, step: Step, why: str) -> Step:
    canary = scene.asked.canary
    assert canary is not None and step.version is not None and step.bundle is not None
    lanes = traffic.find(scene.engine, scene.name)
    if lanes.canary is not None and lanes.canary.bundle != step.bundle:
        why = (
            f"{why}; the canary is {scene.name}@{lanes.canary.version}'s: `medimind traffic {scene.name} --off canary`"
        )
        return _step(step, "offered", why, scene.settings)
    version = registry.find(scene.settings, scene.name, step.version)
    try:
        bundle, report = promote.lay_in_store(scene.engine, version, True, scene.settings)
        if lanes.canary is None:
            promote.require_approvals(scene.engine, bundle, report, step.version, scene.settings)
            traffic.set_route(
                scene.engine, scene.canary, Target(step.version, step.bundle, canary.share), why, scene.settings.actor
            )
    except PromotionError as exc:
        _off(scene, scene.shadow, "it may not answer")
        return _step(step, "offered", f"{why}; {exc}", scene.settings)
    _off(scene, scene.shadow, "its silent trial is over; it is the canary now")
    evidence = {**step.evidence, "after_request": confirmed.newest_request(scene.engine)}
    return _step(replace(step, evidence=evidence), "canary", why, scene.settings)


def _canary(scene: Scene, step: Step) -> Next:
    """What the canary's own patients came to."""
    if scene.champion.bundle == step.bundle:
        return _crowned(scene, step), ""
    if (other := _another(scene, step)) is not None:
        return other
    standing = traffic.find(scene.engine, scene.name).canary
    if standing is None or standing.bundle != step.bundle:
        return _step(step, "ended", "somebody ended its canary, or retired it", scene.settings), ""
    canary = scene.asked.canary
    assert canary is not None
    seen = confirmed.answered(scene.engine, scene.name, step.bundle, step.evidence["after_request"], None)
    n = len(seen.outcomes)
    beyond = _beyond(scene.spec, seen.outcomes, seen.champion)
    if n >= canary.outcomes and beyond:
        _off(scene, scene.canary, "it fell below its bound")
        return _step(step, "refused", f"as a canary, on {n} patients, {'; '.join(beyond)}", scene.settings), ""
    if n < canary.outcomes:
        return None, f"{_shown(step)} is the canary: {n} outcomes of {canary.outcomes} are in"
    why = f"better in its silent trial ({step.reason}), and on {n} patients as a canary within its bounds"
    return _into_office(scene, step, why), ""


def _into_office(scene: Scene, step: Step, why: str) -> Step:
    """Promoted, if the change control plan lets it through; the earlier champion goes on, in its shadow."""
    assert step.version is not None
    try:
        done = promote.offer(scene.name, step.version, scene.settings, why, {"retraining": dict(step.evidence)})
    except PromotionError as exc:
        _clear(scene, step, "it may not be promoted")
        return _step(step, "refused", f"{why}; {exc}", scene.settings)
    if isinstance(done, Waits):
        _clear(scene, step, "it waits for a person")
        return _step(step, "offered", f"{why}; {'; '.join(done.why)}: `{done.command}`", scene.settings)
    return _crowned(_scene(scene.engine, scene.name, scene.settings), step)


def _crowned(scene: Scene, step: Step) -> Step:
    """The step that says that the candidate is champion; its probation begins where the spec has one."""
    champion = scene.champion
    earlier = promotions.earlier(scene.engine, champion)
    if scene.asked.probation is None or not earlier:
        return _step(step, "kept", champion.reason, scene.settings)
    before = earlier[0]
    if traffic.find(scene.engine, scene.name).shadow is None:
        with suppress(PromotionError):  # it was retired: its bounds alone judge the new one
            _shadow(scene, before.version, f"the probation of {scene.shown}: who was champion before scores beside it")
    evidence = {
        **step.evidence,
        "earlier": {"version": before.version, "bundle": before.bundle},
        "after_request": confirmed.newest_request(scene.engine),
    }
    return _step(replace(step, evidence=evidence), "promoted", champion.reason, scene.settings)


def _probation(scene: Scene, step: Step) -> Next:
    """The new champion beside the earlier one: kept, or rolled back."""
    settings, earlier = scene.settings, step.evidence["earlier"]
    if scene.champion.bundle != step.bundle:
        back = scene.champion.bundle == earlier["bundle"]
        _off(scene, scene.shadow, "the probation is over")
        return _step(step, "rolled_back" if back else "ended", f"{scene.shown}: {scene.champion.reason}", settings), ""
    probation = scene.asked.probation
    if probation is None:
        return _step(step, "kept", "its spec has no probation", settings), ""
    after = step.evidence["after_request"]
    own = confirmed.answered(scene.engine, scene.name, scene.champion.bundle, after, None)
    both = confirmed.shadowed(scene.engine, scene.name, earlier["bundle"], scene.champion.bundle, after, None)
    seed, n = scene.spec.split.seed, len(own.outcomes)
    events = int(own.outcomes.sum())
    enough = events >= scene.asked.min_events and n - events >= scene.asked.min_non_events
    why: list[str] = []
    if enough:
        y = both.outcomes
        if (worse := retraining.worse(scene.asked, y, both.champion, both.candidate, seed)) is not None:
            why.append(worse)
        elif retraining.worse(scene.asked, y, both.candidate, both.champion, seed) is None:
            why += _beyond(scene.spec, own.outcomes, own.champion)  # better than who was before is no reason to go back
    if why:
        reason = f"in its probation, on {n} patients, {'; '.join(why)}"
        promote.rollback(scene.name, f"{scene.shown}: {reason}", settings)
        _off(scene, scene.shadow, "the probation is over")
        paired = retraining.paired(both.outcomes, both.champion, both.candidate, seed)
        made = replace(step, evidence={**step.evidence, "probation": {"paired": paired, "n": n}})
        return _step(made, "rolled_back", reason, settings), ""
    if n < probation.outcomes or not enough:
        return None, f"{scene.shown} is on probation: {n} outcomes of {probation.outcomes} are in"
    _off(scene, scene.shadow, "the probation is over")
    paired = retraining.paired(both.outcomes, both.champion, both.candidate, seed)
    made = replace(step, evidence={**step.evidence, "probation": {"paired": paired, "n": n}})
    return _step(made, "kept", f"its probation is over: on {n} patients it fell below no bound", settings), ""


def _another(scene: Scene, step: Step) -> Next | None:
    """The end of a retraining whose champion, or candidate, was decided about by somebody else meanwhile."""
    before = step.evidence["champion"]
    if scene.champion.bundle != before["bundle"]:
        _clear(scene, step, "its retraining has ended")
        why = f"the champion is {scene.shown} now, and it was to be held against {scene.name}@{before['version']}"
        return _step(step, "ended", why, scene.settings), ""
    return None


def _beyond(spec: Spec, y: Array, risk: Array) -> list[str]:
    """Each bound of the triggers that a figure's whole 95 % interval lies outside of, in words."""
    when = spec.monitoring.retrain_when
    found = []
    for figure, bound in (when.bounds if when else {}).items():
        spread = interval(METRICS[figure], y, risk, spec.split.seed)
        value = METRICS[figure](y, risk)
        if spread is None or not math.isfinite(value):
            continue
        below = bound.low is not None and spread[1] < bound.low
        above = bound.high is not None and spread[0] > bound.high
        if below or above:
            title = figure.replace("_", " ")
            found.append(f"its {title} {value:.3f} ({spread[0]:.3f} to {spread[1]:.3f}) lies outside {bound.text}")
    return found


def learned_to(engine: Engine, champion: Promotion) -> tuple[Place, int]:
    """The place of the last prediction that the champion may have learned from, and the last outcome it may know."""
    for step in reversed(retrainings.steps(engine, champion.model)):
        if step.bundle == champion.bundle and "learned_to" in step.evidence:
            request, position = step.evidence["learned_to"]
            return (request, position), step.evidence["outcomes_to"]
    return (-1, -1), 0


def _shadow(scene: Scene, number: int | None, why: str) -> None:
    assert number is not None
    version = registry.find(scene.settings, scene.name, number)
    bundle, _ = promote.lay_in_store(scene.engine, version, False, scene.settings)
    traffic.set_route(scene.engine, scene.shadow, Target(number, bundle.digest), why, scene.settings.actor)


def _off(scene: Scene, lane: Lane, why: str) -> None:
    with suppress(NotOnRecordError):  # it ended already
        traffic.end(scene.engine, lane, why, scene.settings.actor)


def _clear(scene: Scene, step: Step, why: str) -> None:
    """End the lanes that lead to this retraining's candidate."""
    lanes = traffic.find(scene.engine, scene.name)
    for lane, route in ((scene.shadow, lanes.shadow), (scene.canary, lanes.canary)):
        if route is not None and route.bundle == step.bundle:
            _off(scene, lane, why)


def _step(step: Step, name: Name, reason: str, settings: Settings) -> Step:
    return replace(step, step=name, at=now(), actor=settings.actor, reason=reason)


def _said(findings: Sequence[Finding]) -> str:
    return "; ".join(finding.explanation for finding in findings)


def _shown(step: Step) -> str:
    return f"{step.model}@{step.version}"
