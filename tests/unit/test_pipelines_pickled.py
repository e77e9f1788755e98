"""A pickle becomes Parquet once, in a process of its own, and only if it is promised and no more than a table."""

import hashlib
import lzma
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from configs.errors import SourceError
from configs.settings import Settings
from configs.spec import Spec, from_document
from pipelines import pickled, sources


@pytest.fixture
def machine(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", configs=tmp_path / "configs", data=tmp_path / "data")


@pytest.fixture
def raw(machine: Settings) -> Path:
    """Where the toy's pickle lies."""
    path = machine.data / "raw" / "toy" / "toy.pkl.compress"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def promised(raw, toy_document):
    """`promised(content)`: the toy whose wheel holds this as a pickle, promised by its SHA-256."""

    def write(content: Any) -> Spec:
        raw.write_bytes(lzma.compress(pickle.dumps(content)))
        sha256 = hashlib.sha256(raw.read_bytes()).hexdigest()
        source = {"wheel": "toys==1.0", "member": "toys/toy.pkl.compress", "sha256": sha256}
        return from_document({**toy_document, "source": source}, "toy.yaml")

    return write


class Runs:
    """What a pickle may hold: reading it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


ROWS = [["none", 63.5, 1], [None, None, 2]]
COLUMNS = pd.Index(["pain", "age", "x"], dtype=object)
TABLE = {"pain": ["none", None], "age": [63.5, None], "x": [1, 2]}


def test_a_pickled_data_frame_is_read_as_a_table(promised, machine):
    frame = pd.DataFrame(ROWS, columns=COLUMNS).astype({"pain": object})

    assert sources.read(promised(frame), machine) == TABLE


def test_a_pickle_is_read_once_and_again_when_another_is_promised(promised, machine, raw, monkeypatch):
    frame = pd.DataFrame(ROWS, columns=COLUMNS).astype({"pain": object})
    spec = promised(frame)
    sources.read(spec, machine)
    started = []
    run = pickled.subprocess.run
    monkeypatch.setattr(pickled.subprocess, "run", lambda *words, **how: started.append(words) or run(*words, **how))

    assert sources.read(spec, machine) == TABLE
    assert started == []
    assert sources.read(promised(frame.assign(x=[3, 4])), machine)["x"] == [3, 4]
    assert len(started) == 1


def test_a_parquet_file_that_is_damaged_or_of_somebody_else_is_made_anew(promised, machine, raw):
    frame = pd.DataFrame(ROWS, columns=COLUMNS).astype({"pain": object})
    spec = promised(frame)
    kept = raw.with_name("toy.parquet")
    for what in (b"", b"PAR1 and no more"):
        kept.write_bytes(what)
        assert sources.read(spec, machine) == TABLE
    pd.DataFrame({"x": [9]}).to_parquet(kept)
    assert sources.read(spec, machine) == TABLE


def test_a_pickle_that_is_not_the_promised_one_is_not_read(promised, machine, raw, tmp_path):
    spec = promised(pd.DataFrame({"x": [1]}))
    raw.write_bytes(lzma.compress(pickle.dumps(Runs(tmp_path / "ran"))))

    with pytest.raises(SourceError, match="the spec promises"):
        sources.read(spec, machine)
    with pytest.raises(SourceError, match="is not the pickle that the spec promises"):
        pickled.as_parquet(raw, spec.source.sha256)
    assert not (tmp_path / "ran").exists()
    assert [path.name for path in raw.parent.iterdir()] == ["toy.pkl.compress"]


def test_a_pickle_that_names_more_than_a_data_frame_runs_nothing_even_if_it_is_promised(
    promised, machine, raw, tmp_path
):
    with pytest.raises(
        SourceError, match=r"toy.pkl.compress: the pickle names pathlib\.\S+, which no data frame needs"
    ):
        sources.read(promised(Runs(tmp_path / "ran")), machine)
    assert not (tmp_path / "ran").exists()
    assert [path.name for path in raw.parent.iterdir()] == ["toy.pkl.compress"]


def test_a_pickle_of_something_else_is_no_table(promised, machine):
    with pytest.raises(SourceError, match="holds a dict; a data frame is expected"):
        sources.read(promised({"x": [1]}), machine)


def test_bytes_that_are_no_pickle_are_told_by_their_kind_alone(promised, machine, raw):
    spec = promised(None)
    raw.write_bytes(b"Mrs Miller, born 1950")
    spec = from_document(
        {
            **spec.document,
            "source": {**spec.document["source"], "sha256": hashlib.sha256(raw.read_bytes()).hexdigest()},
        },
        "toy.yaml",
    )

    with pytest.raises(SourceError, match=r"cannot be read as a table \(LZMAError\)") as refused:
        sources.read(spec, machine)
    assert "Miller" not in str(refused.value)
