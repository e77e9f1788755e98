"""The BentoML service: the only home of bentoml. Run by `bentoml serve serving.service:Service`.

The hot routes stand in front of BentoML's middlewares, which cost about a millisecond a request; health, metrics and
the life of the process stay BentoML's. That needs its service class, which is private: tests/service notice if it goes.
"""

import gc
import os
import signal
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
from _bentoml_sdk.service.factory import Service as BentoService

if TYPE_CHECKING:
    from serving.runtime import Counters

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
PARENT_EVERY_S = 0.25
GRACE_S = 1.0
SWITCH_S = 0.0005
"""How long Python's threads leave each other waiting: the ledger's must not wait for a busy event loop's 5 ms."""
GARBAGE = (10_000, 20, 50)
"""How many new objects before Python looks for garbage among them; its default, 700, is for other programs."""


class FrontedService(BentoService[Any]):
    """A BentoML service whose app answers our routes first."""

    def to_asgi(self, is_main: bool = True) -> Any:
        # Here, and not above: the parent of the workers imports this module too, and needs none of it.
        from configs.settings import settings
        from serving.app import front
        from serving.runtime import Runtime

        parent = int(os.environ.get("MEDIMIND_PARENT", os.getppid()))  # not asked now: it may be gone already
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
        sys.setswitchinterval(SWITCH_S)
        inner = super().to_asgi(is_main)
        names = [name for name in os.environ.get("MEDIMIND_SERVED", "").split(",") if name]
        app = front(Runtime(settings(), names, _counters()), inner)
        gc.collect()
        gc.freeze()  # what was loaded stays; looking through it for garbage was a tenth of a request's time
        gc.set_threshold(*GARBAGE)
        return app


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


def _leave_with(parent: int) -> None:
    """End this worker when its parent is gone: else it would go on answering, unseen, and hold the port."""
    while os.getppid() == parent:
        time.sleep(PARENT_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def _counters() -> "Counters":
    from models.device import Watcher
    from serving.runtime import Counters

    answered = bentoml.metrics.Counter(
        "medimind_predictions_total", "Predictions answered and on record.", labelnames=["model", "version"]
    )
    refused = bentoml.metrics.Counter(
        "medimind_refusals_total", "Records and requests refused, by the reason's code.", labelnames=["model", "code"]
    )
    shadowed = bentoml.metrics.Counter(
        "medimind_shadow_records_total",
        "Records for a shadow, by what became of them.",
        labelnames=["model", "outcome"],
    )
    took = bentoml.metrics.Histogram(
        "medimind_predict_seconds",
        "Time from the request to its answer.",
        labelnames=["model"],
        buckets=LATENCY_BUCKETS_S,
    )
    batches = bentoml.metrics.Histogram(
        "medimind_batch_records",
        "Records of a batch that a thread computes.",
        labelnames=["model"],
        buckets=BATCH_BUCKETS,
    )
    waited = bentoml.metrics.Histogram(
        "medimind_queue_seconds",
        "Time that the first record of such a batch waited for it.",
        labelnames=["model"],
        buckets=LATENCY_BUCKETS_S,
    )
    computed = bentoml.metrics.Histogram(
        "medimind_device_seconds",
        "Time that a network took for rows that were computed together.",
        labelnames=["model"],
        buckets=LATENCY_BUCKETS_S,
    )
    events = bentoml.metrics.Counter(
        "medimind_device_events_total",
        "Networks moved out of a device, batches halved, never taken or without a number in them, and devices lost.",
        labelnames=["model", "event"],
    )
    _forget_the_dead()
    memory = bentoml.metrics.Gauge(
        "medimind_device_memory_bytes",
        "Bytes of a network's weights on the device now, and of its largest batch so far, over all workers.",
        labelnames=["model", "of"],
        multiprocess_mode="livesum",
    )

    def formed(model: str, records: int, seconds: float) -> None:
        batches.labels(model).observe(records)
        waited.labels(model).observe(seconds)

    def held(model: str, weights: int, batch: int) -> None:
        memory.labels(model, "weights").set(weights)
        memory.labels(model, "batch").set(batch)

    # The look-up of a labelled child costs more than counting with it.
    answered_of = cache(lambda model, version: answered.labels(model, str(version)))
    refused_of = cache(lambda model, code: refused.labels(model, code))
    took_of = cache(lambda model: took.labels(model))
    return Counters(
        lambda model, version, n: answered_of(model, version).inc(n),
        lambda model, code: refused_of(model, code).inc(),
        lambda model, seconds: took_of(model).observe(seconds),
        lambda model, outcome, n: shadowed.labels(model, outcome).inc(n),
        formed,
        Watcher(
            lambda model, _rows, seconds: computed.labels(model).observe(seconds),
            lambda model, event: events.labels(model, event).inc(),
        ),
        held,
    )


def _forget_the_dead() -> None:
    """Take out what workers held that were killed: it would be added to what the living hold.

    prometheus_client keeps a worker's gauges in files of its own, named by their mode and its number.
    """
    if (shared := os.environ.get("PROMETHEUS_MULTIPROC_DIR")) is None:  # not started by `bentoml serve`
        return
    for file in Path(shared).glob("gauge_live*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except PermissionError:  # somebody else's process has its number now
            continue
        except ProcessLookupError:
            file.unlink(missing_ok=True)  # another worker that starts may have been faster
