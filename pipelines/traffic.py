"""Which other version than the champion scores or answers whose records: set, ended, told."""

from collections.abc import Mapping

from configs.errors import PromotionError
from configs.settings import Settings
from ledger import promotions, registry, stops, traffic
from ledger.database import connect
from ledger.traffic import Lane, Route, Target
from pipelines.promote import lay_in_store, parse_version, require_approvals
from pipelines.stop import known, state


def change(model: str, asked: Mapping[str, str], share: float | None, reason: str | None, settings: Settings) -> None:
    """Do what the command's options ask: at most one of --shadow, --canary, --ab and --off, by its value.

    Raises PromotionError if they ask for nothing clear.
    """
    if len(asked) > 1:
        raise PromotionError(f"{' and '.join(asked)}: one at a time is expected, so that each has its own reason.")
    if not asked:
        if share is not None or reason is not None:
            raise PromotionError("--share and --reason go with --shadow, --canary, --ab or --off.")
        return
    ((option, value),) = asked.items()
    if reason is None or not reason.strip():
        raise PromotionError(f'{option} {value}: a reason is expected: --reason "…".')
    match option:
        case "--shadow":
            send(Lane(model, "shadow"), value, share, reason, settings)
        case "--canary":
            send(Lane(model, "canary"), value, share, reason, settings)
        case "--ab":
            tag, version = parse_arm(value)
            send(Lane(model, "ab", tag), version, share, reason, settings)
        case _:
            if share is not None:
                raise PromotionError("--share goes with --canary.")
            off(model, value, reason, settings)


def send(lane: Lane, version: str, share: float | None, reason: str, settings: Settings) -> Route:
    """Let the lane lead to a registered version, its bundle verified and laid in the store.

    A canary and an A/B arm answer patients, so they need what `promote` needs; a shadow only a whole bundle. Raises
    PromotionError if the version is another model's, the champion, retired, or may not answer; RegistryError if there
    is no such version.
    """
    name, number = parse_version(version)
    if name != lane.model:
        raise PromotionError(f"{version} is no version of {lane.model}; {lane.model}@VERSION is expected.")
    traffic.check(lane, share)
    engine = connect(settings)
    champion = promotions.find_champion(engine, name)
    if champion is None:
        raise PromotionError(f"{name}: has no champion whose records could go to {version}; promote one first.")
    bundle, report = lay_in_store(engine, registry.find(settings, name, number), lane.kind != "shadow", settings)
    if lane.kind != "shadow":
        require_approvals(engine, bundle, report, number, settings)
    return traffic.set_route(engine, lane, Target(number, bundle.digest, share), reason, settings.actor)


def off(model: str, what: str, reason: str, settings: Settings) -> None:
    """Give the records of the shadow, the canary or a tag's arm back to the champion."""
    match what:
        case "shadow" | "canary":
            lane = Lane(model, what)
        case tag:
            lane = Lane(model, "ab", tag)
    traffic.end(connect(settings), lane, reason, settings.actor)


def told(model: str, settings: Settings) -> list[str]:
    """What is set, a line each: who answers, and whom the others score or answer. Raises SpecError for no model."""
    known(model, settings)
    engine = connect(settings)
    now_set = traffic.find(engine, model)
    lines = [f"{model}: {state(promotions.find_champion(engine, model), stops.find(engine, model), settings)}"]
    if now_set.shadow:
        lines.append(f"shadow {model}@{now_set.shadow.version} scores the same records and never answers")
    if now_set.canary:
        share = f"{now_set.canary.share:.3g} of the patients"
        lines.append(f"canary {model}@{now_set.canary.version} answers {share}, each patient always or never")
    for tag, arm in now_set.tags.items():
        lines.append(f"{tag} {model}@{arm.version} answers what is tagged {tag}")
    return lines if len(lines) > 1 else [*lines, "no traffic is set: the champion answers all"]


def parse_arm(text: str) -> tuple[str, str]:
    """`TAG=NAME@VERSION` as tag and version. Raises PromotionError for anything else."""
    tag, _, version = text.partition("=")
    parse_version(version)
    return tag, version
