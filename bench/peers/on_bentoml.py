"""BentoML services: plain, with adaptive batching, and an empty one, whose start ours is compared with."""

from typing import Any

import bentoml

SERVED: dict[str, Any] = {"workers": 1, "traffic": {"timeout": 600}, "logging": {"access": {"enabled": False}}}
BATCHING: dict[str, Any] = {"batchable": True, "max_batch_size": 64, "max_latency_ms": 60_000}
"""The latency is a limit above which BentoML sheds requests, not a window; so high, none is shed."""


@bentoml.service(**SERVED)
class Plain:
    def __init__(self) -> None:
        from peer_model import network_of_records, trees_of_records

        self.of_trees, self.of_network = trees_of_records(), network_of_records()

    @bentoml.api
    def trees(self, records: list[dict[str, Any]]) -> list[float]:
        return self.of_trees(records)

    @bentoml.api
    def network(self, records: list[dict[str, Any]]) -> list[float]:
        return self.of_network(records)


@bentoml.service(**SERVED)
class Batching:
    def __init__(self) -> None:
        from peer_model import network_of_records, trees_of_records

        self.of_trees, self.of_network = trees_of_records(), network_of_records()

    @bentoml.api(**BATCHING)
    def trees(self, records: list[dict[str, Any]]) -> list[float]:
        return self.of_trees(records)

    @bentoml.api(**BATCHING)
    def network(self, records: list[dict[str, Any]]) -> list[float]:
        return self.of_network(records)


@bentoml.service(**SERVED)
class Empty:
    @bentoml.api
    def trees(self, records: list[dict[str, Any]]) -> list[float]:  # noqa: ARG002  # the body of all the others
        return []
