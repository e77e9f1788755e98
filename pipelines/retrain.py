"""The loop, once: is a retraining due, or under way; then as far as the evidence carries it now.

Each step is put on record after what it says was done, and whatever it does can be done again: a process that dies
between two steps loses nothing, and the next one goes on from the last step on record.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from configs.errors import (
    BundleError,
    CohortError,
    LedgerError,
    NotOnRecordError,
    PromotionError,
    TooFewError,
    TrainingError,
)
from configs.settings import Settings
from configs.spec import Retrain, Spec, load_spec
from evidence import monitoring, retraining
from evidence.metrics import METRICS, Array, interval
from evidence.report import Finding
from ledger import alerts, confirmed, locks, promotions, registry, retrainings, reviews, stops, traffic, windows
from ledger.database import Engine, connect, now
from ledger.locks import Lock
from ledger.promotions import Promotion
from ledger.retrainings import Name, Step
from ledger.traffic import Kind, Lane, Route, Target
from models import bundle as bundles
from models.bundle import Bundle
from pipelines import alerts as telling
from pipelines import candidate, change_control, promote, prospective
from pipelines.candidate import Place
from pipelines.promote import Waits
from pipelines.prospective import Beside


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
    lock: Lock | None = None

    def alone(self) -> None:
        """Raise LedgerError if another process may be at it: asked before whatever changes who scores or answers."""
        if self.lock is not None:
            self.lock.require()

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
        _settle(engine, step, settings)  # an earlier process may have died before it did
        while True:
            found, stands = _next(replace(_scene(engine, name, settings), lock=lock), step, reason)
            if found is None:
                return Done(name, tuple(taken), stands)
            lock.require()
            retrainings.put(engine, found)
            _settle(engine, found, settings)
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


def _settle(engine: Engine, step: Step | None, settings: Settings) -> None:
    """What follows from a step that is on record: people are told, and one that ended leaves no traffic behind."""
    _announce(engine, step, settings)
    if step is None or step.open:
        return
    lanes = traffic.find(engine, step.model)
    standing: tuple[tuple[Kind, Route | None], ...] = (("shadow", lanes.shadow), ("canary", lanes.canary))
    for kind, route in standing:
        if route is not None and route.id in step.evidence.get("routes", []):
            with suppress(NotOnRecordError):  # it ended meanwhile
                traffic.end(engine, Lane(step.model, kind), f"its retraining has ended: {step.step}", step.actor)


def _announce(engine: Engine, step: Step | None, settings: Settings) -> None:
    """Put in the outbox what people are told of a step, once."""
    if step is None:
        return
    code = ANNOUNCED.get(step.step)
    texts: dict[alerts.Key, str] = {}
    if code is not None and not alerts.begun_since(engine, step.model, code, step.at):
        texts[code, step.step] = step.told
    champion = promotions.find_champion(engine, step.model)
    if champion is not None:
        others = {(other, name) for name, other in ANNOUNCED.items() if other != code}
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
            news = confirmed.count(scene.engine, name, before.evidence.get("ended_to", before.evidence["outcomes_to"]))
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
        age = (
            now() - promotions.since(scene.engine, scene.champion)
        ).days  # a clock set back makes it young, never old
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
            scene.engine, scene.bundle, latest, learned_to(scene.engine, scene.champion)[0], scene.settings
        )
    except CohortError as exc:
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
        found = candidate.gather(engine, scene.bundle, step.evidence["outcomes_to"], before, settings)
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
    if reviews.standing(engine, made.version.number, made.report).rejections:
        return _step(step, "refused", f"{made.version} was rejected before; {made.said}", settings), ""
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
    assert step.version is not None and step.bundle is not None
    taken = traffic.find(scene.engine, scene.name).shadow
    if taken is not None and taken.bundle != step.bundle:
        freed = f"`medimind traffic {scene.name} --off shadow` frees it"
        why = f"{why}; the shadow is {scene.name}@{taken.version}'s: {freed}"
        return _step(step, "offered", why, scene.settings)
    if taken is None:
        said = f"the silent trial of a retrained model; {why}"
        try:
            version = registry.find(scene.settings, scene.name, step.version)
            promote.lay_in_store(scene.engine, version, False, scene.settings)
            scene.alone()
            taken = traffic.set_route(
                scene.engine, scene.shadow, Target(step.version, step.bundle), said, scene.settings.actor
            )
        except PromotionError as exc:  # it is retired, or not whole
            return _step(step, "refused", f"{why}; {exc}", scene.settings)
    return _step(_on(scene, step, taken), "trial", why, scene.settings)


def _trial(scene: Scene, step: Step) -> Next:
    """The silent trial: decided once, when its outcomes are in."""
    if scene.champion.bundle == step.bundle:
        return _crowned(scene, step), ""
    if (other := _another(scene, step)) is not None:
        return other
    trial, lanes = scene.asked.trial, traffic.find(scene.engine, scene.name)
    assert trial is not None and step.bundle is not None
    beside = prospective.shadowed(
        scene.engine,
        bundles.get(step.bundle, scene.settings),
        scene.bundle,
        step.evidence["after_request"],
        scene.settings,
    )
    findings = retraining.compare(scene.asked, beside.y, beside.new, beside.old, scene.spec.split.seed)
    decided = len(beside) >= trial.outcomes and retraining.better(findings) is not None
    if lanes.canary is not None and lanes.canary.bundle == step.bundle and decided:
        why = f"better in its silent trial: {_said(findings)}"  # an earlier process died on its way there
        return _into_canary(scene, step, why), ""
    if lanes.shadow is None or lanes.shadow.bundle != step.bundle:
        return _step(step, "ended", "somebody ended its shadow, or retired it", scene.settings), ""
    if not decided:
        few = f"{scene.asked.min_events} events and {scene.asked.min_non_events} non-events among them"
        said = f"{len(beside)} patients of {trial.outcomes}, and {few}, have outcomes"
        return None, f"{_shown(step)} is in its silent trial: {said}"
    said = f"in its silent trial, on {len(beside)} patients, {_said(findings)}"
    made = _with_figures(scene, step, "trial", beside)
    if not retraining.better(findings):
        return _step(made, "refused", said, scene.settings), ""
    if scene.asked.canary is None:
        return _into_office(scene, made, f"better {said}"), ""
    return _into_canary(scene, made, f"better {said}"), ""


def _into_canary(scene: Scene, step: Step, why: str) -> Step:
    """The candidate answers a share of the patients, if the change control plan lets it through by itself."""
    canary = scene.asked.canary
    assert canary is not None and step.version is not None and step.bundle is not None
    lanes = traffic.find(scene.engine, scene.name)
    taken = lanes.canary
    if taken is not None and taken.bundle != step.bundle:
        freed = f"`medimind traffic {scene.name} --off canary` frees it"
        return _step(step, "offered", f"{why}; the canary is {scene.name}@{taken.version}'s: {freed}", scene.settings)
    if taken is None:
        try:
            version = registry.find(scene.settings, scene.name, step.version)
            bundle, report = promote.lay_in_store(scene.engine, version, True, scene.settings)
            judged = change_control.judge(scene.engine, step.version, bundle, report, scene.champion, scene.settings)
            if judged.outside:
                command = f'medimind approve {version} --reason "…"'
                return _step(step, "offered", f"{why}; {'; '.join(judged.outside)}: `{command}`", scene.settings)
            scene.alone()
            to = Target(step.version, step.bundle, canary.share)
            taken = traffic.set_route(scene.engine, scene.canary, to, why, scene.settings.actor)
        except PromotionError as exc:
            return _step(step, "offered", f"{why}; {exc}", scene.settings)
    if lanes.shadow is not None and lanes.shadow.bundle == step.bundle:
        with suppress(NotOnRecordError):
            traffic.end(scene.engine, scene.shadow, "it is the canary now", scene.settings.actor)
    return _step(_on(scene, step, taken), "canary", why, scene.settings)


def _canary(scene: Scene, step: Step) -> Next:
    """What the canary's own patients came to, and what the champion would have said of them."""
    if scene.champion.bundle == step.bundle:
        return _crowned(scene, step), ""
    if (other := _another(scene, step)) is not None:
        return other
    standing = traffic.find(scene.engine, scene.name).canary
    if standing is None or standing.bundle != step.bundle:
        return _step(step, "ended", "somebody ended its canary, or retired it", scene.settings), ""
    canary = scene.asked.canary
    assert canary is not None and step.bundle is not None
    its_own = bundles.get(step.bundle, scene.settings)
    after = step.evidence["after_request"]
    beside = prospective.answered(scene.engine, its_own, scene.bundle, after, scene.settings)
    enough = beside.first(canary.outcomes, scene.asked)
    if enough is None:
        return None, f"{_shown(step)} is the canary: {len(beside)} patients of {canary.outcomes} have outcomes"
    made = _with_figures(scene, step, "canary", enough)
    if why := _unfit(scene, enough):
        return _step(made, "refused", f"as a canary, on {len(enough)} patients, {'; '.join(why)}", scene.settings), ""
    said = f"better in its silent trial ({step.reason}), and on {len(enough)} patients as a canary no worse"
    return _into_office(scene, made, said), ""


def _into_office(scene: Scene, step: Step, why: str) -> Step:
    """Promoted, if the change control plan lets it through."""
    assert step.version is not None
    scene.alone()
    try:
        done = promote.offer(scene.name, step.version, scene.settings, why, {"retraining": dict(step.evidence)})
    except PromotionError as exc:
        return _step(step, "refused", f"{why}; {exc}", scene.settings)
    if isinstance(done, Waits):
        return _step(step, "offered", f"{why}; {'; '.join(done.why)}: `{done.command}`", scene.settings)
    return _crowned(_scene(scene.engine, scene.name, scene.settings), step)


def _crowned(scene: Scene, step: Step) -> Step:
    """The step that says that the candidate is champion; its probation begins where the spec has one."""
    earlier = promotions.earlier(scene.engine, scene.champion)
    if scene.asked.probation is None or not earlier:
        return _step(step, "kept", scene.champion.reason, scene.settings)
    evidence = {
        **step.evidence,
        "earlier": {"version": earlier[0].version, "bundle": earlier[0].bundle},
        "after_request": confirmed.newest_request(scene.engine),
    }
    return _step(replace(step, evidence=evidence), "promoted", scene.champion.reason, scene.settings)


def _probation(scene: Scene, step: Step) -> Next:
    """The new champion beside the earlier one, at half of its probation and at its end: kept, or rolled back."""
    settings, earlier, asked = scene.settings, step.evidence["earlier"], scene.asked
    if scene.champion.bundle != step.bundle:
        back = scene.champion.bundle == earlier["bundle"]
        return _step(step, "rolled_back" if back else "ended", f"{scene.shown}: {scene.champion.reason}", settings), ""
    if asked.probation is None:
        return _step(step, "kept", "its spec has no probation", settings), ""
    try:
        older = bundles.get(earlier["bundle"], settings)
    except BundleError as exc:
        return _step(step, "kept", f"there is nobody to hold it against, or to go back to: {exc}", settings), ""
    beside = prospective.answered(scene.engine, scene.bundle, older, step.evidence["after_request"], settings)
    wanted = asked.probation.outcomes
    half, whole = (beside.first(n, asked) for n in (-(-wanted // 2), wanted))
    looks = [look for look in (half, beside if whole is not None else None) if look is not None]
    for look in looks:
        if not (why := _unfit(scene, look)):
            continue
        reason = f"in its probation, on {len(look)} patients, {'; '.join(why)}"
        made = _with_figures(scene, step, "probation", look)
        scene.alone()
        try:
            promote.rollback(scene.name, f"{scene.shown}: {reason}", settings)
        except PromotionError as exc:
            return _step(made, "offered", f"{reason}; it was not rolled back: {exc}", settings), ""
        return _step(made, "rolled_back", reason, settings), ""
    if len(looks) < 2:
        return None, f"{scene.shown} is on probation: {len(beside)} patients of {wanted} have outcomes"
    made = _with_figures(scene, step, "probation", looks[-1])
    why_kept = f"its probation is over: on {len(looks[-1])} patients it was no worse than the champion before"
    return _step(made, "kept", why_kept, settings), ""


def _unfit(scene: Scene, beside: Beside) -> list[str]:
    """Why the newer model is not to answer: worse than the older one by more than chance; or a figure lies outside its
    bound, and it is not better than the older one by more than chance: going back to a worse model helps nobody."""
    seed = scene.spec.split.seed
    if (worse := retraining.worse(scene.asked, beside.y, beside.new, beside.old, seed)) is not None:
        return [worse]
    if retraining.worse(scene.asked, beside.y, beside.old, beside.new, seed) is not None:
        return []
    return _beyond(scene.spec, beside.y, beside.new)


def _with_figures(scene: Scene, step: Step, stage: str, beside: Beside) -> Step:
    paired = retraining.paired(beside.y, beside.new, beside.old, scene.spec.split.seed)
    return replace(step, evidence={**step.evidence, stage: {"paired": paired, "n": len(beside)}})


def _on(scene: Scene, step: Step, route: Route) -> Step:
    """The step, with the traffic that it set, and from which request on it counts."""
    routes = [*step.evidence.get("routes", []), route.id]
    after = {"routes": routes, "after_request": confirmed.newest_request(scene.engine)}
    return replace(step, evidence={**step.evidence, **after})


def _another(scene: Scene, step: Step) -> Next | None:
    """The end of a retraining whose champion, or candidate, was decided about by somebody else meanwhile."""
    before = step.evidence["champion"]
    if scene.champion.bundle != before["bundle"]:
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


def _step(step: Step, name: Name, reason: str, settings: Settings) -> Step:
    evidence = step.evidence
    if name not in retrainings.OPEN:  # the next one waits for outcomes that come after this one's end
        evidence = {**evidence, "ended_to": confirmed.newest_outcome(connect(settings))}
    return replace(step, step=name, at=now(), actor=settings.actor, reason=reason, evidence=evidence)


def _said(findings: Sequence[Finding]) -> str:
    return "; ".join(finding.explanation for finding in findings)


def _shown(step: Step) -> str:
    return f"{step.model}@{step.version}"
