"""Which of several classes is said of a patient: the one whose expected cost is lowest, not simply the likeliest.

Source: Elkan C. The foundations of cost-sensitive learning. IJCAI 2001.
"""

import numpy as np
from numpy.typing import NDArray

from configs.spec import Outcome


def costs(outcome: Outcome) -> NDArray[np.float64] | None:
    """What it costs to say the class of the column of a patient of the class of the row, (K, K); 0 where it is right.

    None where the spec names no costs: then every wrong class costs the same.
    """
    if outcome.classes is None or outcome.costs is None:
        return None
    return np.array([[outcome.costs[true].get(said, 0.0) for said in outcome.classes] for true in outcome.classes])


def said(risks: NDArray[np.float64], costs: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """The place (n,) of the class of least expected cost, from the `risks` of the classes (n, K); of equals the first.

    Without costs it is the likeliest.
    """
    if costs is None:
        likeliest: NDArray[np.int64] = risks.argmax(axis=1)
        return likeliest
    expected = np.zeros_like(risks)
    for true in range(len(costs)):  # one after the other: a row's bits do not hang on how many rows there are
        expected += risks[:, [true]] * costs[true]
    cheapest: NDArray[np.int64] = expected.argmin(axis=1)
    return cheapest
