"""The three pictures of a validation, as PNG: ROC, precision-recall, calibration."""

from io import BytesIO
from typing import Any

import numpy as np

from evidence.metrics import Array, auprc, auroc

CALIBRATION_GROUPS = 10


def draw(title: str, y: Array, risk: Array) -> dict[str, bytes]:
    """File name: PNG. `y`, `risk` (n,) of the test patients."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve, roc_curve

    def png(name: str, xlabel: str, ylabel: str, paint: Any) -> bytes:
        figure = Figure(figsize=(5, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        paint(axes)
        axes.set(
            title=f"{title}\n{name}, {len(y)} test patients", xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.02)
        )
        axes.legend(loc="best")
        out = BytesIO()
        figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
        return out.getvalue()

    def roc(axes: Any) -> None:
        fpr, tpr, _ = roc_curve(y, risk)
        axes.plot(fpr, tpr, label=f"AUROC {auroc(y, risk):.3f}")
        axes.plot([0, 1], [0, 1], "--", color="grey", label="chance")

    def precision_recall(axes: Any) -> None:
        precision, recall, _ = precision_recall_curve(y, risk)
        axes.plot(recall, precision, label=f"average precision {auprc(y, risk):.3f}")
        axes.axhline(float(y.mean()), linestyle="--", color="grey", label="prevalence")

    def calibration(axes: Any) -> None:
        groups = np.array_split(np.argsort(risk, kind="stable"), CALIBRATION_GROUPS)
        axes.plot(
            [risk[g].mean() for g in groups if len(g)], [y[g].mean() for g in groups if len(g)], "o-", label="tenths"
        )
        axes.plot([0, 1], [0, 1], "--", color="grey", label="ideal")

    return {
        "roc.png": png("ROC", "1 - specificity", "sensitivity", roc),
        "precision_recall.png": png("Precision-recall", "sensitivity (recall)", "PPV (precision)", precision_recall),
        "calibration.png": png("Calibration", "predicted risk", "observed share", calibration),
    }
