"""Does a disease's YAML hold together: every name in it resolved, every unit convertible."""

from configs.errors import SpecError
from configs.settings import Settings
from configs.spec import Column, Spec, load_spec
from features import build, units
from models.family import family
from models.tuning import refuse_idle

TODO = "TODO"


def check(name: str, settings: Settings) -> Spec:
    """The Spec, all of whose names are things in the repository. Raises SpecError for the first that is not."""
    spec = load_spec(name, settings.configs)
    where = f"configs/diseases/{name}.yaml"
    build.plan(spec)
    for candidate in (*spec.candidates, *(spec.gates.not_worse_than or {})):
        family(candidate)
    refuse_idle(spec)
    if left := _todos(spec.document, ""):
        raise SpecError(f"{where}: still to be decided: {', '.join(left)}. Nothing is trained on a TODO.")
    for key, columns in (("columns", spec.columns), ("events", spec.events)):
        for named, column in columns.items():
            _check_units(f"{where}: {key}.{named}", column)
    return spec


def _check_units(where: str, column: Column) -> None:
    """Raises SpecError for a unit that cannot be read, that is not what the code stands for, or that cannot be
    converted to the column's own."""
    if column.unit is None:
        return
    if (why := units.unreadable(column.unit)) is not None:
        raise SpecError(f"{where}.unit: {why}")
    if (why := units.unfit(column.unit, column.loinc)) is not None:
        raise SpecError(f"{where}.loinc: {why}")
    for unit in column.accepts:
        if (why := units.impossible(unit, column.unit, column.loinc)) is not None:
            raise SpecError(f"{where}.accepts: {why}")


def _todos(value: object, key: str) -> list[str]:
    """Where the document still says TODO."""
    if isinstance(value, dict):
        found = [_todos(child, f"{key}.{name}" if key else str(name)) for name, child in value.items()]
        return [place for places in found for place in places]
    if isinstance(value, list):
        return [place for child in value for place in _todos(child, key)]
    return [key] if isinstance(value, str) and TODO in value else []
