"""Feature functions by clinical topic. A function's parameters name the columns it reads; missing in, missing out.

A parameter may also name one of the Spec's `references`, a constant table; a function that reads a waveform `ecg` may
ask for the contract's `ecg_leads`, their names, and `ecg_sampling_hz`. A function that gives several features at once
returns (n, k), and its module's `PARTS` says their names, from the references.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""Checked values of one column, or one feature: shape (n,), NaN where missing."""
Profile = NDArray[np.float64]
"""Checked values of one array column, or features made together: shape (n, k); a missing array is NaN throughout."""
Reference = Mapping[str, NDArray[Any]]
"""A constant table: its columns by name, float64 or texts."""
