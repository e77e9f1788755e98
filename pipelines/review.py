"""What a reviewer takes away of a registered version: its page, and its facts in the order of a reporting guideline."""

from pathlib import Path

from configs.errors import PromotionError
from configs.settings import Settings
from evidence import reporting
from evidence import review as page
from ledger import registry
from ledger.database import connect
from ledger.promotions import find_champion
from models import bundle as bundles
from pipelines.files import replacing
from pipelines.promote import parse_version


def review(name: str, number: int, settings: Settings) -> Path:
    """Write the version's review page beside the other reports, and return where it lies.

    Raises RegistryError if there is no such version or it has no report, BundleError if its bundle or the champion's is
    not whole.
    """
    champion = find_champion(connect(settings), name)
    with registry.fetch(settings, registry.find(settings, name, number)) as (folder, report):
        judged = None
        if champion is not None:
            judged = (champion.version, bundles.get(champion.bundle, settings), champion.report)
        text = page.html(bundles.load(folder), report, number, judged)
    path = settings.private(settings.reports) / f"{name}-{number}-review.html"
    with replacing(path, PromotionError) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def report(name: str, number: int, form: str, settings: Settings) -> str:
    """The version's facts as `form` asks for them: Markdown, or JSON for the card.

    Raises PromotionError for a form that is none, RegistryError if there is no such version or it has no report.
    """
    if form not in reporting.FORMS:
        raise PromotionError(f"--format {form!r}: is none; expected one of {', '.join(reporting.FORMS)}.")
    with registry.fetch(settings, registry.find(settings, name, number)) as (folder, judged):
        return reporting.FORMS[form](bundles.load(folder), number, judged)


def asked(version: str, number: int | None) -> tuple[str, int]:
    """`NAME@VERSION`, or `NAME VERSION` as two words. Raises PromotionError if it is neither."""
    return parse_version(version if number is None else f"{version}@{number}")
