"""The model behind `mlflow models serve`, as models from code: `python on_mlflow.py FOLDER` saves it."""

import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel


class Both(PythonModel):  # type: ignore[misc]
    """The trees, or the network where the categories came as numbers."""

    def load_context(self, context: Any) -> None:  # noqa: ARG002  # MLflow's own signature
        from peer_model import names, network, trees

        numbers, categories = names()
        self.columns, self.first_category = [*numbers, *categories], categories[0]
        self.trees, self.network = trees(), network()

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        frame: pd.DataFrame = model_input.reindex(columns=self.columns)
        if frame[self.first_category].dtype.kind in "if":
            return self.network(frame.to_numpy(np.float32))
        return self.trees(frame)


mlflow.models.set_model(Both())

if __name__ == "__main__":
    path = Path(sys.argv[1])
    mlflow.pyfunc.save_model(path, python_model=str(Path(__file__).resolve()), pip_requirements=["mlflow"])
