"""Machine facts come from MEDIMIND_* variables alone, and state is its owner's alone."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import SpecError
from configs.settings import PHONE_HOME_OFF, ROOT, settings


def rights(folder):
    return stat.S_IMODE(folder.stat().st_mode)


def test_without_variables_everything_lies_in_the_repository():
    found = settings()

    assert found.home == ROOT / "var"
    assert found.configs == ROOT / "configs"
    assert found.data == ROOT / "data"
    assert found.ledger_url == f"sqlite:///{ROOT}/var/ledger.db"
    assert found.registry_uri == f"sqlite:///{ROOT}/var/mlflow/mlflow.db"
    assert (found.store, found.reports) == (ROOT / "var" / "bundles", ROOT / "var" / "reports")
    assert found.port == 8400


def test_variables_move_everything(monkeypatch):
    for variable, value in {
        "HOME": "/h",
        "CONFIGS": "/c",
        "DATA": "/d",
        "LEDGER": "postgresql://l",
        "REGISTRY": "http://r",
        "PORT": "9000",
        "USER": "nurse",
    }.items():
        monkeypatch.setenv(f"MEDIMIND_{variable}", value)

    found = settings()

    assert (found.home, found.configs, found.data) == (Path("/h"), Path("/c"), Path("/d"))
    assert (found.ledger_url, found.registry_uri) == ("postgresql://l", "http://r")
    assert (found.port, found.actor) == (9000, "nurse")


def test_the_actor_is_the_systems_user_unless_named(monkeypatch):
    monkeypatch.setenv("LOGNAME", "somebody")

    assert settings().actor == "somebody"


def test_a_port_that_is_no_number_is_refused_by_its_variable(monkeypatch):
    monkeypatch.setenv("MEDIMIND_PORT", "eighty")

    with pytest.raises(SpecError, match=r"^MEDIMIND_PORT: .*'eighty'"):
        settings()


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        settings().port = 1


def test_the_home_folder_is_its_owners_alone_even_if_it_was_open(medimind_home):
    medimind_home.home.mkdir(mode=0o755)

    made = medimind_home.private(medimind_home.store / "deeper")

    assert made == medimind_home.store / "deeper"
    assert rights(medimind_home.home) == 0o700
    assert rights(made) == 0o700


def test_the_home_folder_itself_is_made_private(medimind_home):
    assert rights(medimind_home.private(medimind_home.home)) == 0o700


def test_a_folder_outside_home_that_people_share_keeps_its_rights(medimind_home):
    before = rights(medimind_home.data)

    medimind_home.private(medimind_home.data)

    assert rights(medimind_home.data) == before


def test_settings_switch_every_phone_home_off_and_respect_a_choice_that_was_made(monkeypatch):
    for variable in PHONE_HOME_OFF:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("DO_NOT_TRACK", "yes")

    settings()

    assert {name: os.environ[name] for name in PHONE_HOME_OFF} == {**PHONE_HOME_OFF, "DO_NOT_TRACK": "yes"}


def test_importing_the_configs_does_nothing_and_loads_nothing_heavy():
    code = (
        "import sys, configs.settings, configs.spec; print(*{'numpy', 'pandas', 'mlflow', 'torch'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
