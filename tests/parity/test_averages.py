"""Averages of IoU and Dice are those of torchmetrics and MONAI, which are float32."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from segjax.metrics import confusion_matrix, dice_score, mean_iou

SCRIPT = Path(__file__).parent / "golden" / "torchmetrics_averages.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch", "torchmetrics", "monai")


@pytest.mark.parametrize("average", [*PEER["AVERAGES"], "generalized"])
def test_average(golden, average):
    matrix = confusion_matrix(golden["predictions"], golden["labels"], PEER["CLASSES"])
    dice = dice_score(matrix, average=average)
    np.testing.assert_allclose(dice, golden[f"dice_{average}"], rtol=1e-6)
    if average != "generalized":
        np.testing.assert_allclose(
            mean_iou(matrix, average=average), golden[f"iou_{average}"], rtol=1e-6
        )
