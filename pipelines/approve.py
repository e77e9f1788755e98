"""A person's verdict on a registered version: approved, or rejected; of exactly this bundle and this report."""

from dataclasses import dataclass

from configs.errors import PromotionError
from configs.settings import Settings
from configs.spec import ChangeControl
from evidence.report import Report
from ledger import promotions, registry, reviews
from ledger.database import connect
from models import bundle as bundles
from models.bundle import Bundle


@dataclass(frozen=True)
class Reviewed:
    """`waits_for`: what a promotion outside the plan still lacks, in a sentence; None: nothing."""

    version: str
    bundle: str
    actor: str
    waits_for: str | None


def approve(name: str, number: int, reason: str, settings: Settings) -> Reviewed:
    """Put this person's approval on record, in the place of an earlier rejection of theirs.

    Raises PromotionError if the version is retired, or its own report does not pass; RegistryError if there is none.
    """
    return _review(name, number, "approved", reason, settings)


def reject(name: str, number: int, reason: str, settings: Settings) -> Reviewed:
    """Put this person's rejection on record: nobody promotes the version until they take it back.

    Whatever traffic led to it ends. A champion goes on answering until somebody rolls it back. Raises PromotionError
    if the version is retired; RegistryError if there is none.
    """
    return _review(name, number, "rejected", reason, settings)


def _review(name: str, number: int, verdict: reviews.Verdict, reason: str, settings: Settings) -> Reviewed:
    engine = connect(settings)
    bundle, report = _judged(name, number, settings)
    standing = reviews.review(engine, number, report, verdict, reason, settings.actor)
    shown = f"{name}@{number}"
    if standing.rejections:
        who = ", ".join(rejection.actor for rejection in standing.rejections)
        return Reviewed(shown, bundle.digest, settings.actor, f"{who} rejected it, and has not taken that back")
    lacking = reviews.missing(standing, _plans(bundle, settings), shown)
    return Reviewed(shown, bundle.digest, settings.actor, lacking)


def _judged(name: str, number: int, settings: Settings) -> tuple[Bundle, Report]:
    """The registered bundle, its files whole, and the report on it."""
    version = registry.find(settings, name, number)
    with registry.fetch(settings, version) as (folder, report):
        bundle = bundles.load(folder)
    if bundle.digest != report.bundle or report.name != name:
        raise PromotionError(f"{version}: its report is about bundle {report.bundle[:12]}, not {bundle.digest[:12]}.")
    return bundle, report


def _plans(bundle: Bundle, settings: Settings) -> tuple[ChangeControl, ...]:
    """The version's own plan, and the champion's."""
    own = bundle.spec.change_control
    champion = promotions.find_champion(connect(settings), bundle.spec.name)
    if champion is None or champion.bundle == bundle.digest:
        return (own,)
    return own, bundles.get(champion.bundle, settings).spec.change_control
