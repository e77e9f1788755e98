"""What a client may send and will get, as JSON Schema and OpenAPI, from the same contract that checks it."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import msgspec

from configs.spec import Column, Spec
from features.columns import LONGEST_TEXT
from features.synthetic import draw

EXAMPLES = 3
EXAMPLE_SEED = 1

ERROR_CODES = {
    "400": "The body is not JSON.",
    "404": "No such model, prediction or path.",
    "413": "The body or the number of records is too large.",
    "415": "The body is not declared as application/json.",
    "422": "The body, or every record in it, breaks the contract.",
    "503": "Not ready, the deadline has passed, or the ledger cannot be written. Retry-After says when to ask.",
}


class PredictBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a prediction request; each record is checked by its model's contract."""

    records: list[Any]
    explain: bool = False


class OutcomeBody(msgspec.Struct, forbid_unknown_fields=True):
    """One outcome: of a prediction by its id, or by the caller's own reference."""

    value: bool | int
    observed_at: str
    prediction_id: str | None = None
    reference: str | None = None
    model: str | None = None


def record_schema(spec: Spec) -> dict[str, Any]:
    """The JSON Schema of one record, with examples that the contract accepts. Invented; no patient among them."""
    text = {"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT}
    own = {
        "patient": {**text, "description": "The caller's pseudonym; kept as a keyed hash."},
        "reference": {**text, "description": "The caller's own id of this record."},
        "at": {"type": "string", "format": "date-time", "description": "Time of prediction, with its offset."},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"One record of {spec.name}: {spec.title}",
        "type": "object",
        "properties": {**{name: _field(column) for name, column in spec.columns.items()}, **own},
        "required": [name for name, column in spec.columns.items() if column.required],
        "additionalProperties": False,
        "examples": draw(spec.columns, EXAMPLES, EXAMPLE_SEED),
    }


def _field(column: Column) -> dict[str, Any]:
    values: list[dict[str, Any]] = []
    if column.type == "number":
        assert column.range is not None  # the Spec demands it of a number
        low, high = column.range
        values.append({"type": "number", "minimum": low, "maximum": high})
        unit = {"enum": [column.unit, *column.accepts]}
        quantity = {"value": {"type": "number"}, "unit": unit}
        values.append(
            {"type": "object", "properties": quantity, "required": ["value", "unit"], "additionalProperties": False}
        )
    elif column.type == "boolean":
        values.append({"type": "boolean"})
    else:
        values.append({"enum": list(column.categories)})
    if not column.required:
        missing: list[Any] = [None, *column.missing_if]
        values.append({"enum": missing, "description": "missing"})
    about = [column.description, f"in {column.unit}" if column.unit else None]
    about += [
        f"LOINC {column.loinc}" if column.loinc else None,
        f"SNOMED CT {column.snomed}" if column.snomed else None,
    ]
    said = ", ".join(part for part in about if part)
    return {"anyOf": values, **({"description": said} if said else {})}


def contract(spec: Spec) -> dict[str, Any]:
    """The columns' contract as a client reads it."""
    return {name: column.model_dump(mode="json", exclude={"from_", "map"}) for name, column in spec.columns.items()}


def openapi(specs: Mapping[str, Spec]) -> dict[str, Any]:
    """OpenAPI 3.1 of the service with these models."""
    records = {f"record_{name}": record_schema(spec) for name, spec in specs.items()}
    refs: list[dict[str, Any]] = [{"$ref": f"#/components/schemas/{key}"} for key in records]
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "field"],
                "properties": {
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "field": {"type": ["string", "null"]},
                },
            }
        },
    }
    prediction = {
        "type": "object",
        "required": ["id", "risk", "band", "missing"],
        "properties": {
            "id": {"type": "string"},
            "risk": {"type": "number", "minimum": 0, "maximum": 1},
            "band": {
                "type": ["string", "null"],
                "description": "The highest operating point whose threshold the risk reaches; null below all of them.",
            },
            "missing": {"type": "array", "items": {"type": "string"}},
        },
    }
    predictions = {"type": "array", "items": {"anyOf": [_ref("prediction"), _ref("error")]}}
    answer = _object({"model": {"type": "string"}, "version": {"type": "integer"}, "predictions": predictions})
    body = {
        "type": "object",
        "required": ["records"],
        "additionalProperties": False,
        "properties": {
            "records": {"type": "array", "minItems": 1, "items": {"anyOf": refs} if refs else {"type": "object"}},
            "explain": {"type": "boolean", "default": False},
        },
    }
    outcome = {
        "type": "object",
        "required": ["value", "observed_at"],
        "additionalProperties": False,
        "properties": {
            "prediction_id": {"type": ["string", "null"]},
            "reference": {"type": ["string", "null"]},
            "model": {"type": ["string", "null"]},
            "value": {"enum": [True, False, 0, 1]},
            "observed_at": {"type": "string", "format": "date-time"},
        },
    }
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": list(specs)}}
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT},
    }
    deadline = {"name": "X-Deadline-Ms", "in": "header", "schema": {"type": "integer", "minimum": 1}}
    identifier = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+-[0-9]+$"},
    }
    again = {"name": "replay", "in": "query", "schema": {"type": "boolean", "default": False}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MediMind",
            "version": version("medimind"),
            "description": "Risk models with their evidence. Research software, not a medical device.",
        },
        "paths": {
            "/livez": {"get": _operation("Is the process alive", {}, text=True)},
            "/readyz": {"get": _operation("Is every model ready, and if not, why", {"type": "object"}, codes=("503",))},
            "/v1/models": {"get": _operation("The models, their versions, ready or why not", {"type": "object"})},
            "/v1/models/{name}": {
                "get": _operation(
                    "Card, contract and operating points", {"type": "object"}, [name], codes=("404", "503")
                )
            },
            "/v1/models/{name}/schema": {
                "get": _operation("JSON Schema of one record", {"type": "object"}, [name], codes=("404", "503"))
            },
            "/v1/models/{name}/predict": {
                "post": {
                    **_operation("Risks", answer, [name, key, deadline], tuple(ERROR_CODES)),
                    "requestBody": _json(body),
                }
            },
            "/v1/outcomes": {
                "post": {
                    **_operation("What happened to patients later", {"type": "object"}, [], tuple(ERROR_CODES)),
                    "requestBody": _json({"type": "array", "minItems": 1, "items": _ref("outcome")}),
                }
            },
            "/v1/predictions/{id}": {
                "get": _operation(
                    "What a prediction saw and said", {"type": "object"}, [identifier, again], ("404", "503")
                )
            },
        },
        "components": {"schemas": {**records, "error": error, "prediction": prediction, "outcome": outcome}},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _operation(
    summary: str,
    answer: dict[str, Any],
    parameters: list[dict[str, Any]] | None = None,
    codes: tuple[str, ...] = (),
    text: bool = False,
) -> dict[str, Any]:
    kind = "text/plain" if text else "application/json"
    responses: dict[str, Any] = {"200": {"description": "OK", "content": {kind: {"schema": answer}}}}
    for code in codes:
        responses[code] = {"description": ERROR_CODES[code], "content": {"application/json": {"schema": _ref("error")}}}
    return {"summary": summary, "parameters": parameters or [], "responses": responses}
