"""A version in memory: its bundle verified and replayed, its engine warm, its queue ready."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from configs.errors import BundleError
from configs.settings import Settings
from models import bundle as bundles
from models import explain
from models.device import Device
from models.predict import Predictor
from serving.batcher import INLINE_S, Batcher
from serving.bodies import decoder
from serving.scoring import Scorer


@dataclass(frozen=True)
class Version:
    """One version that can answer. `typed` decodes a body whose records all have the contract's types."""

    model: str
    number: int
    predictor: Predictor
    batcher: Batcher = field(repr=False)
    typed: msgspec.json.Decoder[Any] = field(repr=False)

    @property
    def bundle(self) -> str:
        return self.predictor.bundle.digest

    @property
    def expires_on(self) -> date | None:
        return self.predictor.spec.serving.expires_on

    @property
    def expired(self) -> bool:
        """Whether its last day is over, in UTC."""
        return self.expires_on is not None and self.predictor.spec.serving.expired(datetime.now(UTC).date())

    @cached_property
    def explainer(self) -> explain.Explains:
        """What explains it, read from its model at first use, whole as it was. Raises BundleError if it is not."""
        again = bundles.load(self.predictor.bundle.folder)
        if again.digest != self.bundle:  # of the same digest, its signature held when it was loaded
            raise BundleError(f"{self.bundle[:12]}: its {bundles.MANIFEST} was changed after it was loaded. Not used.")
        return explain.of_model(again.folder, self.predictor.plan, again.reference)


def load(
    model: str,
    number: int,
    digest: str,
    settings: Settings,
    flush: Callable[[], None],
    device: Callable[[], Device],
    formed: Callable[[int, float], None],
) -> Version:
    """The version of this bundle. A network is computed on the `device`, which is opened for the first one.

    Raises BundleError if it is missing, changed, not signed by a trusted key, or fails its self-test,
    DeviceMemoryError if the CPU's memory may not take it.
    """
    predictor = Predictor(bundles.get(digest, settings))
    most = predictor.spec.serving.max_batch
    if predictor.network:
        predictor.use(device())
    # A record may hold thousands of events, or a signal, whose check takes longer than a table's model; a network may
    # have to wait for its card.
    slow = predictor.network or predictor.spec.events or any(c.signal for c in predictor.spec.columns.values())
    inline = not slow and _seconds(predictor, most) < INLINE_S
    batcher = Batcher(Scorer(predictor), most, inline, flush, formed)
    return Version(model, number, predictor, batcher, decoder(predictor.contract))


def _seconds(predictor: Predictor, rows: int) -> float:
    """How long the largest batch takes, once warm: the best of five."""
    records = [case["record"] for case in predictor.bundle.selftest["cases"]]
    checked = predictor.contract.check(records, datetime.now(UTC))
    values, at = np.resize(checked.values, (rows, checked.values.shape[1])), np.resize(checked.at, rows)
    taken = []
    for _ in range(5):
        began = perf_counter()
        predictor.risk(predictor.matrix(values, at))
        taken.append(perf_counter() - began)
    return min(taken)
