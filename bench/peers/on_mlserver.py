"""MLServer's runtimes, with adaptive batching: one input a column, or all the numbers and all the texts as two."""

import json
import sys
from pathlib import Path

import pandas as pd
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, PandasCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Trees(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        from peer_model import names, trees

        self.numbers, self.categories = names()
        self.risk = trees()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensors = {tensor.name: tensor for tensor in payload.inputs}
        numbers = NumpyCodec.decode_input(tensors["numbers"])
        categories = StringCodec.decode_input(tensors["categories"])
        width = len(self.categories)
        frame = pd.DataFrame(numbers, columns=self.numbers)
        for place, name in enumerate(self.categories):
            frame[name] = categories[place::width]
        return _answer(self.name, self.risk(frame))


class Columns(Trees):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        frame = PandasCodec.decode_request(payload)
        return _answer(self.name, self.risk(frame[[*self.numbers, *self.categories]]))


class Network(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        from peer_model import network

        self.risk = network()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (tensor,) = payload.inputs
        return _answer(self.name, self.risk(NumpyCodec.decode_input(tensor)))


def _answer(name: str, risks: list[float]) -> InferenceResponse:
    from mlserver.types import ResponseOutput

    output = ResponseOutput(name="risk", shape=[len(risks), 1], datatype="FP64", data=risks)
    return InferenceResponse(model_name=name, outputs=[output])


def write_settings(folder: Path, port: int, parallel_workers: int) -> None:
    """The folder that `mlserver start` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    quiet = folder / "logging.conf"
    quiet.write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=console\n[formatters]\nkeys=plain\n"
        "[logger_root]\nlevel=WARNING\nhandlers=console\n"
        "[handler_console]\nclass=StreamHandler\nlevel=WARNING\nformatter=plain\nargs=(sys.stdout,)\n"
        "[formatter_plain]\nformat=%(message)s\n"
    )
    common = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": parallel_workers,
        "debug": False,
        "logging_settings": str(quiet),
    }
    (folder / "settings.json").write_text(json.dumps(common))
    for name, runtime in (("trees", "Trees"), ("columns", "Columns"), ("network", "Network")):
        (folder / name).mkdir(exist_ok=True)
        model = {
            "name": name,
            "implementation": f"on_mlserver.{runtime}",
            "max_batch_size": 64,
            "max_batch_time": 0.005,
        }
        (folder / name / "model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    write_settings(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
