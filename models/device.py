"""Where a network is computed, and how: the only place that runs one.

On the CPU a batch and its rows one by one agree to the bit. A network alone does not give that: its matrix product
takes another path for one row than for sixty-four. So it always sees the same number of rows, a block; the last one is
filled up. Measured on a Xeon with AVX-512 and torch 2.13, over an MLP, an ensemble of 16 in the manner of TabM, residual
1-D networks of 3 x 500 and 12 x 1,000 and a residual 2-D one of 3 x 48 x 48, 64 rows each sent 1, 2, 7 and 13 at a time:

| rows a block | 1 | 2 | 4 | 8 | 16 | 32 |
|---|---|---|---|---|---|---|
| rows whose bits depend on their batch, of 64 | 0 | 10-26 | 0 | 0 | 0 | 0 |
| other bits with 2 threads than with 1 | conv | none | none | none | none | none |
| ms a row, MLP | 0.040 | 0.020 | 0.010 | 0.007 | 0.003 | 0.003 |
| ms a row, 12 x 1,000 | 1.63 | 1.56 | 1.01 | 0.68 | 0.69 | 0.68 |

Neither the place in a block, nor the neighbours, nor where the numbers lie in memory changed a bit at 4 and more. A
block of 1 has other bits than the others, so a family's block is part of what it is: 32 for tables, 8 for signals and
images.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

FULL = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def run(module: "nn.Module", parts: "Sequence[Tensor | NDArray[np.float32]]", block: int) -> NDArray[np.float64]:
    """What the network says of each row of `parts`, each (n, …) float32: its output (n, …), as float64.

    It is computed `block` rows at a time, with one thread: a row's bits do not depend on who is beside it.
    """
    import torch

    tensors = [torch.as_tensor(part) for part in parts]
    n = len(tensors[0])
    module.eval()
    found: list[NDArray[Any]] = []
    with torch.inference_mode(), one_thread():
        for start in range(0, max(n, 1), block):
            rows = min(block, n - start)
            # A tensor of its own even where the block is whole: how a caller's slice is aligned is chance.
            filled = [tensor.new_zeros((block, *tensor.shape[1:])) for tensor in tensors]
            for whole, tensor in zip(filled, tensors, strict=True):
                whole[:rows] = tensor[start : start + rows]
            found.append(module(*filled)[:rows].numpy().astype(np.float64))
    return np.concatenate(found)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for each operation, which no other process on the machine is then in the way of."""
    import torch

    threads = torch.get_num_threads()
    if threads == 1:  # as in the server, where several networks are computed at a time: nothing is set there
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether a device's memory, or the host's, was full."""
    import torch

    return isinstance(exc, torch.OutOfMemoryError) or (
        isinstance(exc, RuntimeError) and any(word in str(exc) for word in FULL)
    )
