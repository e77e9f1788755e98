"""Ray Serve with batching: `python on_ray.py PORT`."""

import sys
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request


class Batched:
    """Requests are batched whole; a request with several records stays together."""

    def __init__(self, kind: str) -> None:
        import peer_model

        self.model = peer_model.trees_of_records() if kind == "trees" else peer_model.network_of_records()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def risks(self, requests: list[Any]) -> list[list[float]]:
        found = iter(self.model([record for records in requests for record in records]))
        return [[next(found) for _ in records] for records in requests]

    async def __call__(self, request: Request) -> dict[str, Any]:
        return {"risks": await self.risks((await request.json())["records"])}


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[1]), "request_timeout_s": 600},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    for kind in ("trees", "network"):
        deployed = serve.deployment(
            Batched,
            name=kind,
            num_replicas=1,
            max_ongoing_requests=1024,
            ray_actor_options={"num_cpus": 1},
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        serve.run(deployed.bind(kind), name=kind, route_prefix=f"/{kind}")
    threading.Event().wait()
