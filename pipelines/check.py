"""Does a disease's YAML hold together: every name in it resolved, every unit convertible."""

from configs.errors import SpecError
from configs.settings import Settings
from configs.spec import Spec, load_spec
from features import build, units
from models.family import family

TODO = "TODO"


def check(name: str, settings: Settings) -> Spec:
    """The Spec, all of whose names are things in the repository. Raises SpecError for the first that is not."""
    spec = load_spec(name, settings.configs)
    where = f"configs/diseases/{name}.yaml"
    build.plan(spec)
    for candidate in (*spec.candidates, *(spec.gates.not_worse_than or {})):
        family(candidate)
    for key, column in spec.columns.items():
        for unit in column.accepts:
            assert column.unit is not None  # the Spec allows `accepts` for numbers alone
            if units.factor(unit, column.unit, column.loinc) is None:
                raise SpecError(
                    f"{where}: columns.{key}.accepts: {unit!r} cannot be converted to {column.unit!r}"
                    f"{' for LOINC ' + column.loinc if column.loinc else ''}; features/units.py knows what can."
                )
    if left := _todos(spec.document, ""):
        raise SpecError(f"{where}: still to be decided: {', '.join(left)}. Nothing is trained on a TODO.")
    return spec


def _todos(value: object, key: str) -> list[str]:
    """Where the document still says TODO."""
    if isinstance(value, dict):
        found = [_todos(child, f"{key}.{name}" if key else str(name)) for name, child in value.items()]
        return [place for places in found for place in places]
    if isinstance(value, list):
        return [place for child in value for place in _todos(child, key)]
    return [key] if isinstance(value, str) and TODO in value else []
