"""A small residual network over a picture, joined at its head by the plan's plain numbers.

For some hundred to some thousand patients: 80,000 weights, one picture a patient, of any number of channels. The
picture's own scales and the numbers' are learned in training and travel with the weights. A number that is missing
counts as average and raises a flag of its own; so does a whole picture. In training a picture is mirrored from left to
right, moved by some pixels and made lighter or darker: an illness that one side of the body tells must not be learned
with this family.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from configs.errors import BundleError, TrainingError
from features.build import Plan, Signal
from models import device, learner, weights
from models.encoding import Encoding, encoding
from models.family import Choice, Range, Task

BLOCK = 1
"""Rows that are computed at a time (models/device.py says why one by one)."""
WIDTH = 16
"""Channels of the first stage; each later one has twice as many and half as many rows and columns."""
STAGES = 3
GROUPS = 8
"""Of channels that are normalised together, in each picture by itself, so that no picture depends on its batch."""
HEAD = 64
DROPOUT = 0.2
EPOCHS, PATIENCE, BATCH, LEARNING_RATE, WEIGHT_DECAY = 24, 6, 32, 2e-3, 0.02
MOST_PLAIN = 10.0
"""Standard deviations that a plain number counts as at most, so that one out of reach does not drown the picture."""
MOVED = 1 / 16
"""Share of its height and width that a picture is moved by at most."""
LIGHTER = 0.1
"""Standard deviation of the factor and of the summand, in the pictures' own standard deviations."""
NETWORK = True
SPACE: Mapping[str, Range | Choice] = {
    "learning_rate": Range(3e-4, 5e-3, log=True),
    "weight_decay": Range(1e-3, 0.3, log=True),
    "width": Choice((8, 16, 24)),
    "dropout": Range(0.0, 0.5),
}


class Architecture(BaseModel):
    """What the network is rebuilt from: the picture's channels, how many plain columns join it, and what comes out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    channels: Annotated[int, Field(ge=1, le=64)]
    plain: Annotated[int, Field(ge=0, le=10_000)]
    outputs: Annotated[int, Field(ge=1, le=1_000)]
    width: Annotated[int, Field(ge=GROUPS, le=256, multiple_of=GROUPS)]


class Residual(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(GROUPS, width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(GROUPS, width)
        same = stride == 1 and channels == width
        self.around = nn.Identity() if same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, picture: Tensor) -> Tensor:
        found = self.second_norm(self.second(silu(self.first_norm(self.first(picture)))))
        return silu(found + self.around(picture))


class Network(nn.Module):
    """Pictures (n, C, H, W) and plain columns (n, k), NaN where missing, to logits (n, outputs)."""

    picture_mean: Tensor
    picture_sd: Tensor
    plain_mean: Tensor
    plain_sd: Tensor

    def __init__(self, architecture: Architecture, dropout: float = 0.0) -> None:
        super().__init__()
        width, plain = architecture.width, architecture.plain
        for name, size in (("picture", architecture.channels), ("plain", plain)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_sd", torch.ones(size))
        self.stem = nn.Conv2d(architecture.channels, width, 5, 2, 2)
        self.stem_norm = nn.GroupNorm(GROUPS, width)
        widths = [width * 2**stage for stage in range(STAGES)]
        self.stages = nn.Sequential(
            *(
                Residual(before, after, 1 if before == after else 2)
                for before, after in zip([width, *widths], widths, strict=False)
            )
        )
        self.joined = nn.Linear(2 * widths[-1] + 1 + 2 * plain, HEAD)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(HEAD, architecture.outputs)

    @property
    def last(self) -> tuple[Tensor, Tensor]:
        """The weights (outputs, HEAD) and intercepts (outputs,) that its logits come from."""
        return self.out.weight, self.out.bias

    def forward(self, picture: Tensor, plain: Tensor) -> Tensor:
        return self.head(self.seen(picture), picture, plain)

    def seen(self, picture: Tensor) -> Tensor:
        """What the last stage sees where, (n, K, h, w); of a missing picture what an average one shows."""
        scaled = (picture - self.picture_mean[:, None, None]) / self.picture_sd[:, None, None]
        found: Tensor = self.stages(silu(self.stem_norm(self.stem(scaled.nan_to_num()))))
        return found

    def head(self, seen: Tensor, picture: Tensor, plain: Tensor) -> Tensor:
        """The logits, from what was seen: on average, and most of all."""
        gone = torch.isnan(picture[:, :1, 0, 0])
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1) * ~gone
        scaled = ((plain - self.plain_mean) / self.plain_sd).clamp(-MOST_PLAIN, MOST_PLAIN).nan_to_num()
        joined = torch.cat([pooled, gone.float(), scaled, torch.isnan(plain).float()], 1)
        found: Tensor = self.out(self.dropout(silu(self.joined(joined))))
        return found

    def learn_scales(self, picture: Tensor, plain: Tensor) -> None:
        """Take the mean and the standard deviation of each channel, and of each plain column, from these rows."""
        channels = picture.permute(1, 0, 2, 3).flatten(1)
        for name, columns in (("picture", channels), ("plain", plain.T)):
            for place, values in enumerate(columns):
                present = values[~values.isnan()].double()
                if len(present):  # a column without any value is 0 throughout, and learns nothing
                    getattr(self, f"{name}_mean")[place] = present.mean()
                    getattr(self, f"{name}_sd")[place] = present.std(correction=0) or 1.0


@dataclass(frozen=True)
class Fitted:
    """A network that has learned, and where in X it finds its picture and its plain columns."""

    architecture: Architecture
    network: Network
    signal: Signal
    plain: Encoding

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        logits = device.run(self.network, self.parts(X), BLOCK)
        return logits[:, 0] if self.architecture.outputs == 1 else logits

    def export(self, folder: Path) -> None:
        weights.save(folder, "image", self.architecture, self.network)

    def gradcam(self, X: NDArray[np.float32], output: int = 0) -> NDArray[np.float32]:
        """Where each row's picture raises the log-odds, (n, height, width): 1 where it does most, 0 where it does not.

        `output`: of several classes which one's log-probability. 0 throughout where the picture is missing, or raises
        it nowhere. It is as coarse as the last stage, an eighth of the picture's rows and columns, and says what the
        network looked at, not what is ill.
        Source: Grad-CAM, Selvaraju RR et al. ICCV 2017, doi:10.1109/ICCV.2017.74, with the gradient of each place
        instead of their mean (HiResCAM, Draelos RL, Carin L. arXiv:2011.08891; from memory, not looked up): the head
        looks at the most of each channel as well as at its mean, and a mean gradient points elsewhere.
        """
        picture, plain = (torch.from_numpy(part) for part in self.parts(X))
        with device.one_thread():  # and row by row, as in log_odds: a map does not depend on who is beside it
            maps = [self._cam(picture[[row]], plain[[row]], output) for row in range(len(X))]
        return np.concatenate([np.zeros((0, *picture.shape[2:]), np.float32), *maps])

    def _cam(self, picture: Tensor, plain: Tensor, output: int) -> NDArray[np.float32]:
        with torch.enable_grad():
            seen = self.network.seen(picture).detach().requires_grad_(True)
            logits = self.network.head(seen, picture, plain)
            said = logits[:, 0] if logits.shape[1] == 1 else logits.log_softmax(1)[:, output]
            (gradient,) = torch.autograd.grad(said.sum(), seen)
        raises = (gradient * seen.detach()).sum(1, keepdim=True).clamp(min=0)
        wide = interpolate(raises, size=picture.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        most = wide.amax((1, 2), keepdim=True)
        return np.asarray(torch.where(most > 0, wide / most, 0.0).numpy())

    def parts(self, X: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the network reads of X (n, d)."""
        return np.ascontiguousarray(self.signal.of(X)), self.plain.apply(X)


def fit(X: NDArray[np.float32], y: NDArray[np.float64], task: Task) -> Fitted:
    """Learn from the picture and the plain numbers of X (n, d), NaN where missing, and y (n,).

    One patient in six is held out to stop by. Raises TrainingError where the features name no picture, or two.
    """
    signal, plain = _inputs(task.plan)
    X, y, task = learner.in_order(X, y, task)
    own = {"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "width": WIDTH, "dropout": DROPOUT}
    chosen = {**own, **task.parameters}
    architecture = Architecture(
        channels=signal.column.shape[0],
        plain=plain.width,
        outputs=1 if task.classes == 2 else task.classes,
        width=int(chosen["width"]),
    )
    habits = learner.Habits(
        EPOCHS, PATIENCE, BATCH, float(chosen["learning_rate"]), float(chosen["weight_decay"]), altered
    )
    with learner.seeded(task.seed):
        network = Network(architecture, float(chosen["dropout"]))
    fitted = Fitted(architecture, network, signal, plain)
    picture, columns = (torch.from_numpy(part) for part in fitted.parts(X))
    hold = learner.hold_out(y, task.groups, task.seed)
    network.learn_scales(picture[~hold], columns[~hold])
    learner.learn(network, (picture, columns), torch.from_numpy(y), task, habits, hold=torch.from_numpy(hold))
    return fitted


def load(folder: Path, plan: Plan) -> Fitted:
    """The model that `export` wrote. Raises BundleError if it is none, or reads other inputs than the plan's."""
    architecture, network = weights.load(folder, "image", Architecture, Network)
    try:
        signal, plain = _inputs(plan)
    except TrainingError as exc:
        raise BundleError(f"{weights.DOCUMENT}: {exc}") from exc
    found, wanted = (architecture.channels, architecture.plain), (signal.column.shape[0], plain.width)
    if found != wanted:
        raise BundleError(
            f"{weights.DOCUMENT}: reads a picture of {found[0]} channels and {found[1]} plain columns; the spec's "
            f"features are {wanted[0]} and {wanted[1]}."
        )
    return Fitted(architecture, network, signal, plain)


def _inputs(plan: Plan) -> tuple[Signal, Encoding]:
    """The one picture among the features, and how the plain ones are laid out."""
    pictures = [signal for signal in plan.signals if signal.column.type == "image"]
    if len(pictures) != 1:
        names = ", ".join(signal.name for signal in pictures) or "none"
        raise TrainingError(
            f"image reads one picture; the `features` name {len(pictures)} columns of images ({names})."
        )
    return pictures[0], encoding(plan.features)


def altered(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A batch whose pictures are mirrored, moved and made lighter or darker, each by its own chance.

    What a picture is moved by is filled with its own rim, repeated.
    """
    picture, plain = parts
    n, _, height, width = picture.shape
    where = picture.device
    mirrored = torch.rand(n, 1, 1, 1, device=where) < 0.5
    picture = torch.where(mirrored, picture.flip(3), picture)
    moved = []
    for size in (height, width):
        most = round(size * MOVED)
        by = torch.randint(-most, most + 1, (n, 1), device=where)
        moved.append((torch.arange(size, device=where) + by).clamp(0, size - 1))
    rows, columns = moved
    picture = picture[torch.arange(n, device=where)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )
    spread = picture.std((1, 2, 3), keepdim=True, correction=0)
    middle = picture.mean((1, 2, 3), keepdim=True)
    factor, more = LIGHTER * torch.randn(2, n, 1, 1, 1, device=where)
    return (picture - middle) * (1 + factor) + middle + more * spread, plain
