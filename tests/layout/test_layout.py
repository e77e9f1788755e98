"""The house keeps its shape: what may lie where, and that the lock serves every machine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configs", "features", "models", "evidence", "ledger", "pipelines", "serving")
FRAMEWORK_MODULES = {"models.lesson", "pipelines.flows", "serving.service"}
NETWORKS = {"models.families.image", "models.families.tabular_net", "models.waveform_network"}
"""Classes of torch; imported only where such a network learns or answers."""
HEAVY = [
    *("pandas", "sklearn", "scipy", "mlflow", "prefect", "bentoml", "great_expectations"),
    *("evidently", "matplotlib", "onnx", "onnxruntime", "torch", "pint"),
]


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    return listed.stdout.splitlines()


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    found = [line.partition("==") for line in lines if re.match(r"[A-Za-z0-9]", line)]
    return {canonicalize_name(name): version.strip() for name, _, version in found}


def modules() -> list[str]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    named = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths if "migrations" not in path.parts]
    return [name.removesuffix(".__init__") for name in named]


@pytest.mark.parametrize("folder", ["mlflow", "data", "tests"])
def test_no_folder_shadows_a_package(folder):
    assert not list((ROOT / folder).rglob("__init__.py"))


@pytest.mark.parametrize("folder", ["mlflow", "data"])
def test_a_folder_without_code_holds_none(folder):
    assert not [name for name in tracked() if name.startswith(f"{folder}/") and name.endswith(".py")]


def test_the_lock_pins_every_requirement_within_its_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["dev"])]

    locked = pins()

    for requirement in wanted:
        if requirement.name != "torch":  # installed by pip, before the lock
            version = locked.get(canonicalize_name(requirement.name))
            assert version, f"{requirement.name} is not in requirements.lock: make lock"
            fits = requirement.specifier.contains(version, prereleases=True)
            assert fits, f"{requirement} against {version}: make lock"


def test_the_lock_serves_a_machine_with_a_gpu_and_one_without():
    text = (ROOT / "requirements.lock").read_text()

    assert "torch" not in pins()
    assert not [name for name in pins() if name.startswith("nvidia-") and name != "nvidia-ml-py"]
    assert "+cpu" not in text
    assert "file:" not in text
    assert "://" not in text


def test_nothing_is_ever_unpickled():
    unpickles = re.compile(r"\b(pickle|joblib|cloudpickle|dill)\.(load|loads)\(|torch\.load\(")
    for name in tracked():
        if name.endswith(".py") and name.split("/")[0] in PACKAGES:
            assert not unpickles.search((ROOT / name).read_text()), name


def test_state_and_data_stay_out_of_git():
    kept = [name for name in tracked() if name.startswith(("var/", "data/raw/", "data/records/", "data/cohorts/"))]
    assert kept == []


def test_importing_a_module_imports_nothing_heavy():
    quiet = [name for name in modules() if name not in FRAMEWORK_MODULES | NETWORKS]
    code = (
        f"import sys, importlib\nfor name in {quiet!r}: importlib.import_module(name)\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_command_line_answers_without_a_heavy_import():
    code = "import pipelines.cli, sys; print(sorted({'numpy', 'pydantic', 'sqlalchemy', 'yaml'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
