"""What a client may send and will get, as JSON Schema and OpenAPI, from the same contract that checks it."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, get_args

import msgspec

from configs.spec import Column, Outcome, Spec
from evidence.report import Verdict
from features import texts
from features.columns import LONGEST_TEXT, MOST_EVENTS
from features.synthetic import draw
from models.conformal import LABELS
from serving.bodies import ARROW
from serving.signals import DICOM, KINDS, NPY, NPY_DTYPES, PICTURES, PNG, RAW, RAW_DTYPES

EXAMPLES = 3
EXAMPLE_SEED = 1

ERROR_CODES = {
    "400": "The body, or a header that holds JSON, is not what it is declared as.",
    "404": "No such model, prediction or path.",
    "408": "The body did not arrive in time.",
    "413": "The body or the number of records is too large.",
    "415": "The body is declared as a type that is not read here.",
    "422": "The body, or every record in it, breaks the contract; or a header or a query does.",
    "503": "Not ready, the deadline has passed, or the ledger cannot be written. Retry-After says when to ask.",
}

SENT = tuple(ERROR_CODES)
"""What a request with a body may be refused with."""
TEXT = {"type": "string"}
PAGE = {"type": "string", "description": "An HTML page that needs nothing else."}
RETRY_AFTER = {
    "Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 0}}
}

Parameter = dict[str, Any]

CALLERS_TEXT = {"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT}
OWN = {
    "patient": {**CALLERS_TEXT, "description": "The caller's pseudonym; kept as a keyed hash."},
    "reference": {**CALLERS_TEXT, "description": "The caller's own id of this record."},
    "at": {"type": "string", "format": "date-time", "description": "Time of prediction, with its offset."},
}
"""What a caller may say about a record, beside its fields."""
ASKED_WITH = (
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "schema": CALLERS_TEXT,
        "description": "A request sent again with its key and body is answered as before: one prediction, not two.",
    },
    {
        "name": "X-Deadline-Ms",
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 1},
        "description": "What is not begun by then is refused with 503.",
    },
    {
        "name": "X-Traffic-Tag",
        "in": "header",
        "required": False,
        "schema": CALLERS_TEXT,
        "description": "Names the side of an A/B comparison.",
    },
)
TOLD_OF_A_SIGNAL = {
    "X-Field": ({"type": "string"}, "Which signal the body is, where the model has several."),
    "X-Shape": (
        {"type": "string", "pattern": "^[0-9]{1,9}(,[0-9]{1,9}){1,3}$"},
        "Of raw numbers: records, leads, samples, or records, channels, height, width; of one without the first.",
    ),
    "X-Dtype": ({"type": "string", "enum": list(RAW_DTYPES)}, "Of raw numbers, little-endian."),
    "X-Unit": ({"type": "string"}, "Of a waveform: its unit, where that is not the contract's own."),
    "X-Sampling-Hz": ({"type": "number", "exclusiveMinimum": 0}, "Of a waveform: its rate, where that is another."),
    "X-Leads": (
        {"type": "string"},
        "Of a waveform: its leads' names in their order, such as I,II,V1; if told, checked.",
    ),
    "X-Record": ({"type": "string"}, "JSON of the record's other fields; of several records a list."),
    "X-Explain": ({"type": "boolean", "default": False}, "Give each feature's contribution."),
}
"""Headers that say of a signal that comes by itself what its bytes do not."""
SIGNAL_BODIES = {
    NPY: f"A waveform or an image, or several along the first axis, as a .npy file of {', '.join(NPY_DTYPES)}.",
    RAW: "The same as bare numbers, little-endian and row-major; X-Shape and X-Dtype say which.",
    PNG: "One record's picture.",
    DICOM: "One record's picture; nothing of the file's header is kept.",
}
RECALLED_WITH = (
    {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9]+-[0-9]+$"}},
    {
        "name": "replay",
        "in": "query",
        "required": False,
        "schema": {"type": "boolean", "default": False},
        "description": "Compute it once more.",
    },
)


class OutcomeBody(msgspec.Struct, forbid_unknown_fields=True):
    """One outcome: of a prediction by its id, or by the caller's own reference."""

    value: bool | int | str
    observed_at: str
    prediction_id: str | None = None
    reference: str | None = None
    model: str | None = None


def record_schema(spec: Spec) -> dict[str, Any]:
    """The JSON Schema of one record, with examples that the contract accepts. Invented; no patient among them."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"One record of {spec.name}: {spec.title}",
        "type": "object",
        "properties": _fields(spec),
        "required": [name for name, column in spec.columns.items() if column.required],
        "additionalProperties": False,
        "examples": draw(spec.columns, EXAMPLES, EXAMPLE_SEED, spec.events),
    }


def columns_schema(spec: Spec) -> dict[str, Any]:
    """The JSON Schema of several records as columns, each a list with one value a record."""
    return {
        "title": f"Records of {spec.name}, as columns of one length",
        "type": "object",
        "properties": {name: {"type": "array", "minItems": 1, "items": field} for name, field in _fields(spec).items()},
        "required": [name for name, column in spec.columns.items() if column.required],
        "additionalProperties": False,
    }


def _fields(spec: Spec) -> dict[str, Any]:
    """What a record may hold: the columns that are sent, its events, and what a caller says about it."""
    sent = {name: _field(column) for name, column in spec.fields.items()}
    return sent | ({"events": _events(spec.events)} if spec.events else {}) | OWN


def _events(events: Mapping[str, Column]) -> dict[str, Any]:
    """A patient's events: each of its code's value and unit."""
    codes = "; ".join(": ".join([code, *filter(None, [_about(column)])]) for code, column in events.items())
    said = (
        f"What happened to the patient, or was measured, in any order. Codes: {codes}. Another code is ignored, and so "
        "is what lies at or after the time of prediction or stands here twice."
    )
    kinds = {column.type for column in events.values()}
    values = [{"type": kind} for kind in ("number", "boolean", "string") if kind in kinds or kind == "string"]
    properties = {
        "time": {"type": "string", "format": "date-time", "description": "When, with its offset."},
        "code": {"type": "string", "examples": list(events)},
        "value": {"anyOf": [*values, {"type": "null"}], "description": "Absent: it happened."},
        "unit": {"type": ["string", "null"], "description": "Of a number; it may be absent where the unit is 1."},
        "patient": {**CALLERS_TEXT, "description": "The record's own, where it is told; another is refused."},
    }
    event = {"type": "object", "properties": properties, "required": ["time", "code"], "additionalProperties": False}
    return {"anyOf": [_list(event, maxItems=MOST_EVENTS), {"type": "null"}], "description": said}


def _about(column: Column) -> str:
    """A column in words: what it is, its unit, its codes."""
    about = [
        column.description,
        f"in {column.unit}" if column.unit else None,
        f"LOINC {column.loinc}" if column.loinc else None,
        f"SNOMED CT {column.snomed}" if column.snomed else None,
    ]
    return ", ".join(part for part in about if part)


def _signal(column: Column) -> list[dict[str, Any]]:
    """The ways in which JSON may hold a signal."""
    if column.type == "text":
        return [{"type": "string", "minLength": 1, "maxLength": column.length, "pattern": texts.PATTERN}]
    assert column.shape is not None and column.size is not None and column.range is not None
    packed = {"type": "string", "contentEncoding": "base64", "description": "float32, little-endian, row-major"}
    if column.type == "image":
        files = [_closed({name: {"type": "string", "contentEncoding": "base64"}}) for name in ("png", "dicom", "npz")]
        channels, *plane = column.shape
        shapes = [column.shape, (*plane, channels), *([plane] if channels == 1 else [])]
        return [packed, *map(_nested, shapes), *files]
    leads, _ = column.shape
    of_any_rate = _list(_list({"type": "number"}, minItems=1), minItems=leads, maxItems=leads)
    unit = {"type": "string", "enum": [column.unit, *column.accepts]}
    rate = {"type": "number", "exclusiveMinimum": 0, "description": f"the contract's is {column.sampling_hz:g}"}
    order = {"const": [*column.leads], "description": "What the value's leads are: the contract's, in its order."}
    recording = _closed(
        {"value": {"anyOf": [packed, of_any_rate]}}, {"unit": unit, "sampling_hz": rate, "leads": order}
    )
    return [packed, _nested(column.shape), recording]


def _nested(shape: Sequence[int]) -> dict[str, Any]:
    """Lists of lists of numbers, of this shape."""
    found: dict[str, Any] = {"type": "number"}
    for length in reversed(shape):
        found = _list(found, minItems=length, maxItems=length)
    return found


def _closed(properties: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**_object(properties, optional), "additionalProperties": False}


def _field(column: Column) -> dict[str, Any]:
    values: list[dict[str, Any]] = []
    if column.signal:
        values += _signal(column)
    elif column.type == "number":
        assert column.range is not None  # the Spec demands it of a number
        low, high = column.range
        values.append({"type": "number", "minimum": low, "maximum": high})
        limits = [
            f"{sign}{rule.limit!r}".removesuffix(".0")
            for sign, rule in (("<", column.below_detection), (">", column.above_detection))
            if rule is not None
        ]
        beyond = [{"type": "string", "enum": limits, "description": "beyond detection"}] if limits else []
        values += beyond
        unit = {"type": "string", "enum": [column.unit, *column.accepts]}
        quantity = {"value": {"anyOf": [{"type": "number"}, *beyond]} if beyond else {"type": "number"}, "unit": unit}
        values.append(
            {"type": "object", "properties": quantity, "required": ["value", "unit"], "additionalProperties": False}
        )
    elif column.type == "array":
        assert column.range is not None  # the Spec demands it of an array
        low, high = column.range
        ends = {"minItems": column.length, "maxItems": column.length}
        values.append({"type": "array", "items": {"type": "number", "minimum": low, "maximum": high}, **ends})
        unit = {"type": "string", "enum": [column.unit, *column.accepts]}
        several = {"value": {"type": "array", "items": {"type": "number"}, **ends}, "unit": unit}
        values.append(
            {"type": "object", "properties": several, "required": ["value", "unit"], "additionalProperties": False}
        )
    elif column.type == "boolean":
        values.append({"type": "boolean"})
    else:
        values.append({"type": "string", "enum": list(column.categories)})
    if not column.required:
        missing: list[Any] = [None, *column.missing_if]
        values.append({"enum": missing, "description": "missing"})
    said = _about(column)
    return {"anyOf": values, **({"description": said} if said else {})}


def contract(columns: Mapping[str, Column]) -> dict[str, Any]:
    """The contract of columns, or of events, as a client reads it."""
    return {
        name: column.model_dump(mode="json", exclude={"from_", "map", "measured_at", "folder"})
        for name, column in columns.items()
    }


def classes(outcome: Outcome) -> dict[str, Any]:
    """The classes as a client reads them: for each whether it is the event, and what saying another one costs."""
    return {
        name: {"event": name in outcome.positive, "costs": dict((outcome.costs or {}).get(name, {}))}
        for name in outcome.classes or ()
    }


def openapi(specs: Mapping[str, Spec]) -> dict[str, Any]:
    """OpenAPI 3.1 of the service with these models. Every answer has a schema, so that a generated client is typed."""
    known = {"type": "string", "enum": list(specs)} if specs else {"type": "string"}
    one: Parameter = {"name": "name", "in": "path", "required": True, "schema": known}
    lookup = ("404", "503")
    types = {column.type for spec in specs.values() for column in spec.fields.values() if column.signal}
    kinds = [kind for kind in KINDS if types & ({"image"} if kind in PICTURES else {"image", "waveform"})]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MediMind",
            "version": version("medimind"),
            "description": "Risk models with their evidence. Research software, not a medical device.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "health", "description": "Of the process and its models."},
            {"name": "models", "description": "What is served."},
            {"name": "predictions", "description": "Risks, and what happened later."},
        ],
        "paths": {
            "/livez": {"get": _operation("alive", "health", "Is the process alive", TEXT)},
            "/readyz": {"get": _ready()},
            "/metrics": {"get": _operation("metrics", "health", "Figures for Prometheus", TEXT)},
            "/v1/models": {
                "get": _operation("models", "models", "The models, their versions, ready or why not", _ref("models"))
            },
            "/v1/models/{name}": {
                "get": _operation(
                    "model", "models", "Card, contract and operating points", _ref("model"), [one], lookup
                )
            },
            "/v1/models/{name}/schema": {
                "get": _operation("schema", "models", "JSON Schema of one record", _ref("record_schema"), [one], lookup)
            },
            "/v1/models/{name}/review": {
                "get": _operation("review", "models", "The champion's review page", PAGE, [one], lookup)
            },
            "/v1/models/{name}/predict": {
                "post": {
                    **_operation("predict", "predictions", "Risks", _ref("answer"), [one, *_asked_with(kinds)], SENT),
                    "requestBody": _predict_body(list(specs), kinds),
                }
            },
            "/v1/outcomes": {
                "post": {
                    **_operation(
                        "outcomes", "predictions", "What happened to patients later", _ref("recorded"), codes=SENT
                    ),
                    "requestBody": _json({"type": "array", "minItems": 1, "items": _ref("outcome")}),
                }
            },
            "/v1/predictions/{id}": {
                "get": _operation(
                    "prediction",
                    "predictions",
                    "What a prediction saw and said",
                    _ref("prediction_on_record"),
                    RECALLED_WITH,
                    ("404", "422", "503"),
                )
            },
        },
        "components": {
            "schemas": {
                **{f"record_{name}": record_schema(spec) for name, spec in specs.items()},
                **{f"columns_{name}": columns_schema(spec) for name, spec in specs.items()},
                **_answers([spec.outcome for spec in specs.values()]),
            }
        },
    }


def _asked_with(kinds: Sequence[str]) -> list[Parameter]:
    """The headers of a prediction request, where a signal may come by itself as one of `kinds`."""
    return [
        *ASKED_WITH,
        *(
            {"name": name, "in": "header", "required": False, "schema": schema, "description": f"{said} Not of JSON."}
            for name, (schema, said) in TOLD_OF_A_SIGNAL.items()
            if kinds
        ),
    ]


def _predict_body(names: Sequence[str], kinds: Sequence[str]) -> dict[str, Any]:
    """Records, columns, or a table as an Arrow stream; and of a model with signals one of them by itself."""
    records = [_ref(f"record_{name}") for name in names]
    columns = [_ref(f"columns_{name}") for name in names]
    explain = {"type": "boolean", "default": False, "description": "Give each feature's contribution."}
    either = [
        {
            **_object({"records": {"type": "array", "minItems": 1, "items": _any_of(records)}}, {"explain": explain}),
            "additionalProperties": False,
        },
        {
            **_object({"columns": _any_of(columns)}, {"explain": explain}),
            "additionalProperties": False,
        },
    ]
    arrow = {"type": "string", "format": "binary", "description": "An Arrow IPC stream of the contract's columns."}
    content = {"application/json": {"schema": {"oneOf": either}}, ARROW: {"schema": arrow}}
    for kind in kinds:
        content[kind] = {"schema": {"type": "string", "format": "binary", "description": SIGNAL_BODIES[kind]}}
    return {"required": True, "content": content}


def _answers(predicted: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """What is sent back, by its name among the components; and an outcome, which is sent here.

    `predicted`: the served models' outcomes, whose classes are named.
    """
    names = list(dict.fromkeys(name for outcome in predicted for name in outcome.classes or ()))
    labels = list(dict.fromkeys([*LABELS, *names]))
    text, whole, number, flag = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
    text_or_null, number_or_null = {"type": ["string", "null"]}, {"type": ["number", "null"]}
    risk = {"type": "number", "minimum": 0, "maximum": 1}
    band = {
        **text_or_null,
        "description": "The highest operating point that the risk reaches; null below all, and where it abstains.",
    }
    certain = {
        "set": _list(
            {"type": "string", "enum": labels},
            description="The outcomes that cannot be ruled out, where the model has sets.",
        ),
        "abstained": {**text, "description": "Why no band is told, where the model's rule says so."},
    }
    by_class = {
        "risks": {**_map(risk), "description": "Of several classes: each one's, which sum to 1."},
        "class": {**text_or_null, "description": "The class of least expected cost; null where it is in doubt."},
    }
    plain = {"type": ["string", "number", "boolean", "null"]}
    json_object = {"type": "object", "additionalProperties": True}
    computed = _object(
        {"device": text, "precision": text, "why": text_or_null},
        description="Of a network: where and in which precision it is computed, and why not where it was meant to be.",
    )
    state = _object(
        {"name": text, "version": {"type": ["integer", "null"]}, "ready": flag, "why": text_or_null},
        {"computed": computed},
    )
    said = {"anyOf": [_ref("prediction"), _ref("refused")]}
    told = {"anyOf": [_object({"prediction_id": text}), _ref("refused")]}
    why = _object({"code": text, "message": text, "field": text_or_null})
    each = _list(_ref("refused"), description="One for each that was sent, where none could be used.")
    return {
        "error": _object({"error": why}, {"predictions": each, "outcomes": each}),
        "refused": _object(
            {"error": why}, description="Stands in the place of the record or outcome that it is about."
        ),
        "model_state": state,
        "models": _object({"models": _list(_ref("model_state"))}),
        "readiness": _object({"models": _map(_ref("model_state"))}),
        "model": _object(
            {"card": _ref("card"), "contract": _map(_ref("column")), "operating_points": _map(number)},
            {
                "events": {**_map(_ref("column")), "description": "The codes of the events that it reads."},
                "classes": {**_map(_ref("class")), "description": "Where the model has several."},
            },
        ),
        "class": _object(
            {"event": flag, "costs": {**_map(number), "description": "Of saying another class; empty: all are equal."}}
        ),
        "card": _object(
            {
                "name": text,
                "version": whole,
                "title": text,
                "owner": text,
                "intended_use": text,
                "family": text,
                "patients": _map(_object({"n": whole, "events": whole})),
                "left_out": _map(whole),
                "attributes": _list(text),
                "inputs": _list(_ref("input")),
                "change_control": json_object,
                "findings": _list(_ref("finding")),
                "digests": _object(dict.fromkeys(("bundle", "spec", "data", "code"), text)),
            }
        ),
        "input": _object(
            {
                "name": text,
                "type": text,
                "unit": text_or_null,
                "loinc": text_or_null,
                "snomed": {**text_or_null, "description": "A concept of SNOMED CT."},
                **{
                    key: {
                        "type": ["integer", "null"],
                        "description": f"Values {side} detection that it was learned from; null without a limit.",
                    }
                    for key, side in (("below_detection", "below"), ("above_detection", "above"))
                },
            }
        ),
        "finding": _object(
            {
                "code": text,
                "title": text,
                "verdict": {**text, "enum": list(get_args(Verdict))},
                "value": number_or_null,
                "limit": text_or_null,
                "explanation": text,
                "interval": {
                    "type": ["array", "null"],
                    "items": number,
                    "minItems": 2,
                    "maxItems": 2,
                    "description": "The value's 95 % interval.",
                },
            }
        ),
        "column": _object(
            {
                "type": {**text, "enum": ["number", "category", "boolean", "array", "waveform", "image", "text"]},
                "length": {"type": ["integer", "null"], "description": "Of an array; of a text at most."},
                "description": text_or_null,
                "event": {**text_or_null, "description": "The code of the events that it is computed from."},
                "window": {
                    "anyOf": [text_or_null, _object({"center": number, "width": number})],
                    "description": "How long before the time of prediction they may lie; or a DICOM image's.",
                },
                "reduce": {**text_or_null, "description": "What is computed of them."},
                "unit": text_or_null,
                "accepts": _list(text),
                "range": {"type": ["array", "null"], "items": number, "minItems": 2, "maxItems": 2},
                "values": _list(text),
                "missing_if": _list(plain),
                "below_detection": {"anyOf": [{"type": "null"}, _ref("detection")]},
                "above_detection": {"anyOf": [{"type": "null"}, _ref("detection")]},
                "loinc": text_or_null,
                "snomed": text_or_null,
                "required": flag,
                "leads": _list(text, description="A waveform's, in their order."),
                "sampling_hz": number_or_null,
                "samples": {"type": ["integer", "null"], "description": "Of each lead, at that rate."},
                "band_hz": {"type": ["array", "null"], "items": number, "minItems": 2, "maxItems": 2},
                "channels": {"type": ["integer", "null"], "description": "Of an image; so are height and width."},
                "height": {"type": ["integer", "null"]},
                "width": {"type": ["integer", "null"]},
            }
        ),
        "detection": _object(
            {"limit": number, "counts_as": number},
            description="A value beyond the limit, also one that is written `<0.6`, counts as this; in the own unit.",
        ),
        "record_schema": _object(
            {
                "$schema": text,
                "title": text,
                "type": {"const": "object"},
                "properties": _map(json_object),
                "required": _list(text),
                "additionalProperties": {"const": False},
                "examples": _list(json_object, minItems=EXAMPLES),
            }
        ),
        "answer": _object({"model": text, "version": whole, "predictions": _list(said)}),
        "prediction": _object(
            {"id": text, "risk": risk, "band": band, "missing": _list(text)},
            {
                **certain,
                "ignored": {**_map(whole), "description": "How many of the record's events did not count, by reason."},
                "version": {**whole, "description": "The version that answered, where it is not the answer's."},
                "explanation": _ref("explanation"),
                **by_class,
                "explanations": {**_map(_ref("explanation")), "description": "Of several classes: one of each."},
            },
        ),
        "explanation": _object(
            {"base": number, "contributions": _map(number)},
            {"map": _list(_list(number), description="Where the picture raises them, in rows from 0 to 1.")},
            description="The base and the contributions sum to the log-odds, or the class's score, before calibration.",
        ),
        "outcome": {
            **_object(
                {
                    "value": {
                        "enum": [True, False, 0, 1, *names],
                        "description": "Did the event happen; or, of several classes, which one came true.",
                    },
                    "observed_at": {"type": "string", "format": "date-time"},
                },
                {
                    "prediction_id": {**text_or_null, "description": "Either this or `reference`."},
                    "reference": {**text_or_null, "description": "The caller's own id of the record."},
                    "model": {**text_or_null, "description": "Which model's, where several know the reference."},
                },
            ),
            "additionalProperties": False,
        },
        "recorded": _object({"outcomes": _list(told)}),
        "prediction_on_record": _object(
            {
                "id": text,
                "model": text,
                "version": whole,
                "bundle": text,
                "received_at": {"type": "string", "format": "date-time"},
                "record": {"type": ["object", "null"], "description": "Null once it was purged."},
                "features": {"type": ["array", "null"], "items": number_or_null},
                "feature_digest": text,
                "risk": risk,
                "band": band,
            },
            {
                **certain,
                **by_class,
                "replay": _object({"risk": risk, "agrees": text, "same_features": flag}, {"risks": _map(risk)}),
            },
        ),
    }


def _ready() -> dict[str, Any]:
    """Not ready is an answer too: it says which model is not, and why."""
    ready = _operation("ready", "health", "Is every model ready, and if not, why", _ref("readiness"))
    not_ready = {**_content("A model is not ready.", _ref("readiness")), "headers": RETRY_AFTER}
    return {**ready, "responses": {**ready["responses"], "503": not_ready}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """One of these; any object while no model is ready."""
    return {"anyOf": schemas} if schemas else {"type": "object"}


def _map(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": schema}


def _list(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def _object(
    properties: dict[str, Any], optional: dict[str, Any] | None = None, description: str | None = None
) -> dict[str, Any]:
    about = {"description": description} if description else {}
    return {"type": "object", "required": list(properties), "properties": {**properties, **(optional or {})}, **about}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _content(description: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _operation(
    name: str,
    tag: str,
    summary: str,
    answer: dict[str, Any],
    parameters: Sequence[Parameter] = (),
    codes: Sequence[str] = (),
) -> dict[str, Any]:
    kind = "text/plain" if answer is TEXT else "text/html" if answer is PAGE else "application/json"
    responses = {"200": _content("OK", answer, kind)}
    for code in codes:
        responses[code] = _content(ERROR_CODES[code], _ref("error"))
        if code == "503":
            responses[code]["headers"] = RETRY_AFTER
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "parameters": list(parameters),
        "responses": responses,
    }
