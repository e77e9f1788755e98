"""LitServe with batching: `python on_litserve.py PORT`."""

import sys
from collections.abc import Callable
from typing import Any

import litserve as ls
from peer_model import network_of_records, trees_of_records


class Batched(ls.LitAPI):  # type: ignore[misc]
    """Requests are batched whole; a request with several records stays together."""

    load: Callable[[], Callable[[Any], list[float]]]

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe's own signature
        self.model = type(self).load()

    def decode_request(self, request: dict[str, Any]) -> Any:
        return request["records"]

    def batch(self, inputs: list[Any]) -> Any:
        return inputs

    def predict(self, requests: list[Any]) -> list[list[float]]:
        risks = iter(self.model([record for records in requests for record in records]))
        return [[next(risks) for _ in records] for records in requests]

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        return {"risks": output}


class Trees(Batched):
    load = staticmethod(trees_of_records)


class Network(Batched):
    load = staticmethod(network_of_records)


if __name__ == "__main__":
    served = [
        kind(max_batch_size=64, batch_timeout=0.002, api_path=path)
        for kind, path in ((Trees, "/trees"), (Network, "/network"))
    ]
    server = ls.LitServer(served, accelerator="cpu", workers_per_device=1, timeout=False, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
