"""Version to champion, and back: the bundle verified, the promotion put on record, MLflow's alias copied."""

from dataclasses import dataclass

from configs.errors import BundleError, PromotionError, RegistryError
from configs.settings import Settings, settings
from configs.spec import diseases
from evidence.report import Report
from ledger import promotions, registry, stops, traffic
from ledger.database import Engine, connect, now
from ledger.promotions import Promotion
from ledger.registry import Version
from models import bundle as bundles
from models.bundle import Bundle
from models.predict import Predictor
from pipelines.files import alone


@dataclass(frozen=True)
class Promoted:
    """`new` is False where this version was champion already; `alias` says why MLflow's copy could not be made.

    `notes`: what else decides who answers now, a sentence each.
    """

    promotion: Promotion
    new: bool
    alias: str | None
    notes: tuple[str, ...] = ()


def promote(name: str, number: int, reason: str, settings: Settings) -> Promoted:
    """Make a registered version champion; for the champion, see to it that the store holds its bundle, whole.

    Raises PromotionError unless its own report passes and its bundle is the judged one, whole, and replays its
    self-test, or if it is retired or past its last day; RegistryError if there is no such version.
    """
    with alone(name, settings):
        return _promote(name, number, reason, settings)


def _promote(name: str, number: int, reason: str, settings: Settings) -> Promoted:
    engine = connect(settings)
    bundle, report = lay_in_store(engine, registry.find(settings, name, number), True, settings)
    champion = promotions.find_champion(engine, name)
    new = champion is None or champion.version != number or champion.bundle != bundle.digest
    before = traffic.find(engine, name)
    if new:
        champion = promotions.promote(engine, number, report, settings.actor, reason)
    assert champion is not None
    return Promoted(champion, new, copy_alias(champion, settings), _notes(engine, name, before))


def rollback(name: str, reason: str, settings: Settings) -> Promoted:
    """Make the newest earlier champion of another bundle champion again, out of the store, without the registry.

    Earlier is who was champion before the present bundle first was, so a second rollback goes further back. Retired
    versions and those past their last day are passed over. Waits for no training. Raises PromotionError if nobody is
    left, or the store's bundle is not whole.
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
        try:
            bundle = bundles.get(earlier.bundle, settings.store)
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
    retired; where it is to answer patients, also unless its report passes, its approvals are none, and its last day is
    not over.
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
            _may_answer(judged, report, version)
        try:
            bundle = bundles.put(folder, settings.store)
            Predictor(bundle)
        except BundleError as exc:
            raise PromotionError(f"{version}: {exc}") from exc
    return bundle, report


def _may_answer(bundle: Bundle, report: Report, version: Version) -> None:
    if asked := bundle.spec.change_control.approvals:
        raise PromotionError(f"{version}: its spec asks for {asked} approvals, and this release cannot record any.")
    promotions.require_passed(report, version.number)
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
    """Make MLflow's `champion` alias follow the promotion row; the reason if it could not be done now."""
    try:
        registry.copy_champion(settings, champion)
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


if __name__ == "__main__":  # `make up`, when the registry has started
    for model, why in repair_aliases(settings()).items():
        print(f"the champion alias of {model} " + (f"could not be copied: {why}" if why else "follows its promotion"))
