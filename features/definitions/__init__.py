"""Feature functions by clinical topic. A function's parameters name the columns it reads; missing in, missing out."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""Checked values of one column, or one feature: shape (n,), NaN where missing."""
