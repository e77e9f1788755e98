"""The typed Python client of MediMind's HTTP service. Imports nothing of ours; anyone may import it."""

from client.answers import (
    Answer,
    Event,
    Explanation,
    ModelState,
    Outcome,
    OutcomeRecorded,
    Prediction,
    PredictionOnRecord,
    RecordRefused,
    Replay,
)
from client.errors import ClientError, Refused, Unanswered
from client.medimind import Client

__all__ = [
    "Answer",
    "Client",
    "ClientError",
    "Event",
    "Explanation",
    "ModelState",
    "Outcome",
    "OutcomeRecorded",
    "Prediction",
    "PredictionOnRecord",
    "RecordRefused",
    "Refused",
    "Replay",
    "Unanswered",
]
