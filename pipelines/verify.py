"""Is everything still as it was decided: the chain, MLflow's copies of it, and the bundles that answer."""

from dataclasses import dataclass

from configs.errors import BundleError, RegistryError
from configs.settings import Settings
from configs.spec import diseases
from ledger import chain, promotions, registry, traffic
from ledger.chain import Head
from ledger.database import Engine, connect
from ledger.spool import ASIDE
from models import bundle as bundles
from models.predict import Predictor


@dataclass(frozen=True)
class Verified:
    """`checked`: what was looked at. `problems`: what is not as it should be, or could not be looked at, a sentence
    each. `notes`: what is odd, and no sign of a change."""

    checked: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def verify(settings: Settings) -> Verified:
    """Compute every hash again, from what is there now."""
    engine = connect(settings)
    found = chain.check(engine)
    models = sorted(chain.models(engine) | set(diseases(settings.configs)))
    answering, damaged = _bundles(engine, models, settings)
    tagged, disagreeing = _registered(engine, models, settings)
    checked = (
        f"the chain of {found.length} decisions",
        f"{tagged} heads of it in MLflow's tags",
        f"{answering} bundles that answer or are shadows: files, signature, self-test",
    )
    return Verified(checked, (*found.problems, *disagreeing, *damaged, *_refused(settings)), found.notes)


def _bundles(engine: Engine, models: list[str], settings: Settings) -> tuple[int, list[str]]:
    """How many bundles stand in a champion's or a lane's place, and which of them are not whole."""
    places = {}
    for model in models:
        champion = promotions.find_champion(engine, model)
        if champion is not None:
            places[f"champion {model}@{champion.version}"] = champion.bundle
        for lane, route in traffic.find(engine, model).lanes.items():
            places[f"{lane} {model}@{route.version}"] = route.bundle
    damaged = []
    for place, digest in places.items():
        try:
            Predictor(bundles.get(digest, settings))  # replays its self-test
        except BundleError as exc:
            damaged.append(f"bundles: the {place}: {exc}")
    return len(places), damaged


def _registered(engine: Engine, models: list[str], settings: Settings) -> tuple[int, list[str]]:
    """How many of the chain's heads MLflow keeps, and what it says otherwise than the ledger."""
    problems: list[str] = []
    tagged = 0
    try:
        for model in models:
            champion = promotions.find_champion(engine, model)
            heads = registry.heads(settings, model)
            tagged += len(heads)
            problems += (
                _lost(engine, f"{model}@{number}", head)
                for number, head in heads.items()
                if head and not chain.holds(engine, head)
            )
            aliased = next((v for v in registry.versions(settings, model) if registry.CHAMPION in v.aliases), None)
            if (aliased and aliased.number) != (champion and champion.version):
                said = aliased or "nobody"
                row = f"{model}@{champion.version}" if champion else "nobody"
                problems.append(
                    f"MLflow: its champion alias of {model} says {said}, the ledger says {row}, and the ledger counts: "
                    "`make up` copies it again"
                )
            elif champion and champion.version not in heads:
                problems.append(
                    f"MLflow: the tags of the champion {model}@{champion.version} hold no head of the chain, so a cut "
                    "tail would not be found: `make up` sets them"
                )
            if aliased and champion and aliased.number == champion.version and aliased.bundle != champion.bundle:
                problems.append(
                    f"MLflow: {aliased} is tagged with bundle {aliased.bundle[:12]}, the ledger promoted "
                    f"{champion.bundle[:12]}"
                )
    except RegistryError as exc:
        problems.append(f"MLflow: aliases and the chain's heads could not be checked: {exc}")
    return tagged, problems


def _lost(engine: Engine, shown: str, head: Head) -> str:
    """What it means that the chain does not hold a head that was kept elsewhere."""
    length = chain.find_head(engine).length
    said = f"MLflow: the tags of {shown} keep link {head.length} of the chain as {head.hash[:12]}; "
    said += f"the chain has only {length} links" if length < head.length else "the chain holds another there"
    restored = chain.last_restore(engine)
    if restored is None:
        return f"{said}. Decisions were cut off, or the chain was written anew, and no restore is on record."
    return (
        f"{said}. The ledger was restored from {restored[0]} at {restored[1]:%Y-%m-%d %H:%M} UTC: what was "
        "decided between that backup and then is lost, and the ledger that was replaced was kept beside it."
    )


def _refused(settings: Settings) -> list[str]:
    """Answered requests that the ledger never took."""
    return [
        f"spool: {path} holds an answered request that the ledger refused; somebody has to look at it"
        for path in sorted((settings.home / "spool").glob(f"*{ASIDE}"))
    ]
