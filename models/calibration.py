"""From a model's log-odds to a risk that means what it says (Platt scaling, on out-of-fold predictions).

Source: Platt J. Probabilistic outputs for support vector machines. Advances in Large Margin Classifiers, 1999.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.errors import TrainingError


@dataclass(frozen=True)
class Calibration:
    slope: float
    intercept: float

    def risk(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities, (n,) in and out."""
        return 1 / (1 + np.exp(-np.clip(self.slope * log_odds + self.intercept, -700, 700)))


def calibrate(log_odds: NDArray[np.float64], y: NDArray[np.float64]) -> Calibration:
    """The slope and intercept that make out-of-fold `log_odds` (n,) fit the outcomes `y` (n,).

    Raises TrainingError if higher log-odds do not go with more events: such a model has learned nothing.
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(log_odds[:, None], y)
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:
        raise TrainingError(
            f"calibration slope {slope:.3f}: on patients held out of the fit, a higher risk does not go with more "
            "events. The features say nothing about this outcome, or `outcome.positive` is the wrong way round."
        )
    return Calibration(slope, intercept)
