"""Version to champion: the bundle verified and laid in the store, the promotion put on record, the alias copied."""

from dataclasses import dataclass

from configs.errors import BundleError, PromotionError, RegistryError
from configs.settings import Settings, settings
from configs.spec import diseases
from ledger import promotions, registry
from ledger.database import connect
from ledger.promotions import Promotion
from models import bundle as bundles
from models.predict import Predictor
from pipelines.files import alone


@dataclass(frozen=True)
class Promoted:
    """`new` is False where this version was champion already; `alias` says why MLflow's copy could not be made."""

    promotion: Promotion
    new: bool
    alias: str | None


def promote(name: str, number: int, reason: str, settings: Settings) -> Promoted:
    """Make a registered version champion; for the champion, see to it that the store holds its bundle, whole.

    Raises PromotionError unless its own report passes and its bundle is the judged one, whole, and replays its
    self-test; RegistryError if there is no such version.
    """
    with alone(name, settings):
        return _promote(name, number, reason, settings)


def _promote(name: str, number: int, reason: str, settings: Settings) -> Promoted:
    engine = connect(settings)
    version = registry.find(settings, name, number)
    with registry.fetch(settings, version) as (folder, report):
        judged = bundles.load(folder)
        if judged.digest != report.bundle or judged.spec.name != name:
            raise PromotionError(
                f"{version}: its report is about bundle {report.bundle[:12]}, not {judged.digest[:12]}."
            )
        if judged.spec.change_control.approvals:
            asked = judged.spec.change_control.approvals
            raise PromotionError(f"{version}: its spec asks for {asked} approvals, and this release cannot record any.")
        champion = promotions.find_champion(engine, name)
        new = champion is None or champion.version != number or champion.bundle != judged.digest
        try:
            if report.passed:  # else it is refused below, and the store never sees it
                Predictor(bundles.put(folder, settings.store))
        except BundleError as exc:
            raise PromotionError(f"{version}: {exc}") from exc
        if new:
            champion = promotions.promote(engine, number, report, settings.actor, reason)
    assert champion is not None
    return Promoted(champion, new, copy_alias(champion, settings))


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
