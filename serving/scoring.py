"""Records to what is said of them: checked, computed, put in words; for all that wait at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import RecordError
from features.contract import Checked
from ledger.predictions import DIGEST_BYTES, ByClass, by_class, kept_features
from models.predict import Predictor


@dataclass(slots=True)
class Scored:
    """What one version says of the n records that keep its contract, and why the others do not.

    `cells` are the records as they go on record, `features` (n, d), `risks` (n,), `missing` the columns without a value
    of each, `ignored` how many of its events did not count, by reason. `errors` maps a position among all that were
    sent to its error. `kept` and `digests` are what the ledger keeps of the features, made where they are computed:
    of signals it takes long. `by_class`: of several classes alone.
    """

    cells: list[tuple[Any, ...]]
    patients: list[str | None]
    references: list[str | None]
    errors: dict[int, RecordError]
    features: NDArray[np.float32]
    risks: NDArray[np.float64]
    bands: list[str | None]
    missing: list[list[str]]
    ignored: list[dict[str, int]]
    kept: NDArray[np.float32]
    digests: bytes | None
    by_class: ByClass | None = None

    def __len__(self) -> int:
        return len(self.cells)

    def part(self, start: int, stop: int) -> "Scored":
        """Some of the records, where none was refused."""
        return Scored(
            self.cells[start:stop],
            self.patients[start:stop],
            self.references[start:stop],
            {},
            self.features[start:stop],
            self.risks[start:stop],
            self.bands[start:stop],
            self.missing[start:stop],
            self.ignored[start:stop],
            self.kept[start:stop],
            self.digests and self.digests[DIGEST_BYTES * start : DIGEST_BYTES * stop],
            self.by_class and self.by_class.part(start, stop),
        )

    @staticmethod
    def join(pieces: Sequence["Scored"]) -> "Scored":
        """The records of one request that were scored piece by piece."""
        errors: dict[int, RecordError] = {}
        sent = 0
        for piece in pieces:
            errors |= {sent + place: error for place, error in piece.errors.items()}
            sent += len(piece) + len(piece.errors)
        return Scored(
            [cells for piece in pieces for cells in piece.cells],
            [patient for piece in pieces for patient in piece.patients],
            [reference for piece in pieces for reference in piece.references],
            errors,
            np.concatenate([piece.features for piece in pieces]),
            np.concatenate([piece.risks for piece in pieces]),
            [band for piece in pieces for band in piece.bands],
            [names for piece in pieces for names in piece.missing],
            [counts for piece in pieces for counts in piece.ignored],
            np.concatenate([piece.kept for piece in pieces]),
            None if pieces[0].digests is None else b"".join(piece.digests or b"" for piece in pieces),
            ByClass.join([piece.by_class for piece in pieces]),
        )


class Scorer:
    """A version's model, from records as they were sent to what is said of them."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def together(self, sent: Sequence[Any], received: datetime) -> Scored | None:
        """Records of several requests at once; None if one of them is odd, and has to be looked at by itself."""
        checked = self._predictor.contract.quick(sent, received)
        return None if checked is None else self._scored(checked)

    def alone(self, sent: Sequence[Any], received: datetime) -> Scored:
        """Records of one request."""
        return self._scored(self._predictor.contract.check(sent, received))

    def _scored(self, checked: Checked) -> Scored:
        predictor = self._predictor
        features = predictor.matrix(checked.values, checked.at)
        said = predictor.risks(features)
        risks = predictor.positive(said)
        missing = predictor.missing(checked.values)
        abstained = predictor.abstains(said, missing)
        kept, digests = kept_features(predictor.plan, features)
        return Scored(
            checked.cells,
            checked.patients,
            checked.references,
            checked.errors,
            features,
            risks,
            predictor.bands(risks, abstained),
            missing,
            checked.ignored,
            kept,
            digests,
            by_class(predictor, said, abstained),
        )
