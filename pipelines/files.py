"""Files that appear whole or not at all, and one writer of a disease's files at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import MediMindError
from configs.settings import Settings


@contextmanager
def alone(name: str, settings: Settings) -> Iterator[None]:
    """Wait until no other process of this machine works on the disease, and keep others waiting.

    The lock is the system's: a process that dies loses it.
    """
    folder = settings.private(settings.home / "locks")
    with open(folder / name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def replacing(path: Path, error: type[MediMindError]) -> Iterator[Path]:
    """A path beside `path` to write to; on success it takes `path`'s place, readable by its owner alone.

    Raises `error` if the disk does not take it; an earlier file is then as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield partial
        os.chmod(partial, 0o600)
        os.replace(partial, path)
    except OSError as exc:
        raise error(f"{path.name}: could not be written ({exc.strerror or exc}). Nothing was changed.") from exc
    finally:
        partial.unlink(missing_ok=True)
