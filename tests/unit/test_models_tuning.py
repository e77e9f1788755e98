"""Trials: what is drawn, what is dropped, what is kept, and what a search that was killed finds in the end."""

import json
import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from configs.errors import TrainingError
from configs.spec import Trials
from models.family import Choice, Range
from models.tuning import Search, Shelf, Trial, search

SPACE = {"rate": Range(0.001, 1.0, log=True), "leaves": Range(2, 31), "loss": Choice(("plain", "focal"))}
ASKED = Trials(count=14, folds=3)


def valley(parameters):
    """Lowest at a rate of 0.1, many leaves and the focal loss."""
    depth = (
        abs(math.log10(parameters.get("rate", 0.5)) + 1)
        + (31 - parameters.get("leaves", 6)) / 30
        + 0.3 * (parameters.get("loss", "plain") == "plain")
    )
    for fold in range(3):
        yield depth + 0.1 * fold


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_models_tuning import ASKED, SPACE, valley
from models.tuning import Shelf, search

def told(trial):
    if trial.number == 6:
        os.kill(os.getpid(), signal.SIGKILL)

search(SPACE, ASKED, 17, valley, Shelf(Path(sys.argv[1]), {"fold": "0"}), told)
"""


def test_a_search_draws_from_its_space_and_finds_the_valley():
    found = search(SPACE, Trials(count=40, folds=3), 17, valley)

    assert len(found.trials) == 40
    for trial in found.trials[1:]:
        assert 0.001 <= trial.parameters["rate"] <= 1
        assert type(trial.parameters["leaves"]) is int and 2 <= trial.parameters["leaves"] <= 31
        assert trial.parameters["loss"] in ("plain", "focal")
    assert found.best.losses[-1] < 0.5 < found.trials[0].losses[-1]
    later = np.mean([trial.losses[0] for trial in found.trials[20:]])
    assert later < np.mean([trial.losses[0] for trial in found.trials[1:11]])  # it learns from the trials before


def test_the_first_trial_is_of_the_family_s_own_parameters():
    found = search(SPACE, ASKED, 17, lambda parameters: [0.1 if not parameters else 1.0] * 3)

    assert found.trials[0].parameters == {}
    assert found.best.number == 0


def test_a_trial_that_lies_above_the_median_is_dropped_before_its_last_fold():
    asked = []

    def losses(parameters):
        for fold, loss in enumerate(valley(parameters)):
            asked.append(fold)
            yield loss

    found = search(SPACE, Trials(count=30, folds=3), 17, losses)

    dropped = [trial for trial in found.trials if trial.state == "pruned"]
    assert dropped and found.count("pruned") == len(dropped)
    assert all(len(trial.losses) < 3 for trial in dropped)
    assert all(len(trial.losses) == 3 for trial in found.trials if trial.state == "complete")
    assert len(asked) == sum(len(trial.losses) for trial in found.trials) < 90  # what was dropped cost nothing more


def test_the_same_seed_finds_the_same_and_another_draws_others():
    once, again, other = (search(SPACE, ASKED, seed, valley) for seed in (17, 17, 18))
    assert once == again
    assert [trial.parameters for trial in once.trials[1:]] != [trial.parameters for trial in other.trials[1:]]


def test_a_loss_that_is_no_number_is_never_chosen():
    found = search(SPACE, ASKED, 17, lambda parameters: [math.nan] if parameters.get("loss") == "focal" else [1.0, 1.0])

    assert {trial.state for trial in found.trials if trial.parameters.get("loss") == "focal"} == {"failed"}
    assert found.best.parameters.get("loss") != "focal"


def test_a_search_in_which_every_trial_failed_chooses_nothing():
    found = search(SPACE, ASKED, 17, lambda parameters: [math.inf])
    with pytest.raises(TrainingError, match="none of 14 trials gave a finite log loss"):
        _ = found.best


def test_of_trials_with_the_same_loss_the_first_is_best():
    trials = [Trial(number, {}, (1.0, loss), "complete") for number, loss in enumerate([0.7, 0.5, 0.5])]
    assert Search(tuple(trials)).best.number == 1


def test_a_search_killed_between_two_trials_ends_like_an_unbroken_one(child, tmp_path):
    shelf = Shelf(tmp_path / "trials.db", {"fold": "0"})
    killed = child(KILLED, shelf.path, Path(__file__).parent)
    killed.communicate(timeout=120)
    assert killed.returncode == -9

    told = []
    found = search(SPACE, ASKED, 17, valley, shelf, told.append)

    assert found == search(SPACE, ASKED, 17, valley)  # nothing on a shelf: unbroken
    assert [trial.number for trial in told] == list(range(7, 14))  # the seven before the kill were not tried again


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_a_search_killed_within_a_trial_ends_like_an_unbroken_one(tmp_path, fold):
    shelf = Shelf(tmp_path / "trials.db", {"fold": "0"})

    class Killed(Exception):
        pass

    tried = []

    def until_the_kill(parameters):
        tried.append(parameters)
        for number, loss in enumerate(valley(parameters)):
            if len(tried) == 4 and number == fold:
                raise Killed
            yield loss

    with pytest.raises(Killed):
        search(SPACE, ASKED, 17, until_the_kill, shelf)

    assert search(SPACE, ASKED, 17, valley, shelf) == search(SPACE, ASKED, 17, valley)


def test_a_search_that_is_done_is_not_done_again(tmp_path):
    shelf = Shelf(tmp_path / "trials.db", {"fold": "0"})
    first = search(SPACE, ASKED, 17, valley, shelf)

    def never(parameters):
        raise AssertionError(parameters)

    assert search(SPACE, ASKED, 17, never, shelf) == first


def test_searches_about_other_things_share_a_file_and_nothing_else(tmp_path):
    one, other = (Shelf(tmp_path / "trials.db", {"fold": fold, "data": "d" * 64}) for fold in ("0", "1"))
    search(SPACE, ASKED, 17, valley, one)
    told = []
    search(SPACE, ASKED, 17, lambda parameters: [1.0] * 3, other, told.append)

    assert len(told) == 14
    with sqlite3.connect(tmp_path / "trials.db") as database:
        about = [json.loads(value) for (value,) in database.execute("SELECT value_json FROM study_user_attributes")]
    assert about == [{"fold": "0", "data": "d" * 64}, {"fold": "1", "data": "d" * 64}]  # a person can read what is what


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "trials.db").write_bytes(b"not a database, but long enough to be looked at" * 40)
    with pytest.raises(TrainingError, match=r"trials\.db: the trials cannot be kept there \(DatabaseError: "):
        search(SPACE, ASKED, 17, valley, Shelf(tmp_path / "trials.db", {}))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"away/trials\.db: the trials cannot be kept there"):
        search(SPACE, ASKED, 17, valley, Shelf(tmp_path / "away" / "trials.db", {}))
