"""Files of recordings and pictures that a source's cells name: read as what the contract's judges take.

A column with a `folder` has paths in its cells, each inside that folder. Of a recording: a WFDB record (the path of its
.hea, with or without the suffix), an .npy, or an .npz with `value` and, if they are told, `sampling_hz` and `unit`. Of
a picture: .png, .dcm or .npz. A file that cannot be read refuses its row; no message tells a path, because a path may
tell who the patient is.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from configs.errors import RecordError
from configs.settings import Settings
from configs.spec import Column, Spec
from features import images

MOST_BYTES = 2**30
"""Of one file, and of an .npz unpacked; our own bound."""


def opened(spec: Spec, cells: Mapping[str, list[Any]], settings: Settings) -> dict[str, list[Any]]:
    """The translated cells of a source, where every path of a column with a `folder` is what its file holds.

    A file that is not there or cannot be read is a RecordError in the cell's place, which refuses the row.
    """
    return {name: _opened(name, spec.fields[name], found, settings) for name, found in cells.items()}


def _opened(name: str, column: Column, cells: list[Any], settings: Settings) -> list[Any]:
    if column.folder is None:
        return cells
    folder = settings.configs.parent / column.folder
    return [None if cell is None else read(name, column, folder, cell) for cell in cells]


def read(name: str, column: Column, folder: Path, cell: Any) -> Any:
    """What the file of this path inside the folder holds, as the column's judge takes it; a RecordError if it cannot
    be read."""
    try:
        path = _inside(name, folder, cell)
        return _recording(name, column, path) if column.type == "waveform" else _picture(name, path)
    except RecordError as exc:
        return exc
    except Exception as exc:  # every reader has errors of its own, whose text may quote the path or the file
        return RecordError("unreadable_file", name, f"{name}: its file cannot be read ({type(exc).__name__}).")


def _inside(name: str, folder: Path, cell: Any) -> Path:
    if not isinstance(cell, str):  # a number's zeros in front are lost: 0100 would be another patient's 100
        said = f"{name}: a path is expected, and its cell is no text; where a number names the file write 100.hea."
        raise RecordError("unreadable_file", name, said)
    path = PurePosixPath(cell)
    if not path.parts or ".." in path.parts or path.is_absolute():
        raise RecordError("unreadable_file", name, f"{name}: a path inside the column's `folder` is expected.")
    return folder / cell


def _recording(name: str, column: Column, path: Path) -> Any:
    if path.suffix == ".npy":
        lies = np.load(path, mmap_mode="r", allow_pickle=False)
        if lies.nbytes > MOST_BYTES:
            raise _too_large(name)
        return np.array(lies)
    if path.suffix == ".npz":
        return _archive(name, path)
    return _wfdb(name, column, path.with_suffix("") if path.suffix in (".hea", ".dat", ".mat") else path)


def _archive(name: str, path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as found:
        members = found.zip.infolist()
        if sum(member.file_size for member in members) > MOST_BYTES:
            raise _too_large(name)
        if any(member.compress_type not in images.DEFLATED for member in members):
            said = f"{name}: its .npz is packed in another way than numpy packs one."
            raise RecordError("unreadable_file", name, said)
        if not {"value"} <= set(found.files) <= {"value", "sampling_hz", "unit"}:
            said = f"{name}: an .npz holds `value`, and may hold `sampling_hz` and `unit`."
            raise RecordError("unreadable_file", name, said)
        told = {key: found[key].item() for key in ("sampling_hz", "unit") if key in found.files}
        return {"value": found["value"], **told}


def _wfdb(name: str, column: Column, path: Path) -> dict[str, Any]:
    """The contract's leads of a WFDB record, by their names; what else its header says is not read on."""
    import wfdb

    if not path.with_name(f"{path.name}.hea").exists():
        raise RecordError("unreadable_file", name, f"{name}: its file is not there.")
    header = wfdb.rdheader(str(path))
    if any(Path(file).name != file for file in header.file_name or []):
        raise RecordError("unreadable_file", name, f"{name}: its header names a file in another folder.")
    if 8 * (header.sig_len or 0) * (header.n_sig or 0) > MOST_BYTES:
        raise _too_large(name)
    known = [str(lead).casefold() for lead in header.sig_name or []]
    places = []
    for lead in column.leads:
        if known.count(lead.casefold()) != 1:
            said = f"{name}: the record has {known.count(lead.casefold())} leads of the name {lead}; one is expected."
            raise RecordError("wrong_leads", name, said)
        places.append(known.index(lead.casefold()))
    record = wfdb.rdrecord(str(path), channels=places)
    if len(set(record.units)) > 1:
        raise RecordError("unit", name, f"{name}: its leads stand in several units; one is expected.")
    recording = np.ascontiguousarray(record.p_signal.T, dtype=np.float32)
    return {"value": recording, "unit": record.units[0], "sampling_hz": record.fs}


def _picture(name: str, path: Path) -> dict[str, bytes]:
    form = images.SUFFIXES.get(path.suffix.lower())
    if form is None:
        known = ", ".join(images.SUFFIXES)
        raise RecordError("unreadable_file", name, f"{name}: a picture's file ends in one of: {known}.")
    if path.stat().st_size > MOST_BYTES:
        raise _too_large(name)
    return {form: path.read_bytes()}


def _too_large(name: str) -> RecordError:
    return RecordError("unreadable_file", name, f"{name}: its file holds more than {MOST_BYTES // 2**20} MiB.")
