"""A network's two files: read back as they were, and refused by name if anything in them differs."""

import itertools
import json

import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import nn

from configs.errors import BundleError
from models import weights


class Architecture(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    widths: tuple[int, ...]
    outputs: int = Field(ge=1, le=10)


class Toy(nn.Module):
    def __init__(self, architecture):
        super().__init__()
        self.register_buffer("medians", torch.zeros(architecture.widths[0]))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(architecture.widths))
        self.last = nn.Linear(architecture.widths[-1], architecture.outputs)

    def forward(self, x):
        x = x - self.medians
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.last(x)


SMALL = Architecture(widths=(3, 4), outputs=2)


@pytest.fixture
def toy():
    torch.manual_seed(1)
    network = Toy(SMALL)
    network.medians += torch.arange(3)
    return network


@pytest.fixture
def folder(toy, tmp_path):
    weights.save(tmp_path, "toy", SMALL, toy)
    return tmp_path


def read(folder, family="toy"):
    return weights.load(folder, family, Architecture, Toy)


def test_what_was_saved_is_what_is_loaded_and_it_cannot_learn(folder, toy):
    architecture, network = read(folder)

    x = torch.randn(5, 3)
    assert architecture == SMALL
    assert torch.equal(network(x), toy(x))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert weights.family_of(folder) == "toy"


def test_the_same_network_is_the_same_bytes(folder, toy, tmp_path):
    (again := tmp_path / "again").mkdir()
    weights.save(again, "toy", SMALL, toy)

    for name in (weights.DOCUMENT, weights.WEIGHTS):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def forge(folder, **changed):
    path = folder / weights.DOCUMENT
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changed}))


@pytest.mark.parametrize(
    ("architecture", "named"),
    [
        ({"widths": [3, 5], "outputs": 2}, r"layers\.0\.weight is float32 \(4, 3\), float32 \(5, 3\) is expected"),
        ({"widths": [3, 4], "outputs": 3}, r"last\.weight is float32 \(2, 4\), float32 \(3, 4\)"),
        ({"widths": [3, 4, 4], "outputs": 2}, r"lacks layers\.1\.bias, layers\.1\.weight"),
        ({"widths": [3], "outputs": 2}, r"holds layers\.0\.bias, layers\.0\.weight"),
        ({"widths": [3, 4], "outputs": 11}, "outputs: .*less than or equal to 10"),
        ({"widths": [3, 4], "outputs": 2.5}, "outputs: .*2.5"),
        ({"widths": [3, 4]}, "outputs: Field required"),
        ({"widths": [3, 4], "outputs": 2, "depth": 7}, "depth: Extra inputs"),
        ([3, 4], "architecture"),
        ({"widths": [3, 10**12], "outputs": 2}, r"layers\.0\.weight is float32 \(4, 3\)"),
    ],
)
def test_another_architecture_is_refused_by_what_differs(folder, architecture, named):
    forge(folder, architecture=architecture)

    with pytest.raises(BundleError, match=named):
        read(folder)


def test_another_familys_model_is_refused(folder):
    with pytest.raises(BundleError, match="family 'toy', 'waveform' is expected"):
        read(folder, "waveform")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "not readable JSON"),
        (b"[1]", "does not name its `family`"),
        (b'{"family": 3}', "does not name its `family`"),
        (b'{"family": "toy"}', "'architecture': `family` and `architecture` are expected"),
        (b'{"family": "toy", "architecture": {}, "code": "x"}', "'code'"),
    ],
)
def test_a_document_that_is_none_is_refused(folder, content, named):
    (folder / weights.DOCUMENT).write_bytes(content)

    with pytest.raises(BundleError, match=named):
        read(folder)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x80\x02}q\x00."])
def test_weights_that_are_none_are_refused(folder, content):
    (folder / weights.WEIGHTS).write_bytes(content)

    with pytest.raises(BundleError, match="no safetensors file"):
        read(folder)


@pytest.mark.parametrize("name", [weights.DOCUMENT, weights.WEIGHTS])
def test_a_file_that_is_not_there_is_named(folder, name):
    (folder / name).unlink()

    with pytest.raises(BundleError, match=f"{name}: it cannot be read"):
        read(folder)


def test_weights_of_another_kind_are_refused(folder):
    path = folder / weights.WEIGHTS
    save_file({**load_file(path), "medians": torch.zeros(3, dtype=torch.float16)}, path)

    with pytest.raises(BundleError, match=r"medians is float16 \(3,\), float32 \(3,\) is expected"):
        read(folder)
