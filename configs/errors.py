"""The one error tree.

Every error a user can cause or meet is a MediMindError: the command line prints its message in one line and exits
with 2, the server turns it into an error body. A message names the thing, quotes the value, says what was expected
and what to do; it never holds a patient's identifier (a row number stands for it).
"""


class MediMindError(Exception):
    """Something that MediMind can explain. `code` is the stable name that clients may switch on."""

    code = "error"


class SpecError(MediMindError):
    """A disease's YAML does not hold together."""

    code = "spec"


class SourceError(MediMindError):
    """The source of a disease's data is missing, unreadable, or not the bytes that were promised."""

    code = "source"


class FetchError(SourceError):
    """The source could not be fetched this time; a later try may succeed."""


class ContractError(MediMindError):
    """A table breaks its columns' contract."""

    code = "contract"


class CohortError(MediMindError):
    """Nothing can be learned from these patients: none left, one class only, a split that does not work."""

    code = "cohort"


class TooFewError(CohortError):
    """There are too few patients to say anything yet; more may come."""

    code = "too_few"


class TrainingError(MediMindError):
    """A model could not be fitted, exported or given its operating points."""

    code = "training"


class ProcessError(MediMindError):
    """One of the processes that train a network together failed or was ended. It says nothing about what is learned,
    and a later try may succeed."""

    code = "process"


class BundleError(MediMindError):
    """A bundle could not be written, or is not what its manifest and self-test say it is."""

    code = "bundle"


class EncoderError(BundleError):
    """The encoder that a bundle or a spec names is not in the store, is not what its digest says, or cannot be read."""

    code = "encoder"


class RegistryError(MediMindError):
    """The MLflow registry does not answer, or does not hold what was asked for."""

    code = "registry"


class LedgerError(MediMindError):
    """The ledger cannot be read or written, or does not hold what was asked for."""

    code = "ledger"


class NotOnRecordError(LedgerError):
    """The ledger works, and does not hold what was asked for."""

    code = "not_on_record"


class BusyError(LedgerError):
    """Another process is at it; a later try may find it done."""

    code = "busy"


class ServiceError(MediMindError):
    """The service could not be started, or does not answer."""

    code = "service"


class DeviceMemoryError(MediMindError):
    """The memory of the device that computes a network is full; a later try may find room."""

    code = "out_of_memory"


class PromotionError(MediMindError):
    """A version may not become champion."""

    code = "promotion"


class RecordError(MediMindError):
    """One record of a request breaks the contract. `field` names the field; the message quotes the value.

    Carries its own code (`unknown_field`, `missing_field`, `not_a_number`, …) because a client acts on it.
    """

    def __init__(self, code: str, field: str | None, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
