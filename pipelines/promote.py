"""Version to champion, and back: the bundle verified, the promotion put on record, MLflow's alias copied."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from configs.errors import BundleError, PromotionError, RegistryError
from configs.settings import Settings, settings
from configs.spec import diseases
from evidence.report import Report
from ledger import promotions, registry, reviews, stops, traffic
from ledger.database import Engine, connect, now, reading
from ledger.promotions import Grounds, Promotion
from ledger.registry import Version
from models import bundle as bundles
from models.bundle import Bundle
from models.predict import Predictor
from pipelines import change_control
from pipelines.files import alone

EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Promoted:
    """`new` is False where this version was champion already; `alias` says why MLflow's copy could not be made.

    `notes`: what else decides who answers now, a sentence each.
    """

    promotion: Promotion
    new: bool
    alias: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Waits:
    """A version that is not promoted by itself: why, a phrase each, and the command that comes next."""

    version: str
    why: tuple[str, ...]
    command: str


def promote(name: str, number: int, reason: str, settings: Settings) -> Promoted:
    """Make a registered version champion; for the champion, see to it that the store holds its bundle, whole.

    Inside the change control plan nobody's approval is needed; outside it the plan says how many, and by whom. Raises
    PromotionError unless its own report passes and its bundle is the judged one, whole, and replays its self-test, or
    if it is retired, rejected, past its last day, lacks an approval, or another version was promoted meanwhile;
    RegistryError if there is no such version.
    """
    with alone(name, settings):
        done = _promote(name, number, reason, settings)
    assert isinstance(done, Promoted)
    return done


def offer(
    name: str,
    number: int,
    settings: Settings,
    why: str = "its report passes every gate",
    evidence: Mapping[str, Any] = EMPTY,
) -> Promoted | Waits:
    """Make a registered version champion if the change control plan lets it through by itself; else why it waits.

    `why` is what speaks for it, and `evidence` what is kept of that. Raises what `promote` raises.
    """
    with alone(name, settings):
        return _promote(name, number, None, settings, why, evidence)


def _promote(
    name: str, number: int, reason: str | None, settings: Settings, why: str = "", evidence: Mapping[str, Any] = EMPTY
) -> Promoted | Waits:
    """With a reason: a person decides. Without one the plan does."""
    engine = connect(settings)
    seen = promotions.find_champion(engine, name)
    bundle, report = lay_in_store(engine, registry.find(settings, name, number), True, settings)
    before = traffic.find(engine, name)
    if seen is not None and (seen.version, seen.bundle) == (number, bundle.digest):
        return Promoted(seen, False, copy_alias(seen, settings), _notes(engine, name, before))
    judged = change_control.judge(engine, number, bundle, report, seen, settings)
    if reason is None:
        if judged.outside or reviews.standing(engine, number, report).rejections:
            return _waits(engine, number, report, judged)
        reason = why
        if seen is not None:
            reason += f", and what changed is inside the plan: {'; '.join(judged.evidence['changes']) or 'nothing'}"
    grounds = Grounds(seen, judged.plans if judged.outside else (), {**judged.evidence, **evidence})
    champion = promotions.promote(engine, number, report, settings.actor, reason, grounds)
    return Promoted(champion, True, copy_alias(champion, settings), _notes(engine, name, before))


def _waits(engine: Engine, number: int, report: Report, judged: change_control.Judged) -> Waits:
    shown = f"{report.name}@{number}"
    standing = reviews.standing(engine, number, report)
    rejected = tuple(f"{each.actor} rejected it: {each.reason}" for each in standing.rejections)
    lacking = reviews.missing(standing, judged.plans, shown)
    verb = "approve" if rejected or lacking else "promote"
    why = (*judged.outside, *rejected, *((lacking,) if lacking else ()))
    return Waits(shown, why, f'medimind {verb} {shown} --reason "…"')


def rollback(name: str, reason: str, settings: Settings) -> Promoted:
    """Make the newest earlier champion of another bundle champion again, out of the store, without the registry.

    Earlier is who was champion before the present bundle first was, so a second rollback goes further back. Retired and
    rejected versions and those past their last day are passed over. Waits for no training. Raises PromotionError if
    nobody is left, or the store's bundle is not whole.
    """
    engine = connect(settings)
    present = promotions.find_champion(engine, name)
    if present is None:
        raise PromotionError(f"{name}: has no champion, so there is nobody to go back from.")
    retired = stops.find(engine, name).retired
    passed_over = []
    for earlier in promotions.earlier(engine, present):
        version = f"{name}@{earlier.version}"
        if earlier.version in retired:
            passed_over.append(f"{version} is retired")
            continue
        if reviews.standing(engine, earlier.version, earlier.report).rejections:
            passed_over.append(f"{version} is rejected")
            continue
        try:
            bundle = bundles.get(earlier.bundle, settings)
            if bundle.spec.serving.expired(now().date()):
                passed_over.append(f"{version} is past its last day")
                continue
            Predictor(bundle)
        except BundleError as exc:
            raise PromotionError(
                f"{version}: {exc} `medimind promote {version}` brings it from the registry again."
            ) from exc
        before = traffic.find(engine, name)
        champion = promotions.rollback(engine, present, earlier, settings.actor, reason)
        return Promoted(champion, True, copy_alias(champion, settings), _notes(engine, name, before))
    who = f" ({', '.join(passed_over)})" if passed_over else ""
    raise PromotionError(
        f"{name}@{present.version}: there is no earlier champion to go back to{who}. `medimind promote NAME@VERSION` "
        f"makes another version champion, `medimind stop {name}` stops all answers."
    )


def lay_in_store(engine: Engine, version: Version, answers: bool, settings: Settings) -> tuple[Bundle, Report]:
    """Fetch the version's bundle from the registry, verify it, lay it in the store; the bundle there, and its report.

    Raises PromotionError if the bundle is not the judged one, not whole, or fails its self-test, or if the version is
    retired; where it is to answer patients, also unless its report passes, and its last day is not over.
    """
    retired = stops.find(engine, version.name).retired
    if version.number in retired:
        raise PromotionError(f"{version} is retired, for good: {retired[version.number]}")
    with registry.fetch(settings, version) as (folder, report):
        judged = bundles.load(folder)
        if judged.digest != report.bundle or judged.spec.name != version.name:
            raise PromotionError(
                f"{version}: its report is about bundle {report.bundle[:12]}, not {judged.digest[:12]}."
            )
        if answers:
            _may_answer(engine, judged, report, version)
        try:
            bundle = bundles.put(folder, settings)
            Predictor(bundle)
        except BundleError as exc:
            raise PromotionError(f"{version}: {exc}") from exc
    return bundle, report


def require_approvals(engine: Engine, bundle: Bundle, report: Report, number: int, settings: Settings) -> None:
    """Raise PromotionError while somebody rejects the version, or it lacks an approval that a plan asks for.

    The plans are the version's own and the champion's: what may answer is not decided by the newcomer alone. Raises
    BundleError if the champion's cannot be read.
    """
    shown = f"{report.name}@{number}"
    champion = promotions.find_champion(engine, report.name)
    plans = [bundle.spec.change_control]
    if champion is not None and champion.bundle != bundle.digest:
        plans.append(bundles.get(champion.bundle, settings).spec.change_control)
    with reading(engine) as connection:
        reviews.refuse_rejected(connection, number, report)
    if why := reviews.missing(reviews.standing(engine, number, report), tuple(plans), shown):
        raise PromotionError(f"{shown} waits: {why}")


def _may_answer(engine: Engine, bundle: Bundle, report: Report, version: Version) -> None:
    promotions.require_passed(report, version.number)
    if not reviews.standing(engine, version.number, report).validated_by:  # a report that somebody wrote into MLflow
        raise PromotionError(
            f"{version}: it is not on record that exactly this bundle got exactly this report; `medimind validate "
            f"{version.name}` puts on record what it finds."
        )
    if bundle.spec.serving.expired(now().date()):
        raise PromotionError(
            f"{version}: its last day was {bundle.spec.serving.expires_on}; a version with another "
            "`serving.expires_on` has to be trained and judged."
        )


def _notes(engine: Engine, name: str, before: traffic.Traffic) -> tuple[str, ...]:
    """What else decides who answers: a stop that goes on, traffic that ended with the promotion or goes on."""
    stopped = stops.find(engine, name).stopped
    after = traffic.find(engine, name).lanes
    return (
        *(
            [f'{name} is still stopped ({stopped}); `medimind stop {name} --lift --reason "…"` ends it']
            if stopped
            else []
        ),
        *(f"{lane} to {name}@{route.version} has ended" for lane, route in before.lanes.items() if lane not in after),
        *(f"{lane} to {name}@{route.version} goes on" for lane, route in after.items()),
    )


def copy_alias(champion: Promotion, settings: Settings) -> str | None:
    """Make MLflow's `champion` alias follow the promotion row, and its tags keep the chain's head; why not, if so."""
    head = promotions.head(connect(settings), champion)
    try:
        registry.copy_champion(settings, champion, head)
    except RegistryError as exc:
        return str(exc)
    return None


def repair_aliases(settings: Settings) -> dict[str, str | None]:
    """Make every champion's alias follow its promotion row: model: None, or the reason why it could not be done."""
    engine = connect(settings)
    champions = (promotions.find_champion(engine, name) for name in diseases(settings.configs))
    return {champion.model: copy_alias(champion, settings) for champion in champions if champion is not None}


def parse_version(text: str) -> tuple[str, int]:
    """`NAME@VERSION` as its two parts. Raises PromotionError for anything else."""
    name, _, number = text.partition("@")
    if not name or not (number.isascii() and number.isdigit()):
        raise PromotionError(f"{text!r} is no version; one is written NAME@VERSION, such as heart_disease@3.")
    return name, int(number)


def parse_pair(a: str, b: str) -> tuple[str, int, int]:
    """`NAME@A` and `NAME@B` as the name and two numbers. Raises PromotionError for anything else."""
    (name, one), (other_name, other) = parse_version(a), parse_version(b)
    if name != other_name:
        raise PromotionError(f"{a} and {b}: two versions of one disease are expected; they read other patients.")
    return name, one, other


if __name__ == "__main__":  # `make up`, when the registry has started
    for model, why in repair_aliases(settings()).items():
        print(f"the champion alias of {model} " + (f"could not be copied: {why}" if why else "follows its promotion"))
