"""The commit that a version names is the code it was judged by, or says that it is not."""

import dataclasses
import os
import subprocess

import pytest

from evidence.case import Rival
from pipelines import sites, validate
from pipelines.validate import git_commit


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A real git checkout of two files, one commit, nothing changed since."""
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(variable)  # a hook's would point at the repository that is being committed to
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    root = tmp_path / "checkout"
    (root / "features").mkdir(parents=True)
    (root / "features" / "units.py").write_text("one = 1\n")
    (root / ".gitignore").write_text("*.pyc\n/var/\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", "first")
    return root


def git(root, *words):
    return subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True).stdout.strip()


def test_a_clean_checkout_is_its_commit(checkout):
    assert git_commit(checkout) == git(checkout, "rev-parse", "HEAD")


def test_a_changed_file_makes_it_dirty(checkout):
    (checkout / "features" / "units.py").write_text("one = 2\n")

    assert git_commit(checkout) == git(checkout, "rev-parse", "HEAD") + "-dirty"


@pytest.mark.parametrize("folder", ["configs/diseases", "features", "models", "evidence", "ledger", "pipelines"])
def test_a_file_that_git_does_not_know_makes_it_dirty(checkout, folder):
    (checkout / folder).mkdir(parents=True, exist_ok=True)
    (checkout / folder / "new.py").write_text("two = 2\n")

    assert git_commit(checkout) == git(checkout, "rev-parse", "HEAD") + "-dirty"


def test_a_persons_own_setting_does_not_hide_it(checkout):
    git(checkout, "config", "status.showUntrackedFiles", "no")
    (checkout / "features" / "new.py").write_text("two = 2\n")

    assert git_commit(checkout).endswith("-dirty")


def test_ignored_files_and_notes_beside_the_code_change_nothing(checkout):
    (checkout / "features" / "units.pyc").write_text("")
    (checkout / "notes.txt").write_text("call Ann")
    (checkout / "var").mkdir()
    (checkout / "var" / "ledger.db").write_text("")

    assert git_commit(checkout) == git(checkout, "rev-parse", "HEAD")


def test_outside_git_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert git_commit(tmp_path) == "unknown"


def test_without_a_commit_it_is_unknown(tmp_path):
    git(tmp_path, "init", "--quiet")

    assert git_commit(tmp_path) == "unknown"


def test_what_is_fitted_beside_a_model_has_the_parameters_that_trials_chose(trained, disease, home, monkeypatch):
    chosen = {"logistic": {"C": 0.5}, "boosted": {"max_iter": 40}}
    told = {**trained.training, "trials": {name: {"parameters": held} for name, held in chosen.items()}}
    bundle = dataclasses.replace(trained, training=told)
    fitted = []

    def remembers(name, learned, task):
        fitted.append((name, task.parameters))
        raise InterruptedError

    monkeypatch.setattr(validate.training, "fit_family", remembers)
    monkeypatch.setattr(sites, "out_of_fold", lambda name, others, task: remembers(name, others, task))
    monkeypatch.setattr(validate, "case", lambda *parts: [part(disease.cohort) for part in parts if callable(part)])
    family = trained.training["family"]

    with pytest.raises(InterruptedError):  # the yardstick
        validate.judge(bundle, disease.cohort, Rival("", None, ""), "abc", home)
    yardstick = type("Fitted", (), {"log_odds": lambda self, X: X[:, 0].astype(float)})
    monkeypatch.setattr(validate.training, "fit_family", lambda *_: yardstick())
    with pytest.raises(InterruptedError):  # the sites left out
        validate.judge(bundle, disease.cohort, Rival("", None, ""), "abc", home)
    monkeypatch.setattr(validate, "leave_one_out", lambda *_: {})
    monkeypatch.setattr(
        validate.training,
        "fit_family",
        lambda name, learned, task: fitted.append((name, task.parameters)) or yardstick(),
    )
    validate.judge(bundle, disease.cohort, Rival("", None, ""), "abc", home)

    assert {name for name, _ in fitted} >= {"logistic", family}
    assert all(parameters == chosen[name] for name, parameters in fitted)
    assert len(fitted) == 5  # a yardstick, a site, a yardstick again, and what the probes fit
