"""The OpenAPI document: valid, kept by the server whatever is sent, and enough for a client in another language."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis

from configs.settings import ROOT
from configs.spec import load_spec
from serving.bodies import ARROW
from serving.schemas import openapi
from serving.signals import KINDS

TYPESCRIPT = ROOT / "tests" / "typescript"
GENERATOR = TYPESCRIPT / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
COMPILER = TYPESCRIPT / "node_modules" / "typescript" / "bin" / "tsc"
STRICT = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--noUnusedLocals"]

CONFIGURATION = """
seed = 1
continue-on-failure = true
workers = 2

[phases]
stateful.enabled = false

[generation]
max-examples = 150
database = "none"

[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.enabled = false
not_a_server_error.expected-statuses = ["2xx", "4xx", "503"]
"""
"""A range holds in the column's unit, which a schema cannot say of {value, unit}; and a bad record among good ones gets
its error in its place, in an answer with status 200: so neither what is accepted nor what is rejected is judged here.
There are no links between operations for a stateful run to follow."""


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    return client.get("/openapi.json").json()


def test_the_document_is_valid_openapi(document):
    schemathesis.openapi.from_dict(document).validate()


@pytest.mark.parametrize("names", [[], ["heart_disease"], ["heart_disease", "breast_cancer"]], ids=len)
def test_the_document_is_valid_openapi_for_any_number_of_models(names):
    schemathesis.openapi.from_dict(openapi({name: load_spec(name, ROOT / "configs") for name in names})).validate()


def test_every_operation_has_a_name_of_its_own_and_a_described_answer(document):
    operations = [operation for path in document["paths"].values() for operation in path.values()]

    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        for answer in operation["responses"].values():
            for content in answer["content"].values():
                assert content["schema"] not in ({}, {"type": "object"}), operation["operationId"]


def test_an_arrow_stream_and_columns_are_named_as_bodies(document):
    content = document["paths"]["/v1/models/{name}/predict"]["post"]["requestBody"]["content"]

    assert set(content) == {"application/json", ARROW}
    columns = document["components"]["schemas"]["columns_toy"]
    assert columns["required"] == document["components"]["schemas"]["record_toy"]["required"]


def test_no_request_is_answered_by_a_fault_or_otherwise_than_described(server, document, ask, patient, tmp_path):
    """schemathesis, by its command line: its plugin for pytest reads what pytest 9.2 no longer has."""
    (known,) = ask(patient).json()["predictions"]
    paths = document["paths"]
    paths["/v1/predictions/{id}"]["get"]["parameters"][0]["example"] = known["id"]
    told = [{"prediction_id": known["id"], "value": 1, "observed_at": datetime.now(UTC).isoformat()}]
    for path, example in (("/v1/outcomes", told), ("/v1/models/{name}/predict", {"records": [patient, {}]})):
        paths[path]["post"]["requestBody"]["content"]["application/json"]["example"] = example

    said = _fuzzed(document, server.url, tmp_path)

    assert f"Tested: {sum(map(len, paths.values()))}\n" in said, said[-6000:]


def test_neither_is_a_signal_by_itself(recordings_server, tmp_path):
    with recordings_server.client() as client:
        document = client.get("/openapi.json").json()
    predict = "/v1/models/{name}/predict"
    assert set(KINDS) < set(document["paths"][predict]["post"]["requestBody"]["content"])

    said = _fuzzed(document, recordings_server.url, tmp_path, "--include-path", predict)

    assert "Tested: 1\n" in said, said[-6000:]


def _fuzzed(document: dict[str, Any], url: str, folder: Path, *chosen: str) -> str:
    """What schemathesis says after it found no fault."""
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", url, *chosen],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": _with(Path(__file__).parent)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_a_typescript_client_generates_compiles_and_is_answered(server, document, tmp_path):
    node = _tools()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    shutil.copy(TYPESCRIPT / "use.ts", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(TYPESCRIPT / "node_modules")

    generated = _run(tmp_path, node, GENERATOR, "openapi.json", "--output", "openapi.ts", "--alphabetize")
    compiled = _run(
        tmp_path, node, COMPILER, *STRICT, "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom", "use.ts"
    )
    said = _run(tmp_path, node, "use.js", server.url)

    assert generated.returncode == 0 and "warn" not in (generated.stdout + generated.stderr).lower(), generated
    assert compiled.returncode == 0, compiled.stdout
    assert said.returncode == 0, said.stderr
    model, first, second, last = said.stdout.splitlines()
    assert model == "toy 1"
    assert float(first.split()[1]) > 0
    assert second == "unknown_category sex"
    assert last == "true 200 not_on_record true true"


def test_the_lock_of_the_typescript_tools_names_no_registry():
    lock = json.loads((TYPESCRIPT / "package-lock.json").read_text())

    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


def _tools() -> str:
    node = shutil.which("node")
    if node is None or not GENERATOR.exists() or not COMPILER.exists():
        if os.environ.get("CI"):
            pytest.fail("node, or what tests/typescript/package.json names, is missing: make tools")
        pytest.skip("node, or what tests/typescript/package.json names, is missing: make tools")
    return node


def _run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def _with(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
