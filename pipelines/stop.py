"""What may not answer any more: a model stopped until the stop is lifted, a version retired for good.

Neither waits for a training that is going on.
"""

from configs.errors import BundleError, SpecError
from configs.settings import Settings
from configs.spec import diseases
from ledger import promotions, registry, stops, traffic
from ledger.database import connect, now
from ledger.promotions import Promotion
from models import bundle as bundles


def stop(name: str, reason: str, settings: Settings) -> None:
    """Let nothing of the model answer. Raises SpecError if there is no such model: a typing error stops nobody."""
    known(name, settings)
    stops.stop(connect(settings), name, reason, settings.actor)


def lift(name: str, reason: str, settings: Settings) -> None:
    """End the model's stop. Raises NotOnRecordError if it is not stopped."""
    known(name, settings)
    stops.lift(connect(settings), name, reason, settings.actor)


def retire(name: str, number: int, reason: str, settings: Settings) -> bool:
    """Let the version never answer again; whether it is the champion, so that nobody answers now.

    Raises PromotionError if it is retired already, RegistryError if no such version is known.
    """
    engine = connect(settings)
    champion = promotions.find_champion(engine, name)
    on_record = {route.version for route in traffic.find(engine, name).lanes.values()}
    if champion is not None:
        on_record |= {champion.version, *(earlier.version for earlier in promotions.earlier(engine, champion))}
    if number not in on_record:  # what answers, or may again, is retired even while the registry is down
        registry.find(settings, name, number)
    stops.retire(engine, name, number, reason, settings.actor)
    return champion is not None and champion.version == number


def state(champion: Promotion | None, stopped: stops.Stops, settings: Settings) -> str:
    """Who answers for a model, and what keeps it from answering, in a few words."""
    hindered = ["stopped"] if stopped.stopped is not None else []
    if champion is None:
        return "; ".join(["no champion", *hindered])
    if champion.version in stopped.retired:
        hindered.append("retired")
    try:
        serving = bundles.get(champion.bundle, settings).spec.serving
        if serving.expired(now().date()):
            hindered.append(f"expired after {serving.expires_on}")
    except BundleError:
        hindered.append("its bundle is not whole in the store")
    return "; ".join([f"champion {champion.model}@{champion.version}, since {champion.at:%Y-%m-%d}", *hindered])


def known(name: str, settings: Settings) -> None:
    """Raise SpecError unless the model has a YAML or a champion. (A YAML that does not hold together stops no stop.)"""
    names = diseases(settings.configs)
    if name not in names and promotions.find_champion(connect(settings), name) is None:
        raise SpecError(f"no disease {name!r}: nothing was changed. Known: {', '.join(names)}.")
