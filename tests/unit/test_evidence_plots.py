"""The three pictures are pictures."""

from io import BytesIO

import numpy as np
import pytest

from evidence.plots import draw


def patients(n):
    dice = np.random.default_rng(0)
    risk = dice.random(n)
    return (dice.random(n) < risk).astype(float), risk


@pytest.mark.parametrize("n", [200, 7])
def test_three_pngs_that_can_be_read(n):
    from matplotlib import image

    pictures = draw("Angina", *patients(n))

    assert sorted(pictures) == ["calibration.png", "precision_recall.png", "roc.png"]
    for content in pictures.values():
        pixels = image.imread(BytesIO(content), format="png")
        assert pixels.shape[:2] == (550, 550)
        assert pixels[..., :3].std() > 0.05


def test_the_same_patients_give_the_same_bytes():
    assert draw("Angina", *patients(200)) == draw("Angina", *patients(200))
