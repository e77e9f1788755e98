"""The battery of models/family.py for a frozen encoder with its head, and what happens when the encoder is another."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from configs.errors import BundleError, EncoderError, TrainingError
from configs.settings import ROOT
from configs.spec import from_document
from features import build, columns
from models import encoders, explain
from models.families import frozen_encoder
from models.family import load
from models.predict import TOLERANCE

FELL = ("fell twice at home .", "unsteady at home", "fell at home", "unsteady . fell twice")
DID_NOT = ("steady . no falls", "no falls at home", "steady at home", "steady")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory, sentences):
    """This machine's home, with the encoder in its store."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(sentences, home / "encoders" / encoders.digest(sentences))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDIMIND_HOME", str(home))
        yield home


def document(toy, sha256, head="logistic"):
    """The toy disease with a note that tells of a fall; the encoder reads it."""
    toy["columns"] = {
        "note": {"type": "text", "length": 40},
        "age_years": {"from": "age", "type": "number", "unit": "a", "range": [18, 120]},
        "sex": {"type": "category", "values": ["female", "male"]},
    }
    toy |= {"attributes": ["sex"], "features": ["note", "age_years", "sex", "notes.mentions_of_falls"]}
    toy |= {"split": {"test_fraction": 0.25, "seed": 17}, "candidates": ["frozen_encoder"]}
    toy["encoder"] = {"path": "x", "sha256": sha256, "kind": "sentence_transformer", "reads": "note", "head": head}
    del toy["external"]
    return toy


@pytest.fixture(params=["logistic", "boosted"])
def spec(request, toy_document, sentences):
    return from_document(document(toy_document, encoders.digest(sentences), request.param), "toy.yaml")


@pytest.fixture
def plan(spec):
    return build.plan(spec)


@pytest.fixture
def patients(spec, plan):
    """X and y of 120 invented patients, every tenth without a note."""
    dice = np.random.default_rng(4)
    y = (dice.random(120) < 0.4).astype(float)
    records = [
        {
            "note": None if row % 10 == 0 else str(dice.choice(FELL if sick else DID_NOT)),
            "age_years": float(dice.integers(20, 99)) if row % 7 else None,
            "sex": str(dice.choice(["female", "male"])),
        }
        for row, sick in enumerate(y)
    ]
    checked = [columns.check_record(spec.columns, record) for record in records]
    return build.build(plan, columns.as_arrays(spec.columns, checked), columns.times(checked)), y


@pytest.fixture
def task(spec, plan, task_of):
    return task_of(plan, 120, encoder=spec.encoder)


@pytest.fixture
def fitted(patients, task):
    return frozen_encoder.fit(*patients, task)


@pytest.fixture
def folder(fitted, tmp_path):
    (tmp_path / "bundle").mkdir()
    fitted.export(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_fit_twice_equals_fit_once_to_the_bit(fitted, folder, patients, task, tmp_path):
    X, y = (part.copy() for part in patients)
    again = frozen_encoder.fit(X, y, task)
    again.export(tmp_path)

    assert_array_equal(X, patients[0])
    assert_array_equal(again.log_odds(X), fitted.log_odds(X))
    for name in ("model.onnx", "model.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_what_was_written_says_what_was_learned(fitted, folder, plan, patients):
    X, y = patients
    loaded = load(folder, plan)

    risks = [1 / (1 + np.exp(-model.log_odds(X))) for model in (fitted, loaded)]

    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.onnx"]
    assert np.abs(risks[0] - risks[1]).max() <= TOLERANCE
    assert risks[1][y == 1].mean() > risks[1][y == 0].mean() + 0.3, "nothing was learned"


def test_one_row_equals_a_batch_to_the_bit(folder, plan, patients):
    X, _ = patients
    together = load(folder, plan).log_odds(X)
    alone = load(folder, plan)

    for size in (1, 2, 7):
        parts = [alone.log_odds(X[start : start + size]) for start in range(0, len(X), size)]
        assert_array_equal(np.concatenate(parts), together)


def test_a_missing_note_is_told_by_its_flag_and_the_note_of_nobody_in_particular(fitted, folder, plan, patients):
    X, _ = patients
    X = X[:1].copy()
    X[:, plan.places("note")] = np.nan

    rows = fitted.reader.rows(X)

    assert np.isfinite(load(folder, plan).log_odds(X)).all()
    assert rows[0, len(plan.features)] == 1
    assert_array_equal(rows[0, len(plan.features) + 1 :], np.float32(fitted.reader.about.filled_with))


def test_an_explanation_adds_up_to_the_log_odds_and_tells_of_the_note_as_one(folder, plan, patients):
    X, _ = patients
    ((base, contributions),) = explain.of_model(folder, plan, {}).by_output(X)

    said = load(folder, plan).log_odds(X)

    assert contributions.shape == (len(X), len(plan.names))
    assert_allclose(base + contributions.sum(axis=1), said, atol=1e-5)
    note = contributions[:, plan.names.index("note")]
    assert np.corrcoef(note, said)[0, 1] > 0.9, "the note is what tells of a fall"


def test_a_process_that_answers_imports_neither_sklearn_nor_pandas_nor_mlflow(folder, plan, spec):
    code = (
        "import json, sys; from pathlib import Path; from configs.spec import from_document\n"
        "from features import build; from models.family import load\n"
        f"spec = from_document(json.loads({json.dumps(json.dumps(spec.document))}), 'toy.yaml')\n"
        f"load(Path({str(folder)!r}), build.plan(spec))\n"
        "print(sorted({'mlflow', 'pandas', 'sklearn', 'lightning'} & {name.partition('.')[0] for name in sys.modules}))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split("\n")[-2] == "[]"


def test_several_classes_have_a_log_probability_each(spec, plan, patients, task_of, tmp_path):
    X, y = patients
    y = np.where(np.arange(len(y)) % 4 == 3, 2.0, y)
    fitted = frozen_encoder.fit(X, y, task_of(plan, len(X), encoder=spec.encoder, classes=3))
    fitted.export(tmp_path)

    said = load(tmp_path, plan).log_odds(X)

    assert said.shape == (120, 3)
    assert np.abs(softmax(said, axis=1) - softmax(fitted.log_odds(X), axis=1)).max() <= TOLERANCE


def test_the_patients_vectors_are_kept_once_under_home_and_not_in_the_bundle(home, fitted, folder, patients):
    X, _ = patients
    kept = list((home / "embeddings").rglob("*.db"))
    vectors = fitted.reader.rows(X)[:, -8:]

    assert len(kept) == 1
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert not any(vector.tobytes() in content or note.encode() in content for vector in vectors for note in FELL)


def test_a_bundle_whose_encoder_is_not_here_says_what_to_do(folder, plan, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIMIND_HOME", str(tmp_path / "elsewhere"))

    with pytest.raises(EncoderError, match=r"is not in the encoder store\. `medimind ingest NAME`.*copy the folder"):
        load(folder, plan)


def test_a_bundle_whose_encoder_was_changed_is_not_served(folder, plan, tmp_path, monkeypatch, sentences):
    sha256 = encoders.digest(sentences)
    changed = shutil.copytree(sentences, tmp_path / "home" / "encoders" / sha256)
    (changed / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    monkeypatch.setenv("MEDIMIND_HOME", str(tmp_path / "home"))

    with pytest.raises(EncoderError, match=f"SHA-256 {encoders.digest(changed)}, where {sha256} is promised"):
        load(folder, plan)


def test_training_without_the_encoder_says_what_to_do(patients, spec, plan, task_of, tmp_path):
    task = task_of(plan, 120, encoder=spec.encoder.model_copy(update={"sha256": "0" * 64}))

    with pytest.raises(TrainingError, match="encoder 000000000000…: is not in the encoder store"):
        frozen_encoder.fit(*patients, task)


def test_training_without_a_single_note_is_refused(patients, plan, task):
    X, y = patients
    X[:, plan.places("note")] = np.nan

    with pytest.raises(TrainingError, match="no patient that is learned from has a 'note'"):
        frozen_encoder.fit(X, y, task)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda about: about.update(dimension=9), "its encoder is said to be another: it gives 8 numbers"),
        (lambda about: about.update(tokens=None), "its encoder is said to be another"),
        (lambda about: about.update(filled_with=about["filled_with"][1:]), "its encoder is said to be another"),
        (lambda about: about.update(reads="letter"), "'letter' is no signal among the features: note"),
        (lambda about: about.update(sha256="../../etc"), "sha256"),
        (lambda about: about.update(kind="pickle"), "kind"),
        (lambda about: about.update(code="print()"), "code"),
        (lambda about: about.pop("head"), "head"),
    ],
)
def test_a_forged_model_json_is_refused_by_name(folder, plan, change, told):
    path = folder / "model.json"
    forged = json.loads(path.read_text())
    change(forged["architecture"])
    path.write_text(json.dumps(forged))

    with pytest.raises(BundleError, match=told):
        load(folder, plan)


def test_a_head_of_other_inputs_is_refused(folder, plan, spec):
    wider = build.plan(spec.model_copy(update={"features": (*spec.features, "notes.characters")}))

    with pytest.raises(BundleError, match=r"model\.onnx: reads 12 numbers; 13 are expected"):
        load(folder, wider)


OPENECG = "640d2d13fbf71065b38cd999177ec294fafd532d608662f705cfb8c485e951f8"


def recording(irregular, dice):
    """Ten invented seconds of one lead at 500 Hz: beats with P waves in step, or without them and out of step."""
    times, found = np.arange(5000) / 500, dice.normal(0, 0.02, 5000)
    at = np.cumsum(dice.uniform(0.45, 1.2, 16) if irregular else 0.8 * dice.uniform(0.98, 1.02, 16))
    for peak in at:
        for mv, after_s, width_s in ((0 if irregular else 0.15, -0.16, 0.025), (1.0, 0, 0.012), (0.25, 0.28, 0.05)):
            found += mv * np.exp(-0.5 * ((times - peak - after_s) / width_s) ** 2)
    return found


def test_a_head_on_openecg_tells_an_irregular_rhythm_from_a_regular_one(toy_document, task_of, monkeypatch):
    if not (ROOT / "var" / "encoders" / OPENECG).exists():
        pytest.skip(f"var/encoders/{OPENECG} is not there: `make data` fetches it.")
    toy = document(toy_document, OPENECG)
    ecg = {"type": "waveform", "leads": ["II"], "sampling_hz": 500, "samples": 5000, "unit": "mV", "range": [-20, 20]}
    toy["columns"] = {**toy["columns"], "note": ecg}
    toy["features"] = ["note", "age_years"]
    toy["encoder"] |= {"kind": "onnx", "output": "add_255", "scale": "rank"}
    spec = from_document(toy, "toy.yaml")
    plan, dice = build.plan(spec), np.random.default_rng(4)
    y = np.arange(60) % 2.0
    X = np.array([[dice.uniform(20, 90), *recording(sick, dice)] for sick in y], np.float32)
    monkeypatch.setenv("MEDIMIND_HOME", str(ROOT / "var"))
    task = task_of(plan, 40, encoder=spec.encoder)
    monkeypatch.setattr(type(task.settings), "embeddings", None)  # nothing of a test is kept there

    fitted = frozen_encoder.fit(X[:40], y[:40], task)

    assert fitted.reader.about.dimension == 128
    assert ((fitted.log_odds(X[40:]) > 0) == y[40:]).mean() >= 0.9


def test_a_spec_holds_together_with_its_encoder(toy_document, sentences):
    good = document(toy_document, encoders.digest(sentences))
    from_document(good, "toy.yaml")
    for change, told in (
        ({"kind": "onnx"}, "a text is not read by onnx"),
        ({"scale": "rank"}, "`scale` for what reads a waveform"),
        ({"output": "hidden"}, "`output` is for `kind: onnx`"),
        ({"member": "model"}, "`member` is the file or folder inside a `wheel`"),
        ({"sha256": "abc"}, "sha256"),
    ):
        with pytest.raises(Exception, match=told):
            from_document({**good, "encoder": {**good["encoder"], **change}}, "toy.yaml")
