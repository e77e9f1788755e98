"""A bundle is what its manifest says, or it is not used; it appears whole, or not at all."""

import errno
import json
import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from configs.errors import BundleError
from configs.settings import ROOT, Settings
from models import bundle as bundles
from models.bundle import FILES as DOCUMENTS
from models.bundle import MANIFEST, ONNX, get, load, put, sign, write

FILES = DOCUMENTS | ONNX
JSON_FILES = sorted(DOCUMENTS)

WRITE = """
import shutil, sys
from pathlib import Path
from configs.errors import BundleError
from configs.settings import Settings
from models.bundle import load, put, write
verb, source, target = sys.argv[1], load(Path(sys.argv[2])), Path(sys.argv[3])
documents = {"spec": source.spec.document, "calibration": vars(source.calibration), "thresholds": source.thresholds,
             "reference": source.reference, "selftest": source.selftest, "training": source.training}
try:
    if verb == "write":
        write(target, documents, lambda files: shutil.copy(source.folder / "model.onnx", files) and None)
    else:
        put(source.folder, Settings(home=target, trust=sys.argv[4]))
except BundleError as exc:
    print("refused:", exc)
"""


@pytest.fixture
def folder(trained, tmp_path):
    """The trained bundle's folder, free to be damaged."""
    return Path(shutil.copytree(trained.folder, tmp_path / "angina"))


@pytest.fixture
def signed(folder, home):
    """The same, signed by the machine `home`."""
    return sign(folder, home)


def documents_of(bundle):
    return {
        "spec": bundle.spec.document,
        "calibration": {"slope": bundle.calibration.slope, "intercept": bundle.calibration.intercept},
        "thresholds": bundle.thresholds,
        "conformal": bundle.conformal.document if bundle.conformal else {},
        "reference": bundle.reference,
        "selftest": bundle.selftest,
        "training": bundle.training,
    }


def write_again(bundle, folder, **changed):
    model = bundle.folder / "model.onnx"
    return write(folder, {**documents_of(bundle), **changed}, lambda files: shutil.copy(model, files))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_written_is_what_is_loaded(trained):
    loaded = load(trained.folder)

    assert loaded == trained
    assert loaded.spec.document == trained.spec.document
    assert set(contents(trained.folder)) == FILES | {MANIFEST}


def test_the_same_contents_give_the_same_digest_wherever_they_lie(trained, tmp_path):
    assert write_again(trained, tmp_path / "elsewhere" / "other name").digest == trained.digest


@pytest.mark.parametrize("changed", [{"thresholds": {"alert": 0.5}}, {"calibration": {"slope": 1.0, "intercept": 0.0}}])
def test_other_contents_give_another_digest(trained, tmp_path, changed):
    assert write_again(trained, tmp_path / "other", **changed).digest != trained.digest


def test_a_bundle_replaces_an_earlier_one_and_leaves_nothing_beside_it(trained, folder):
    new = write_again(trained, folder, thresholds={"alert": 0.5})

    assert load(folder) == new
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_no_clock_no_path_and_no_user_stands_in_a_bundle(trained):
    for name, content in contents(trained.folder).items():
        text = content.decode(errors="replace")
        assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text), name
        assert str(trained.folder.parent) not in text and str(ROOT) not in text, name


def test_nothing_in_a_bundle_is_a_pickle(trained):
    for name, content in contents(trained.folder).items():
        assert name.endswith((".json", ".onnx"))
        assert not content.startswith(
            (b"\x80", b"(", b"c", b"PK")
        )  # pickles of protocol 2-5 and 0; torch's and skops' zip
        if name.endswith(".json"):
            json.loads(content)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_byte_is_refused_by_the_files_name(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(BundleError, match=re.escape(name)):
        load(folder)


@pytest.mark.parametrize("name", sorted({*FILES, MANIFEST}))
def test_a_file_that_is_gone_is_refused_by_name(folder, name):
    (folder / name).unlink()

    with pytest.raises(BundleError, match=re.escape(name)):
        load(folder)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_folder_in_a_files_place_is_refused_by_name(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()

    with pytest.raises(BundleError, match=re.escape(name)):
        load(folder)


@pytest.mark.parametrize("name", ["weights.pkl", ".hidden", "notes"])
def test_a_file_that_was_added_is_refused_by_name(folder, name):
    (folder / name).write_text("surprise")

    with pytest.raises(BundleError, match=re.escape(name)):
        load(folder)


def test_a_file_that_was_added_to_the_manifest_too_is_refused_by_name(folder, reseal):
    (folder / "weights.pkl").write_text("surprise")
    reseal(folder)

    with pytest.raises(BundleError, match=r"weights\.pkl"):
        load(folder)


@pytest.mark.parametrize("number", [0, 5, "1", None, 1.5, True])
def test_an_unknown_format_is_refused_with_the_one_that_is_read(folder, number):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format": number}))

    with pytest.raises(BundleError, match=f"format {number!r}; this release reads formats 1, 2, 3, {bundles.FORMAT}"):
        load(folder)


@pytest.mark.parametrize("size", [0, 1, 40, -3])
def test_a_truncated_manifest_is_refused(folder, size):
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:size])

    with pytest.raises(BundleError, match=MANIFEST):
        load(folder)


@pytest.mark.parametrize(
    "text", ["[]", "1", '{"format": 1}', '{"format": 1, "files": 3}', '{"format": 1, "files": {}}', "\xff"]
)
def test_a_manifest_of_another_shape_is_refused(folder, text):
    (folder / MANIFEST).write_text(text, encoding="latin-1")

    with pytest.raises(BundleError, match=MANIFEST):
        load(folder)


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_document_of_another_shape_is_refused_by_name_though_its_hash_agrees(folder, reseal, name, content):
    (folder / name).write_bytes(content)
    reseal(folder)

    with pytest.raises(BundleError, match=re.escape(name)):
        load(folder)


def test_a_spec_that_does_not_hold_together_is_refused(folder, reseal):
    document = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**document, "surprise": 1}))
    reseal(folder)

    with pytest.raises(BundleError, match=r"spec\.json.*surprise"):
        load(folder)


def test_a_signature_may_lie_beside_and_does_not_change_the_digest(folder, trained):
    (folder / "SIGNATURE").write_bytes(b"signed")
    assert load(folder).digest == trained.digest


@pytest.mark.parametrize("place", ["nowhere", "a file"])
def test_a_place_without_a_bundle_is_refused(tmp_path, place):
    (tmp_path / "a file").write_text("")
    with pytest.raises(BundleError, match=place):
        load(tmp_path / place)


def test_put_and_get(signed, home):
    kept = put(signed, home)

    assert kept.folder == home.store / kept.digest
    assert put(signed, home) == kept == get(kept.digest, home)
    assert contents(kept.folder) == contents(signed)
    assert [path.name for path in home.store.iterdir()] == [kept.digest]
    assert stat.S_IMODE(home.store.stat().st_mode) == 0o700


def test_what_was_damaged_in_the_store_is_laid_anew(signed, trained, home):
    kept = put(signed, home).folder
    (kept / "thresholds.json").write_text("{}")

    again = put(signed, home)

    assert again.thresholds == trained.thresholds
    assert [path.name for path in home.store.iterdir()] == [trained.digest]


def test_a_damaged_bundle_does_not_get_into_the_store(signed, home):
    (signed / "thresholds.json").write_text("{}\n")
    with pytest.raises(BundleError, match=r"thresholds\.json"):
        put(signed, home)
    assert not home.store.exists()


def test_the_store_never_serves_what_its_name_does_not_say(signed, trained, reseal, home):
    kept = put(signed, home).folder
    (kept / "thresholds.json").write_text('{"alert": 0.01}\n')

    with pytest.raises(BundleError, match=r"thresholds\.json"):
        get(trained.digest, home)
    reseal(kept)
    with pytest.raises(BundleError, match=rf"{trained.digest[:12]}: MANIFEST\.json"):
        get(trained.digest, home)


def test_a_calibration_of_other_fields_is_refused(folder, reseal):
    (folder / "calibration.json").write_text('{"slope": 1.0}')
    reseal(folder)

    with pytest.raises(BundleError, match=r"calibration\.json is not a slope and an intercept"):
        load(folder)


def test_an_unknown_digest_is_refused(home):
    with pytest.raises(BundleError, match="0000"):
        get("0" * 64, home)


def test_another_process_may_put_the_same_bundle_at_the_same_time(signed, trained, home, monkeypatch):
    real = os.replace

    def after_another(partial, kept):
        shutil.copytree(signed, kept)
        real(partial, kept)

    monkeypatch.setattr(os, "replace", after_another)

    assert put(signed, home).digest == trained.digest
    assert [path.name for path in home.store.iterdir()] == [trained.digest]


def sizes(bundle):
    return sorted({path.stat().st_size for path in bundle.folder.iterdir()})


@pytest.mark.parametrize("room", ["nothing", "a little", "all but one byte"])
@pytest.mark.parametrize("verb", ["write", "put"])
def test_a_full_disk_leaves_nothing_behind(trained, child, tmp_path, tmp_path_factory, verb, room):
    target = tmp_path / "target"
    elsewhere = tmp_path_factory.mktemp("signer")
    signer = Settings(home=elsewhere / "home")
    source = sign(Path(shutil.copytree(trained.folder, elsewhere / "angina")), signer)
    largest = {"nothing": 0, "a little": 100, "all but one byte": sizes(trained)[-1] - 1}[room]

    said, _ = child(WRITE, verb, source, target, signer.trust_file, largest_file=largest).communicate(timeout=60)

    assert said.startswith("refused:") and "File too large" in said
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("room", ["nothing", "a little", "all but one byte"])
def test_a_full_disk_leaves_the_old_bundle_as_it_was(trained, folder, child, room):
    write_again(trained, folder, thresholds={"alert": 0.5})
    before = contents(folder.parent)
    largest = {"nothing": 0, "a little": 100, "all but one byte": sizes(trained)[-1] - 1}[room]

    said, _ = child(WRITE, "write", trained.folder, folder, largest_file=largest).communicate(timeout=60)

    assert "refused:" in said and "Nothing was changed" in said
    assert contents(folder.parent) == before
    load(folder)


def test_a_swap_that_fails_half_way_puts_the_old_bundle_back(trained, folder, monkeypatch):
    before = contents(folder.parent)
    real = os.replace

    def fails_for_the_new_one(source, target):
        if source.name.startswith(".angina-") and target == folder and not source.name.endswith("-old"):
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails_for_the_new_one)

    with pytest.raises(BundleError, match="Nothing was changed"):
        write_again(trained, folder, thresholds={"alert": 0.5})
    assert contents(folder.parent) == before


def test_an_export_that_fails_leaves_nothing_behind(trained, tmp_path):
    def export(files):
        (files / "model.onnx").write_bytes(b"half a mod")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write(tmp_path / "angina", documents_of(trained), export)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("calibration.json", lambda found: found["intercepts"].pop("stable")),
        ("calibration.json", lambda found: found["intercepts"].update(more=0.0)),
        ("calibration.json", lambda found: found["intercepts"].update(none="0")),
        ("calibration.json", lambda found: found.pop("slope")),
        ("calibration.json", lambda found: found.update(slope=float("nan"))),
        ("calibration.json", lambda found: found.update(intercept=1.0)),
        ("conformal.json", lambda found: found["least"].pop("stable")),
        ("conformal.json", lambda found: found["least"].update(stable=1.1)),
        ("conformal.json", lambda found: found["least"].update(stable=None)),
        ("conformal.json", lambda found: found.update(least=0.2)),
        ("conformal.json", lambda found: found.update(negative=0.2)),
        ("conformal.json", lambda found: found.update(coverage=0.9)),
    ],
)
def test_what_does_not_say_something_of_each_class_is_refused_by_the_files_name(
    predictor_of_classes, reseal, tmp_path, name, change
):
    folder = Path(shutil.copytree(predictor_of_classes.bundle.folder, tmp_path / "angina"))
    document = json.loads((folder / name).read_text())
    change(document)
    (folder / name).write_text(json.dumps(document))
    reseal(folder)

    with pytest.raises(BundleError, match=name):
        load(folder)
