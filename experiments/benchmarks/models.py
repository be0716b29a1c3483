"""Train step and inference of whole models beside torch: eager, channels-last, and compiled.

    pip install -e ".[parity]" && python experiments/benchmarks/models.py

A train step is the forward pass with batch statistics, the gradient of the mean cross-entropy, and
plain gradient descent, in float32. Every form returns its number of parameters: all agree where
the models are the same. "start" is from a new process to the end of its first train step: compiled
afresh, from a persistent cache that has it already, and torch's.

Buffers this large are allocated anew at every run, and the page faults may cost more than the work:
`MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000` before the command spares
both sides most of them.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np
from harness import main

# By model: the shape of its images, and the number of classes.
MODELS = {
    "unet_small": ((4, 256, 256, 3), 21),
    "deeplabv3_resnet50": ((1, 513, 513, 3), 21),
    "lraspp_mobilenet_v3_large": ((1, 512, 512, 3), 21),
    "segformer_b0": ((1, 512, 512, 3), 150),
    "segmenter_small_patch16_linear": ((2, 512, 512, 3), 150),
}
FORMS = ["segjax", "torch", "torch, channels-last", "torch.compile, channels-last"]
STARTS = ["segjax, compiled", "segjax, from its cache", "torch", "torch.compile, channels-last"]
TABLE = {f"{model}, {task}": FORMS for model in MODELS for task in ("train step", "inference")} | {
    f"{model}, start": STARTS for model in MODELS
}


def inputs(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Normal images `[b, h, w, c]` and random labels."""
    shape, classes = MODELS[name]
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape, np.float32), rng.integers(classes, size=shape[:-1])


def our_run(name: str, task: str) -> Callable[[], float]:
    import jax
    import jax.numpy as jnp

    from segjax import losses, models, ops

    options = {"output_stride": 16, "auxiliary": False} if name.startswith("deeplab") else {}
    model = models.create(name, MODELS[name][1], **options)
    images, labels = inputs(name)
    images, labels = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    size = sum(p.size for p in jax.tree.leaves(variables["params"]))

    def train_step(variables, images, labels):
        state = {name: leaf for name, leaf in variables.items() if name != "params"}

        def objective(params):
            output, new_state = model.apply(
                {"params": params, **state},
                images,
                train=True,
                mutable=list(state),
                rngs={"dropout": jax.random.key(0)},
            )
            logits = ops.resize(output.logits, labels.shape[1:])
            return losses.softmax_cross_entropy(logits, labels).mean(), new_state

        gradient, state = jax.grad(objective, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - 0.01 * g, variables["params"], gradient)
        return {"params": params, **state}

    step = jax.jit(train_step, donate_argnums=0)

    @jax.jit
    def infer(variables, images):
        return ops.resize(model.apply(variables, images).logits, images.shape[1:3])

    def run():
        nonlocal variables
        if task == "inference":
            infer(variables, images).block_until_ready()
        else:
            variables = jax.block_until_ready(step(variables, images, labels))
        return size

    return run


def their_run(name: str, task: str, form: str) -> Callable[[], float]:
    import torch

    layout = torch.channels_last if form.endswith("last") else torch.contiguous_format
    model = their_model(name).to(memory_format=layout)
    size = sum(p.numel() for p in model.parameters())
    images, labels = inputs(name)
    images = torch.tensor(images.transpose(0, 3, 1, 2)).contiguous(memory_format=layout)
    labels = torch.tensor(labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train(task != "inference")
    if name.startswith("deeplab"):  # torch refuses statistics of the one pooled pixel
        model.head[0].convs[-1][2].eval()
    apply = torch.compile(model) if "compile" in form else model

    def run():
        if task == "inference":
            with torch.inference_mode():
                apply(images)
            return size
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(apply(images), labels).backward()
        optimizer.step()
        return size

    return run


def their_model(name: str):
    """The peer's module, from images to logits of the images' size."""
    from torch import nn

    classes = MODELS[name][1]

    class Upsampled(nn.Module):
        """Features of `backbone`, logits of `head`, interpolated."""

        def __init__(self, backbone, head):
            super().__init__()
            self.backbone, self.head = backbone, head

        def forward(self, x):
            logits = self.head(self.backbone(x))
            return nn.functional.interpolate(logits, x.shape[2:], mode="bilinear")

    def resnet(features):
        from torchvision.models import resnet50

        layers = list(resnet50(replace_stride_with_dilation=[False, False, True]).children())
        return nn.Sequential(*layers[:-2])

    if name == "unet_small":
        return _unet(classes)
    if name == "deeplabv3_resnet50":
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead

        return Upsampled(resnet(2048), DeepLabHead(2048, classes))
    if name == "lraspp_mobilenet_v3_large":
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large

        class LRASPP(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=classes)

            def forward(self, x):
                return self.model(x)["out"]

        return LRASPP()
    if name == "segformer_b0":
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        segformer = SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes))

        class Logits(nn.Module):
            def forward(self, output):
                return output.logits

        return Upsampled(segformer, Logits())
    import timm

    vit = timm.create_model("vit_small_patch16_224", img_size=512, num_classes=0)

    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(384, classes)

        def forward(self, tokens):
            logits = self.head(tokens[:, 1:]).transpose(1, 2)
            return logits.unflatten(2, (32, 32))

    vit.forward = vit.forward_features
    return Upsampled(vit, Patches())


def _unet(classes: int):
    """`unet_small` in torch."""
    import torch
    from torch import nn

    def convs(before, after):
        layers = []
        for channels in (before, after):
            conv = nn.Conv2d(channels, after, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self, widths=(32, 64, 128, 256, 512)):
            super().__init__()
            pairs = list(itertools.pairwise(widths))
            self.encoder = nn.ModuleList([convs(3, widths[0]), *[convs(*p) for p in pairs]])
            self.up = nn.ModuleList([nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairs])
            self.decoder = nn.ModuleList([convs(2 * a, a) for a, _ in pairs])
            self.logits = nn.Conv2d(widths[0], classes, 1)

        def forward(self, x):
            skips = []
            for level, block in enumerate(self.encoder):
                x = block(nn.functional.max_pool2d(x, 2) if level else x)
                skips.append(x)
            for level in reversed(range(len(self.up))):
                x = self.decoder[level](torch.cat([skips[level], self.up[level](x)], 1))
            return self.logits(x)

    return UNet()


def start(name: str, form: str) -> Callable[[], float]:
    """A new process that does one train step."""
    code = f"import models; print(models.make_run({name!r} + ', train step', {form!r})())"
    cache = tempfile.TemporaryDirectory()
    settings = {}
    if "cache" in form:
        settings = {"JAX_COMPILATION_CACHE_DIR": cache.name}

    def run():
        command = [sys.executable, "-c", code]
        folder = os.path.dirname(os.path.abspath(__file__))
        done = subprocess.run(
            command, cwd=folder, env=os.environ | settings, stdout=subprocess.PIPE, check=True
        )
        return float(done.stdout), cache.name

    return lambda: run()[0]


def make_run(task: str, form: str) -> Callable[[], float]:
    name, kind = task.split(", ")
    if kind == "start":
        return start(name, form)
    return our_run(name, kind) if form.startswith("segjax") else their_run(name, kind, form)


if __name__ == "__main__":
    main(__doc__, TABLE, make_run)
