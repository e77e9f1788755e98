"""What changed from one bundle to another, in the words of the predetermined change control plan.

Unknown is not unchanged: a cohort that is split in another way is not known to hold the same patients, so it counts as
new data as well.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from configs.spec import Change
from models.bundle import Bundle

PLANNED = {
    "source": "new_data",
    "columns": "new_features",
    "features": "new_features",
    "references": "new_features",
    "candidates": "retuned_parameters",
    "trials": "retuned_parameters",
    "split": "retuned_parameters",
}
"""Keys of the spec that a plan may allow to change. Any other is a change that no plan allows."""


@dataclass(frozen=True)
class Changes:
    """`planned`: what a plan may allow, each with what it was seen by. `other`: what no plan allows, a phrase each."""

    planned: dict[Change, tuple[str, ...]]
    other: tuple[str, ...]

    @property
    def told(self) -> tuple[str, ...]:
        """All of them, a phrase each; empty where nothing changed."""
        return (*(f"{kind}: {', '.join(seen)}" for kind, seen in self.planned.items()), *self.other)

    def outside(self, allowed: tuple[Change, ...]) -> tuple[str, ...]:
        """What this plan does not allow, a phrase each."""
        refused = (f"{kind} ({', '.join(seen)})" for kind, seen in self.planned.items() if kind not in allowed)
        return (*refused, *self.other)


def between(champion: Bundle, version: Bundle) -> Changes:
    """What changed from the champion's bundle to the version's, in data, model, spec, code and libraries."""
    seen: dict[str, list[str]] = {kind: [] for kind in get_args(Change)}
    other = []
    for key in _differing(champion.spec.document, version.spec.document):
        if key in PLANNED:
            seen[PLANNED[key]].append(f"spec.{key}")
        else:
            other.append(f"spec.{key}")
    before, after = champion.training, version.training
    # other columns of the same patients, in the same parts, are other features and no new data
    recut = seen["new_features"] and before.get("split") is not None and before.get("split") == after.get("split")
    if before["data"] != after["data"] and not recut:
        seen["new_data"].append(f"cohort {before['data'][:12]} to {after['data'][:12]}")
    if before["family"] != after["family"]:
        seen["new_family"].append(f"{before['family']} to {after['family']}")
    elif not seen["new_data"] and not seen["new_features"] and _model(champion) != _model(version):
        seen["retuned_parameters"].append(f"another {after['family']} model of the same data and features")
    if before["code"] != after["code"]:
        other.append(f"code {before['code'][:12]} to {after['code'][:12]}")
    other += _libraries(before["libraries"], after["libraries"])
    planned = {kind: tuple(seen[kind]) for kind in get_args(Change) if seen[kind]}
    return Changes(planned, tuple(other))


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [key for key in dict.fromkeys([*a, *b]) if _ordered(a.get(key)) != _ordered(b.get(key))]


def _ordered(value: Any) -> Any:
    """With the order of its keys: a category's is the number of each of its values."""
    if isinstance(value, Mapping):
        return [(key, _ordered(inner)) for key, inner in value.items()]
    return [_ordered(inner) for inner in value] if isinstance(value, list | tuple) else value


def _model(bundle: Bundle) -> tuple[Any, ...]:
    """What the model says of the synthetic patients, and what is made of it."""
    return bundle.calibration, bundle.thresholds, [case["risk"] for case in bundle.selftest["cases"]]


def _libraries(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name, 'none')} to {after.get(name, 'none')}"
