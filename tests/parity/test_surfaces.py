"""Distances between the rims of masks are MONAI's, which are float32."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from segjax import metrics

SCRIPT = Path(__file__).parent / "golden" / "monai_surfaces.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch", "monai")


@pytest.mark.parametrize("case", PEER["CASES"])
def test_surfaces(golden, case):
    name, options = PEER["CASES"][case]
    values = getattr(metrics, name)(golden["predictions"], golden["targets"], **options)
    np.testing.assert_allclose(values, golden[case], rtol=1e-6)


@pytest.mark.parametrize("case", PEER["VOLUME_CASES"])
def test_surfaces_of_volumes(golden, case):
    name, options = PEER["VOLUME_CASES"][case]
    values = getattr(metrics, name)(*golden["volumes"], **options)
    np.testing.assert_allclose(values, golden[case], rtol=1e-6)
