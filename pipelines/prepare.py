"""Records to cohort."""

from configs.errors import CohortError
from configs.settings import Settings
from configs.spec import load_spec
from features import build, cohort, records
from features.cohort import Cohort
from pipelines.files import alone, replacing


def prepare(name: str, settings: Settings) -> Cohort:
    """Make the disease's cohort from its records, and keep it as `data/cohorts/<name>.parquet`."""
    with alone(name, settings):
        return _prepare(name, settings)


def _prepare(name: str, settings: Settings) -> Cohort:
    spec = load_spec(name, settings.configs)
    found, dropped = records.load(spec, settings.data / "records" / f"{name}.parquet")
    made = cohort.prepare(spec, build.plan(spec), found, dropped)
    with replacing(settings.data / "cohorts" / f"{name}.parquet", CohortError) as partial:
        cohort.save(made, partial)
    return made
