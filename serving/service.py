"""The BentoML service: the only home of bentoml. Run by `bentoml serve serving.service:Service`.

The hot routes stand in front of BentoML's middlewares, which cost about a millisecond a request; health, metrics and
the life of the process stay BentoML's. That needs its service class, which is private: tests/service notice if it goes.
"""

import os
from typing import Any

import bentoml
from _bentoml_sdk.service.factory import Service as BentoService

from configs.settings import settings
from serving import app, runtime

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class FrontedService(BentoService[Any]):
    """A BentoML service whose app answers our routes first."""

    def to_asgi(self, is_main: bool = True) -> Any:
        inner = super().to_asgi(is_main)
        names = [name for name in os.environ.get("MEDIMIND_SERVED", "").split(",") if name]
        return app.front(runtime.start(settings(), names, _counters()), inner)


@bentoml.service(
    name="medimind",
    service_class=FrontedService,
    workers=int(os.environ.get("MEDIMIND_WORKERS", "1")),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": True, "namespace": "bentoml_service"},
)
class Service:
    """What BentoML starts; the work is done by the routes in front of it."""


def _counters() -> runtime.Counters:
    answered = bentoml.metrics.Counter(
        "medimind_predictions_total", "Predictions answered and on record.", labelnames=["model", "version"]
    )
    refused = bentoml.metrics.Counter(
        "medimind_refusals_total", "Records refused, by the reason's code.", labelnames=["model", "code"]
    )
    took = bentoml.metrics.Histogram(
        "medimind_predict_seconds",
        "Time from the request to its answer.",
        labelnames=["model"],
        buckets=LATENCY_BUCKETS_S,
    )
    return runtime.Counters(
        lambda model, version, n: answered.labels(model, str(version)).inc(n),
        lambda model, code: refused.labels(model, code).inc(),
        lambda model, seconds: took.labels(model).observe(seconds),
    )
