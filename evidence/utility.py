"""What acting on a threshold does: who is alerted, who is missed, and whether it beats alerting everybody."""

from dataclasses import dataclass

import numpy as np

from evidence.metrics import Array


@dataclass(frozen=True)
class Utility:
    """Figures at one threshold; None where nothing stands below the line. Net benefit is a share of all patients."""

    sensitivity: float | None
    specificity: float | None
    ppv: float | None
    npv: float | None
    alerts_per_100: float
    net_benefit: float
    net_benefit_treat_all: float


def utility(y: Array, risk: Array, threshold: float) -> Utility:
    """The figures of alerting at `risk >= threshold`; y, risk (n,).

    Net benefit: Vickers AJ, Elkin EB. Decision curve analysis. Med Decis Making 2006;26:565-574.
    """
    alert = risk >= threshold
    n = len(y)
    true_positive, false_positive = float(y[alert].sum()), float((1 - y[alert]).sum())
    events = float(y.sum())
    odds = threshold / (1 - threshold) if threshold < 1 else np.inf

    def net_benefit(found: float, false_alarms: float) -> float:
        return (found - (false_alarms * odds if false_alarms else 0)) / n

    return Utility(
        sensitivity=_share(true_positive, events),
        specificity=_share(n - events - false_positive, n - events),
        ppv=_share(true_positive, true_positive + false_positive),
        npv=_share(n - events - false_positive, n - true_positive - false_positive),
        alerts_per_100=100 * float(alert.mean()),
        net_benefit=net_benefit(true_positive, false_positive),
        net_benefit_treat_all=net_benefit(events, n - events),
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
