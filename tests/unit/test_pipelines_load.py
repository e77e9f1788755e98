"""What a load test sends is what the file holds."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import SourceError
from configs.spec import Column
from features.columns import check_value
from pipelines.load import _encoded
from pipelines.signals import read

ECG = Column(type="waveform", leads=("I", "II"), sampling_hz=100, samples=50, unit="mV", range=(-9, 9), accepts=("uV",))
SCAN = Column(type="image", channels=3, height=8, width=8, unit="1", range=(0, 1))
DICE = np.random.default_rng(3)
WAVE = DICE.normal(size=(2, 50)).astype(np.float32)
PICTURE = DICE.random((3, 8, 8)).astype(np.float32)
FILE = io.BytesIO()
Image.fromarray((255 * PICTURE.transpose(1, 2, 0)).astype(np.uint8)).save(FILE, "PNG")


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        (ECG, WAVE),
        (ECG, WAVE.astype(float)),
        (ECG, {"value": 1000 * WAVE, "unit": "uV", "sampling_hz": 100}),
        (SCAN, PICTURE),
        (SCAN, PICTURE.transpose(1, 2, 0)),
        (SCAN, PICTURE.ravel()),
        (SCAN, {"png": FILE.getvalue()}),
    ],
)
def test_a_signal_is_sent_as_the_judge_reads_the_file_itself(column, cell):
    (body,) = _encoded([{"signal": cell}], Path("asked.parquet"))

    assert (
        check_value("signal", column, json.loads(body)["signal"]).tobytes()
        == check_value("signal", column, cell).tobytes()
    )


def test_a_file_that_cannot_be_read_ends_a_load_test(tmp_path):
    with pytest.raises(SourceError, match="ecg: its file cannot be read"):
        _encoded([{"ecg": read("ecg", ECG, tmp_path, "gone.npy")}], Path("asked.json"))
