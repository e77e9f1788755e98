"""What each route of the HTTP contract answers when nothing is wrong, and what it promises in its own description."""

import inspect
import json
import os
import subprocess
import sys
from typing import Any

import httpx
import jsonschema
import psutil
import pyarrow as pa
import pytest
from _bentoml_sdk.service import factory

from configs.settings import ROOT
from features.synthetic import draw
from pipelines import cli
from serving.service import FrontedService


def test_the_process_says_that_it_is_alive_and_ready(client):
    assert client.get("/livez").status_code == 200
    ready = client.get("/readyz")

    assert ready.status_code == 200
    assert ready.json() == {"models": {"toy": {"name": "toy", "version": 1, "ready": True, "why": None}}}


def test_the_models_and_their_versions_are_listed(client):
    assert client.get("/v1/models").json() == {
        "models": [{"name": "toy", "version": 1, "ready": True, "why": None}],
    }


def test_a_model_shows_its_card_its_contract_and_its_operating_points(client, predictor):
    shown = client.get("/v1/models/toy").json()

    assert shown["card"]["name"] == "toy"
    assert list(shown["contract"]) == list(predictor.spec.columns)
    assert shown["contract"]["cholesterol_mg_dl"]["unit"] == "mg/dL"
    assert shown["operating_points"] == predictor.bundle.thresholds


def test_the_champions_review_is_a_page_that_runs_nothing(client, predictor):
    page = client.get("/v1/models/toy/review")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert predictor.spec.title in page.text
    assert predictor.bundle.digest in page.text
    assert "This version is the champion, toy@1." in page.text
    assert client.get("/v1/models/toy/review").content == page.content
    assert client.get("/v1/models/nobody/review").status_code == 404


def test_the_schemas_examples_keep_the_schema_and_are_answered(client, ask):
    schema = client.get("/v1/models/toy/schema").json()
    jsonschema.Draft202012Validator.check_schema(schema)

    assert len(schema["examples"]) >= 3
    for example in schema["examples"]:
        jsonschema.validate(example, schema, jsonschema.Draft202012Validator)
    answer = ask(*schema["examples"])
    assert answer.status_code == 200
    assert all("risk" in said for said in answer.json()["predictions"])


def test_what_the_schema_allows_is_answered_and_what_it_forbids_is_refused(client, ask, predictor, patient):
    schema = jsonschema.Draft202012Validator(client.get("/v1/models/toy/schema").json())
    random = draw(predictor.spec.columns, 30, seed=8)
    odd: list[dict[str, Any]] = [
        {**patient, "pain": None},
        {**patient, "cholesterol_mg_dl": 0},
        {**patient, "cholesterol_mg_dl": {"value": 6.2, "unit": "mmol/L"}},
        {**patient, "at": "2026-11-23T09:30:00Z", "patient": "p", "reference": "r"},
        {**patient, "age_years": None},
        {**patient, "age_years": "61"},
        {**patient, "age_years": 17},
        {**patient, "smoker": 1},
        {**patient, "pain": "sharp"},
        {**patient, "patient": ""},
        {**patient, "weight_kg": 70},
        {**patient, "cholesterol_mg_dl": {"value": 6.2, "unit": "mmol/l"}},
        {**patient, "cholesterol_mg_dl": {"value": 240}},
    ]

    said = ask(*random, *odd).json()["predictions"]

    assert ["risk" in one for one in said] == [schema.is_valid(record) for record in (*random, *odd)]


def test_the_openapi_document_is_whole(client):
    document = client.get("/openapi.json").json()

    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for reference in references(document):
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    for path, operations in document["paths"].items():
        named = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for operation in operations.values():
            assert {p["name"] for p in operation["parameters"] if p["in"] == "path"} == named
            assert "200" in operation["responses"]


def references(document: Any) -> list[str]:
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    here = [document["$ref"]] if isinstance(document, dict) and "$ref" in document else []
    return here + [found for child in children for found in references(child)]


def test_every_route_of_the_openapi_document_exists(client):
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            answer = client.request(method, path.replace("{name}", "toy").replace("{id}", "0-0"), content=b"")
            assert answer.status_code != 405
            assert "no such path" not in answer.text


def test_an_answer_keeps_the_openapi_document(client, ask, patient):
    document = client.get("/openapi.json").json()
    promised = document["paths"]["/v1/models/{name}/predict"]["post"]["responses"]["200"]
    schema = {**promised["content"]["application/json"]["schema"], "components": document["components"]}

    answer = ask(patient, {"age_years": 61, "sex": "male"}, {**patient, "pain": "sharp"}).json()

    jsonschema.validate(answer, schema, jsonschema.Draft202012Validator)


def test_no_page_of_bentoml_stands_beside_the_contract(client):
    """Its start page loads a tracker from the network into the reader's browser."""
    for path in ("/", "/docs.json", "/schema.json", "/static_content/index.html"):
        assert client.get(path).status_code == 404


def test_the_metrics_count_what_was_answered_and_refused(client, ask, patient):
    before = counted(client)

    ask(patient, patient, {**patient, "pain": "sharp"})

    after = counted(client)
    assert after["answered"] - before["answered"] == 2
    assert after["refused"] - before["refused"] == 1
    assert after["requests"] - before["requests"] == 1


def counted(client: httpx.Client) -> dict[str, float]:
    wanted = {
        'medimind_predictions_total{model="toy",version="1"}': "answered",
        'medimind_refusals_total{code="unknown_category",model="toy"}': "refused",
        'medimind_predict_seconds_count{model="toy"}': "requests",
    }
    lines = [line.rpartition(" ") for line in client.get("/metrics").text.splitlines()]
    found = {wanted[name]: float(value) for name, _, value in lines if name in wanted}
    return dict.fromkeys(wanted.values(), 0.0) | found


IN_A_CHILD = """
import asyncio, sys
from datetime import UTC, datetime
import httpx
from asgi_lifespan import LifespanManager
from serving.bodies import ARROW
from serving.service import Service

async def main():
    app = Service.to_asgi()
    async with (
        LifespanManager(app, startup_timeout=60),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client,
    ):
        predict = "/v1/models/toy/predict"
        record = {"age_years": 61, "sex": "male", "patient": "p", "reference": "worker imports"}
        columns = {name: [value, value] for name, value in record.items()}
        answer = await client.post(predict, json={"records": [record]})
        said = answer.json()["predictions"][0]
        outcome = {"prediction_id": said["id"], "value": 1, "observed_at": datetime.now(UTC).isoformat()}
        for done in (
            answer,
            await client.post(predict, json={"records": [record], "explain": True}, headers={"X-Deadline-Ms": "60000"}),
            await client.post(predict, json={"columns": columns}),
            await client.post(predict, content=sys.stdin.buffer.read(), headers={"Content-Type": ARROW}),
            await client.post("/v1/outcomes", json=[outcome]),
            await client.get("/v1/predictions/" + said["id"], params={"replay": "true"}),
            await client.get("/v1/models/toy"),
            await client.get("/v1/models/toy/schema"),
            await client.get("/v1/models/toy/review"),
            await client.get("/openapi.json"),
        ):
            assert done.status_code == 200, done.text

asyncio.run(main())
needless = ("mlflow", "pandas", "sklearn", "prefect", "pipelines", "torch", "shap", "numba")
print(*(name for name in needless if name in sys.modules))
"""


def test_the_worker_never_imports_what_only_training_needs(machine):
    table = pa.table({"age_years": [61, 40], "sex": pa.array(["male", "female"]).dictionary_encode()})
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)

    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD],
        input=stream.getvalue().to_pybytes(),
        capture_output=True,
        cwd=ROOT,
        env=os.environ
        | {"MEDIMIND_SERVED": "toy", "MEDIMIND_HOME": str(machine.home), "BENTOML_HOME": str(machine.home / "bentoml")}
        | {"MEDIMIND_CONFIGS": str(machine.configs)},
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.split() == []


def test_bentomls_private_class_is_still_what_we_lean_on():
    assert list(inspect.signature(factory.Service.to_asgi).parameters) == ["self", "is_main"]
    assert issubclass(FrontedService, factory.Service)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_serving_beyond_this_machine_needs_a_word(host, machine, monkeypatch, capsys):
    monkeypatch.setenv("MEDIMIND_HOME", str(machine.home))
    monkeypatch.setenv("MEDIMIND_CONFIGS", str(machine.configs))
    monkeypatch.setattr(sys, "argv", ["medimind", "serve", "toy", "--host", host])

    with pytest.raises(SystemExit) as stopped:
        cli.main()

    assert stopped.value.code == 2
    assert "--allow-unauthenticated" in capsys.readouterr().err


def test_the_port_is_open_to_this_machine_alone(server):
    port = int(server.url.rpartition(":")[2])
    processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    listening = {c.laddr.ip for p in processes for c in p.net_connections() if c.laddr and c.laddr.port == port}

    assert listening == {"127.0.0.1"}


def test_what_is_answered_is_json(client):
    assert json.loads(client.get("/v1/models").content)
    assert client.get("/v1/models").headers["content-type"] == "application/json"
