"""A frozen encoder is the bytes of its digest, and says of a row what it says of it alone, now, later and kept."""

import json
import shutil
import sqlite3
import stat
from contextlib import closing

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from configs.errors import EncoderError
from configs.settings import ROOT
from features import texts
from models import encoders
from models.encoders import Embeddings, Recipe

NOTES = ("fell twice at home .", "steady . no falls", "Unsteady at home", "fell")
LENGTH = 40
TOKENS = 8
"""Of the fixture `sentences`."""
MINILM = "c4a57a7f2011f2562b4fb34246d45976f6bb611ae1810569e0bd235637e8475f"
OPENECG = "640d2d13fbf71065b38cd999177ec294fafd532d608662f705cfb8c485e951f8"


def laid(path, kind, store, **recipe):
    """The recipe of an encoder that was laid in the store."""
    sha256 = encoders.digest(path)
    to = encoders.place(kind, sha256, store)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(path, to) if path.is_dir() else shutil.copyfile(path, to)
    return Recipe(kind, sha256, **recipe)


def rows_of(*notes):
    missing = np.full(LENGTH, np.nan)
    return np.stack([missing if note is None else texts.encode(note, LENGTH) for note in notes]).astype(np.float32)


@pytest.fixture(scope="module")
def of_texts(sentences, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return laid(sentences, "sentence_transformer", store, shape=(LENGTH,)), store


@pytest.fixture
def graph(tmp_path):
    """An ONNX file: leads x samples averaged over time, then doubled; `inside` is the mean."""
    return an_onnx(tmp_path / "mean.onnx", [None, 2, 50])


def an_onnx(path, shape, axis=2):
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("ReduceMean", ["signal", "axes"], ["inside"], keepdims=0),
        helper.make_node("Add", ["inside", "inside"], ["twice"]),
    ]
    ends = [helper.make_tensor_value_info("signal", TensorProto.FLOAT, shape)]
    outs = [helper.make_tensor_value_info("twice", TensorProto.FLOAT, None)]
    axes = [numpy_helper.from_array(np.array([axis]), "axes")]
    model = helper.make_model(
        helper.make_graph(nodes, "encoder", ends, outs, axes),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    """A TorchScript file: 2 leads x 50 samples to 4 places x 3 numbers."""
    import warnings

    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(2, 3, 5, stride=15)

        def forward(self, signal):
            return self.conv(signal).transpose(1, 2)

    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("torchscript") / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Net()), str(path))
    return path


def test_the_digest_of_a_folder_is_that_of_its_paths_and_bytes_and_nothing_else(tmp_path):
    for folder, order in (("one", "ab"), ("two", "ba")):
        (tmp_path / folder / "sub").mkdir(parents=True)
        for name in order:
            (tmp_path / folder / "sub" / f"{name}.json").write_text(name)
    before = encoders.digest(tmp_path / "one")

    assert encoders.digest(tmp_path / "two") == before
    (tmp_path / "two" / "pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "two" / "modeling.py").write_text("print('code')")
    assert encoders.digest(tmp_path / "two") == before, "neither is read"
    (tmp_path / "two" / "sub" / "a.json").rename(tmp_path / "two" / "a.json")
    assert encoders.digest(tmp_path / "two") != before


def test_an_encoder_that_is_not_in_the_store_is_named_with_what_to_do(tmp_path):
    with pytest.raises(EncoderError, match=r"encoder abc…: is not in the encoder store\. `medimind ingest NAME`"):
        encoders.load(Recipe("onnx", "abc", (2, 50)), tmp_path)


def test_an_encoder_that_was_changed_is_refused_with_both_digests(graph, tmp_path):
    recipe = laid(graph, "onnx", tmp_path, shape=(2, 50))
    kept = encoders.place("onnx", recipe.sha256, tmp_path)
    kept.write_bytes(kept.read_bytes() + b"\0")

    with pytest.raises(EncoderError) as refused:
        encoders.load(recipe, tmp_path)

    assert recipe.sha256 in str(refused.value)
    assert encoders.digest(kept) in str(refused.value)


def test_one_row_equals_a_batch_to_the_bit_and_what_is_missing_stays_unknown(of_texts):
    together = Embeddings(*of_texts).of(rows_of(NOTES[0], None, *NOTES[1:]))

    assert np.isnan(together[1]).all()
    for row, note in zip(together[[0, 2, 3, 4]], NOTES, strict=True):
        assert_array_equal(Embeddings(*of_texts).of(rows_of(note))[0], row)


def test_a_vector_is_the_mean_of_the_tokens_states_normalised(of_texts, sentences):
    import torch
    from transformers import AutoModel

    ids = torch.tensor([[2, 4, 5, 10, 11, 12, 3]])  # [CLS] fell twice at home . [SEP]
    with torch.inference_mode():
        states = AutoModel.from_pretrained(sentences)(input_ids=ids).last_hidden_state[0].numpy()
    expected = states.mean(axis=0) / np.linalg.norm(states.mean(axis=0))

    found = Embeddings(*of_texts).of(rows_of(NOTES[0]))[0]

    assert_allclose(found, expected, atol=1e-6)


def test_words_beyond_the_encoders_limit_are_not_read_and_the_limit_is_known(of_texts):
    embeddings = Embeddings(*of_texts)
    long = "fell twice at home . no"  # 6 words, [CLS] and [SEP]

    assert embeddings.loaded.tokens == TOKENS
    assert_array_equal(*embeddings.of(rows_of(long + " falls", long + " steady")))


def test_vectors_come_back_from_the_file_to_the_bit_and_only_their_owner_reads_it(of_texts, tmp_path):
    rows = rows_of(*NOTES)
    fresh = Embeddings(*of_texts, tmp_path).of(rows)
    again = Embeddings(*of_texts, tmp_path)
    again.loaded = None  # nothing is computed

    with pytest.raises(AttributeError):
        again.of(rows)
    again.loaded = Embeddings(*of_texts).loaded.__class__(8, TOKENS, lambda row: pytest.fail("it was computed again"))
    assert_array_equal(again.of(rows), fresh)
    kept = list(tmp_path.rglob("*.db"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o600]
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in kept} == {0o700}
    assert not any(note.encode() in kept[0].read_bytes() for note in NOTES)


def test_a_file_of_vectors_that_is_damaged_costs_time_and_no_answer(of_texts, tmp_path):
    rows = rows_of(*NOTES)
    fresh = Embeddings(*of_texts, tmp_path).of(rows)
    (kept,) = tmp_path.rglob("*.db")
    with closing(sqlite3.connect(kept)) as file, file:
        file.execute("UPDATE vectors SET vector = x'00'")

    assert_array_equal(Embeddings(*of_texts, tmp_path).of(rows), fresh)


def test_the_memory_is_bounded_and_the_bits_do_not_notice(of_texts, monkeypatch):
    monkeypatch.setattr(encoders, "MOST_IN_MEMORY", 2)
    embeddings = Embeddings(*of_texts)

    first = embeddings.of(rows_of(*NOTES))

    assert len(embeddings._recent) == 2
    assert_array_equal(embeddings.of(rows_of(*NOTES)), first)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "modules.json").unlink(), "modules.json cannot be read"),
        (lambda folder: (folder / "modules.json").write_text("{"), "modules.json is no readable JSON"),
        (lambda folder: (folder / "modules.json").write_text("[]"), "its steps are none"),
        (lambda folder: (folder / "modules.json").write_text('[{"type": "Dense"}]'), "no list of steps"),
        (lambda folder: (folder / "1_Pooling" / "config.json").write_text("{}"), "pools by nothing"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no weights"), "cannot be read"),
        (
            lambda folder: another_layer(folder / "config.json"),
            r"its weights lack 16 tensors, such as encoder\.layer\.1",
        ),
    ],
)
def test_a_folder_that_is_no_sentence_transformer_is_refused_by_name(sentences, tmp_path, change, told):
    folder = shutil.copytree(sentences, tmp_path / "broken")
    change(folder)

    with pytest.raises(EncoderError, match=told):
        encoders.load(laid(folder, "sentence_transformer", tmp_path / "store", shape=(LENGTH,)), tmp_path / "store")


def test_a_text_whose_vector_is_no_number_is_an_error_and_not_missing(sentences, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(sentences, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    recipe = laid(folder, "sentence_transformer", tmp_path / "store", shape=(LENGTH,))

    with pytest.raises(EncoderError, match="gives a number that is not finite"):
        Embeddings(recipe, tmp_path / "store").of(rows_of("fell"))


def another_layer(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 2}))


def test_a_folder_with_nothing_but_a_pickle_is_refused_and_the_pickle_is_not_loaded(sentences, tmp_path):
    folder = shutil.copytree(sentences, tmp_path / "pickled")
    store = tmp_path / "store"
    (folder / "model.safetensors").unlink()
    recipe = laid(folder, "sentence_transformer", store, shape=(LENGTH,))
    planted = encoders.place("sentence_transformer", recipe.sha256, store) / "pytorch_model.bin"
    planted.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")

    with pytest.raises(EncoderError, match="cannot be read"):
        encoders.load(recipe, store)
    assert not (tmp_path / "ran").exists()


def test_an_onnx_encoder_gives_its_output_or_a_tensor_of_its_inside(graph, tmp_path):
    signal = np.random.default_rng(3).normal(size=(3, 100)).astype(np.float32)

    out = Embeddings(laid(graph, "onnx", tmp_path / "store", shape=(2, 50)), tmp_path / "store")
    inside = Embeddings(Recipe("onnx", encoders.digest(graph), (2, 50), "inside"), tmp_path / "store")

    assert out.loaded.dimension == 2
    assert_allclose(inside.of(signal), signal.reshape(3, 2, 50).mean(axis=2), atol=1e-6)
    assert_array_equal(out.of(signal), 2 * inside.of(signal))


def test_a_graph_of_one_lead_takes_it_without_the_axis(tmp_path):
    path = an_onnx(tmp_path / "flat.onnx", ["batch", 50], axis=0)
    with pytest.raises(EncoderError, match=r"gives 50; 1 x dimension, or 1 x places x dimension"):
        encoders.load(laid(path, "onnx", tmp_path, shape=(1, 50)), tmp_path)


@pytest.mark.parametrize(
    ("shape", "output", "told"),
    [
        ((3, 50), None, "reads any x 2 x 50, and a signal of the contract is 1 x 3 x 50"),
        ((2, 49), None, "a signal of the contract is 1 x 2 x 49"),
        ((2, 50), "embedding", "has no tensor 'embedding'. Its outputs: twice"),
    ],
)
def test_an_onnx_encoder_of_other_signals_is_refused_with_both_shapes(graph, tmp_path, shape, output, told):
    with pytest.raises(EncoderError, match=told):
        encoders.load(laid(graph, "onnx", tmp_path, shape=shape, output=output), tmp_path)


def test_a_file_that_is_no_encoder_is_refused(tmp_path):
    (tmp_path / "text").write_text("no network")
    for kind in ("onnx", "torchscript"):
        with pytest.raises(EncoderError, match="is no"):
            encoders.load(laid(tmp_path / "text", kind, tmp_path, shape=(2, 50)), tmp_path)


def test_a_torchscript_encoders_places_are_averaged_and_a_wrong_shape_is_refused(scripted, tmp_path):
    import torch

    signal = np.random.default_rng(3).normal(size=(2, 100)).astype(np.float32)
    recipe = laid(scripted, "torchscript", tmp_path, shape=(2, 50))

    found = Embeddings(recipe, tmp_path).of(signal)

    module = torch.jit.load(str(scripted))
    assert_allclose(found, module(torch.tensor(signal).reshape(2, 2, 50)).mean(dim=1).detach(), atol=1e-6)
    with pytest.raises(EncoderError, match="does not read a signal of 1 x 3 x 50"):
        encoders.load(Recipe("torchscript", recipe.sha256, (3, 50)), tmp_path)


def test_ranks_are_those_of_scipy_between_minus_one_and_one_for_each_lead():
    from scipy.stats import rankdata

    signal = np.round(np.random.default_rng(3).normal(size=(2, 100)), 1).astype(np.float32)

    expected = (rankdata(signal, axis=1) - 1) / 99 * 2 - 1

    assert_allclose(encoders.SCALES["rank"](signal), expected, atol=1e-6)
    assert_array_equal(encoders.SCALES["rank"](np.float32(7) * signal), encoders.SCALES["rank"](signal))


def real(kind, sha256):
    """The store that holds this encoder; skips where `make data` has not fetched it."""
    store = ROOT / "var" / "encoders"
    if not encoders.place(kind, sha256, store).exists():
        pytest.skip(f"var/encoders/{sha256} is not there: `make data` fetches it.")
    return store


def test_minilm_finds_an_unsteady_patient_nearer_to_another_than_to_a_diet():
    recipe = Recipe("sentence_transformer", MINILM, (LENGTH,))
    store = real(recipe.kind, MINILM)

    vectors = Embeddings(recipe, store).of(
        rows_of("Unsteady, holds on to the furniture.", "Sways when turning.", "Diabetic diet ordered.")
    )

    assert vectors.shape == (3, 384)
    assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
