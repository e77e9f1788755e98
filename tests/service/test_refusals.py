"""A request that cannot be answered gets a status that fits and one shape of body, and costs nobody else anything."""

import socket

import httpx
import pytest

PREDICT = "/v1/models/toy/predict"
GOOD = b'{"records": [{"age_years": 61, "sex": "male"}]}'
JSON = {"Content-Type": "application/json"}
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}


def error_of(answer: httpx.Response) -> dict[str, str | None]:
    """The error of an error body, whose shape is checked; `predictions` or `outcomes` may stand beside it."""
    body = answer.json()
    assert set(body) - {"predictions", "outcomes"} == {"error"}
    assert set(body["error"]) == {"code", "message", "field"}
    assert body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status", "code"),
    [
        ("POST", PREDICT, JSON, b"{", 400, "not_json"),
        ("POST", PREDICT, JSON, b"", 400, "not_json"),
        ("POST", PREDICT, JSON, b"\xff\xfe", 400, "not_json"),
        ("POST", PREDICT, JSON, b'{"records": [{"age_years": NaN, "sex": "male"}]}', 400, "not_json"),
        ("POST", PREDICT, JSON, b'{"records": [{"age_years": Infinity, "sex": "male"}]}', 400, "not_json"),
        ("POST", PREDICT, JSON, b'{"records": ' + b"[" * 100_000, 400, "not_json"),
        ("POST", PREDICT, JSON, b"[]", 422, "malformed"),
        ("POST", PREDICT, JSON, b'{"records": {}}', 422, "malformed"),
        ("POST", PREDICT, JSON, b'{"records": []}', 422, "malformed"),
        ("POST", PREDICT, JSON, b'{"record": []}', 422, "malformed"),
        ("POST", PREDICT, JSON, GOOD[:-1] + b', "explain": "yes"}', 422, "malformed"),
        ("POST", PREDICT, JSON, b'{"columns": {"age_years": [61], "sex": []}}', 422, "malformed"),
        ("POST", PREDICT, ARROW, GOOD, 400, "not_arrow"),
        ("POST", PREDICT, JSON, b'{"records": [' + b"0," * 10_000 + b"0]}", 413, "too_many_records"),
        ("POST", PREDICT, {}, GOOD, 415, "unsupported_media_type"),
        ("POST", PREDICT, {"Content-Type": "text/plain"}, GOOD, 415, "unsupported_media_type"),
        ("POST", PREDICT, {"Content-Type": "application/jsonp"}, GOOD, 415, "unsupported_media_type"),
        ("POST", "/v1/models/nobody/predict", JSON, GOOD, 404, "unknown_model"),
        ("GET", "/v1/models/nobody", {}, b"", 404, "unknown_model"),
        ("GET", "/v1/models/nobody/schema", {}, b"", 404, "unknown_model"),
        ("GET", "/v1/nothing", {}, b"", 404, "not_found"),
        ("GET", "/nothing", {}, b"", 404, "not_found"),
        ("POST", "/predict", JSON, GOOD, 404, "not_found"),
        ("GET", PREDICT, {}, b"", 405, "method_not_allowed"),
        ("POST", "/v1/models", JSON, GOOD, 405, "method_not_allowed"),
        ("DELETE", "/v1/predictions/1-0", {}, b"", 405, "method_not_allowed"),
        ("GET", "/v1/outcomes", {}, b"", 405, "method_not_allowed"),
        ("GET", "/v1/predictions/1-0?replay=maybe", {}, b"", 422, "malformed"),
        ("POST", "/v1/outcomes", JSON, b"{}", 422, "malformed"),
        ("POST", "/v1/outcomes", JSON, b"[]", 422, "malformed"),
        ("POST", "/v1/outcomes", {}, b"[]", 415, "unsupported_media_type"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(method, path, headers, content, status, code, client, rows):
    before = rows()

    answer = client.request(method, path, headers=headers, content=content)

    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert rows() == before


def test_a_charset_does_not_make_json_another_type(client):
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}

    assert client.post(PREDICT, content=GOOD, headers=headers).status_code == 200


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_fifty_megabytes_are_too_many(declared, server, client):
    part = b" " * (1024 * 1024)
    content = part * 50 if declared else (part for _ in range(50))

    with server.client() as another:
        answer = another.post(PREDICT, content=content, headers=JSON)

    assert (answer.status_code, error_of(answer)["code"]) == (413, "too_large")
    assert client.post(PREDICT, content=GOOD, headers=JSON).status_code == 200


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("weight_kg", 70, "unknown_field"),
        ("events", [{"time": "2026-01-01T00:00:00Z", "code": "x", "value": 1, "unit": "1"}], "unknown_field"),
        ("age_years", "sixty", "not_a_number"),
        ("age_years", "61", "not_a_number"),
        ("age_years", True, "not_a_number"),
        ("age_years", [61], "not_a_number"),
        ("age_years", None, "missing_field"),
        ("age_years", 121, "out_of_range"),
        ("cholesterol_mg_dl", -1, "out_of_range"),
        ("cholesterol_mg_dl", {"value": 5, "unit": "mol/L"}, "unit"),
        ("cholesterol_mg_dl", {"value": 5}, "malformed"),
        ("cholesterol_mg_dl", {"value": 5, "unit": "mmol/L", "by": "x"}, "malformed"),
        ("age_years", {"value": 61, "unit": "mo"}, "unit"),
        ("pain", "stabbing", "unknown_category"),
        ("pain", 2, "unknown_category"),
        ("pain", {"value": "rest", "unit": "1"}, "unit"),
        ("smoker", 1, "not_a_boolean"),
        ("smoker", "yes", "not_a_boolean"),
        ("at", "yesterday", "malformed"),
        ("at", "2026-01-01T00:00:00", "malformed"),
        ("patient", 7, "malformed"),
        ("reference", "", "malformed"),
    ],
)
def test_a_record_that_breaks_the_contract_is_refused_by_the_fields_name(field, value, code, ask, patient):
    answer = ask({**patient, field: value})

    assert answer.status_code == 422
    error = error_of(answer)
    assert (error["code"], error["field"]) == (code, field)
    assert field in error["message"]
    assert answer.json()["predictions"] == [{"error": {**error}}]


@pytest.mark.parametrize("record", [None, 5, "text", [], [{}]])
def test_what_is_no_record_is_refused(record, ask):
    answer = ask(record)

    assert answer.status_code == 422
    assert error_of(answer)["code"] == "malformed"


def test_one_bad_record_among_twenty_costs_the_others_nothing(ask, patient):
    good = [{**patient, "age_years": 40 + n} for n in range(19)]
    alone = [said["risk"] for said in ask(*good).json()["predictions"]]

    answer = ask(*good[:7], {**patient, "pain": "stabbing"}, *good[7:])

    assert answer.status_code == 200
    said = answer.json()["predictions"]
    assert [one["risk"] for one in said[:7] + said[8:]] == alone
    assert (said[7]["error"]["code"], said[7]["error"]["field"]) == ("unknown_category", "pain")


def test_a_body_with_only_bad_records_is_refused_and_says_what_is_wrong_with_each(ask, patient):
    answer = ask({**patient, "pain": "stabbing"}, {**patient, "age_years": "x"}, None)

    assert answer.status_code == 422
    assert error_of(answer)["field"] == "pain"
    assert [one["error"]["code"] for one in answer.json()["predictions"]] == [
        "unknown_category",
        "not_a_number",
        "malformed",
    ]


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1" + b"0" * 400])
def test_a_number_beyond_all_bounds_costs_its_own_record_alone(number, client):
    body = b'{"records": [{"age_years": ' + number + b', "sex": "male"}, {"age_years": 61, "sex": "male"}]}'

    answer = client.post(PREDICT, content=body, headers=JSON)

    assert answer.status_code == 200
    refused, answered = answer.json()["predictions"]
    assert (refused["error"]["code"], refused["error"]["field"]) == ("not_finite", "age_years")
    assert 0 < answered["risk"] < 1


def test_a_records_text_is_never_repeated(ask, patient):
    text = "Jane Doe, born 1961"

    answers = [
        ask({**patient, field: text, "reference": text, "patient": text})
        for field in ("age_years", "pain", "smoker", "at", "cholesterol_mg_dl")
    ]
    answers.append(ask({**patient, "cholesterol_mg_dl": {"value": 5, "unit": text}}))

    assert {answer.status_code for answer in answers} == {422}
    assert not [answer.text for answer in answers if text in answer.text]


def test_a_client_that_goes_away_in_the_middle_harms_nobody(server, ask, patient):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as caller:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        caller.sendall(head.encode() + b"{")

    assert ask(patient).status_code == 200
