"""Great Expectations' judgement of a table against its contract: what was expected, and how many cells broke it.

The expectations are generated from `spec.columns` alone, so a contract is written once, in the YAML. What Great
Expectations returns holds patients' values; what leaves this module holds counts.
"""

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from configs.errors import RecordError
from configs.spec import Column, Spec
from features.columns import check_value, side

if TYPE_CHECKING:
    import pandas as pd

Expectation = dict[str, Any]
"""What Great Expectations calls it and its arguments: `{"type": …, "kwargs": {…}}`, plain JSON."""

RANGE = "expect_column_values_to_be_between"
REQUIRED = "expect_column_values_to_not_be_null"
OF_THE_TABLE = {"expect_table_row_count_to_be_between", "expect_column_to_exist"}


@dataclass(frozen=True)
class Judgement:
    """One expectation and how many cells broke it: `unexpected` of the `of` that it looked at.

    A value is judged where it is not missing (1 and 0 pass for True and False), `required` at every row, the table
    itself and the presence of a column as one thing.
    """

    expectation: str
    column: str | None
    success: bool
    unexpected: int
    of: int


def suite(spec: Spec) -> list[Expectation]:
    """Everything that is expected of a disease's table, in the order of its columns."""
    return [
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
        *(expectation for name, column in spec.fields.items() for expectation in _of_column(name, column)),
    ]


def judge(spec: Spec, table: "pd.DataFrame") -> list[Judgement]:
    """How `table` (one row a patient, the contract's own column names, missing as NaN or None) meets its contract.

    In the order of `suite(spec)`. A column that is not there fails `expect_column_to_exist` and nothing else is asked
    of it. An expectation that could not be computed counts as broken by every cell it would have looked at.
    """
    asked = [expectation for expectation in suite(spec) if _is_asked(expectation, table)]
    # Great Expectations raises on a word beside numbers: words are counted first, and the range is that of the numbers.
    ranges = [expectation for expectation in asked if expectation["type"] == RANGE]
    others = [expectation for expectation in asked if expectation["type"] != RANGE]
    typed = _with_numbers_as_floats(spec, table)
    unexpected = _unexpected(typed, others) | _unexpected(_numbers_alone(typed, ranges), ranges)
    return [_judgement(expectation, unexpected[_key(expectation)], table) for expectation in asked]


def _of_column(name: str, column: Column) -> Iterable[Expectation]:
    yield {"type": "expect_column_to_exist", "kwargs": {"column": name}}
    if column.size is not None:
        pass  # what a list may hold is features/columns.py's to judge: Great Expectations has no word for it
    elif column.range is not None:
        low, high = column.range
        yield {"type": "expect_column_values_to_be_in_type_list", "kwargs": {"column": name, "type_list": ["float"]}}
        yield {"type": RANGE, "kwargs": {"column": name, "min_value": low, "max_value": high}}
    elif column.type == "category":
        values = list(column.categories)
        yield {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": name, "value_set": values}}
    else:
        yield {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": name, "value_set": [True, False]}}
    if column.required:
        yield {"type": REQUIRED, "kwargs": {"column": name}}


def _is_asked(expectation: Expectation, table: "pd.DataFrame") -> bool:
    return expectation["type"] in OF_THE_TABLE or expectation["kwargs"]["column"] in table.columns


def _with_numbers_as_floats(spec: Spec, table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with every number of a number's column a float; what is no number stays, for the type to be judged."""
    import pandas as pd

    numeric = [name for name, column in spec.fields.items() if column.type == "number" and name in table.columns]
    floats = {
        name: pd.Series([_as_float(spec.fields[name], value) for value in table[name]], table.index, dtype=object)
        for name in numeric
        if table[name].dtype != float
    }
    return table.assign(**floats)


def _as_float(column: Column, value: object) -> object:
    if isinstance(value, str) and side(column, value) is not None:
        try:
            return check_value("", column, value)  # `<0.6` counts as a number
        except RecordError:
            return value
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else value


def _numbers_alone(typed: "pd.DataFrame", ranges: list[Expectation]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(
        {
            name: [value if isinstance(value, float) else math.nan for value in typed[name]]
            for name in (expectation["kwargs"]["column"] for expectation in ranges)
        },
        dtype=float,
    )


def _unexpected(table: "pd.DataFrame", expectations: list[Expectation]) -> dict[tuple[str, str | None], int | None]:
    """How many cells broke each expectation; None where it failed without a count (a whole table, a thing not
    computable)."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            progress_bars=ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        ),
    )
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": table})
    configurations = [ExpectationConfiguration(**expectation) for expectation in expectations]
    outcome = batch.validate(
        gx.ExpectationSuite(name="contract", expectations=configurations),
        # Without this last key the result carries the cells that failed, which are patients' values.
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": 0},
    )
    return {
        (asked.type, asked.kwargs.get("column")): 0 if result.success else result.result.get("unexpected_count")
        for result in outcome.results
        if (asked := result.expectation_config) is not None
    }


def _judgement(expectation: Expectation, unexpected: int | None, table: "pd.DataFrame") -> Judgement:
    kind, column = _key(expectation)
    if kind in OF_THE_TABLE or column is None:
        of = 1
    else:
        of = len(table) if kind == REQUIRED else int(table[column].notna().sum())
    return Judgement(kind, column, unexpected == 0, of if unexpected is None else int(unexpected), of)


def _key(expectation: Expectation) -> tuple[str, str | None]:
    return expectation["type"], expectation["kwargs"].get("column")
