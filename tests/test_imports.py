"""Who does not use a library does not wait for it."""

import json
import subprocess
import sys

HEAVY = ["jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "tensorboardX"]
HEAVY += ["matplotlib", "cv2", "PIL", "safetensors", "scipy", "tensorflow"]

# One after the other in one process: what runs, and what is loaded then.
STAGES = [
    ("import segjax.cli", []),
    *((f"run({command!r})", []) for command in ("--help", "train --help", "convert --help")),
    *((f"run({command!r})", []) for command in ("evaluate --help", "predict --help")),
    *((f"run({command!r})", []) for command in ("models --help", "models unet segformer_b0")),
    *((f"use(segjax.{package})", ["jax"]) for package in ("losses", "ops", "matching", "metrics")),
    *((f"use(segjax.{package})", ["flax", "jax"]) for package in ("models", "analysis")),
    ("use(segjax.objectives)", ["flax", "jax"]),
    ("use(segjax.inference)", ["cv2", "flax", "jax"]),
    ("use(segjax.pretrained)", ["cv2", "flax", "jax", "safetensors"]),
]
PROGRAM = f"""
import contextlib, io, json, sys

def run(command):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        segjax.cli.main(command.split())

def use(package):
    for name in dir(package):
        getattr(package, name)

for stage in {[stage for stage, _ in STAGES]!r}:
    exec(stage)
    print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))
"""


def test_libraries_are_imported_where_they_are_used():
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    loaded = map(json.loads, ran.stdout.splitlines())
    assert list(zip([stage for stage, _ in STAGES], loaded, strict=True)) == STAGES
