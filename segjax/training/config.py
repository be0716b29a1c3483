"""The configuration of a training run: one frozen dataclass, which is also its command line."""

import dataclasses
import pathlib
import typing
from typing import Any, Literal

from segjax.data import Augmentation
from segjax.tasks import SemanticLoss, SetLoss
from segjax.training.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Trains a segmentation model; the same command goes on where it was stopped.

    Attributes:
      run: the folder that gets the checkpoints, the logs and the configuration.
      task: what is learnt: a class for each pixel, objects, or both at once as segments.
      data: where examples come from: "synthetic", "folder:PATH", "coco:PATH", "coco_panoptic:PATH"
        or "tfds:NAME".
      train_split: split to train on.
      eval_split: split to evaluate on.
      void: label to ignore; None leaves it to the data.
      model: its name; `segjax models` lists them.
      model_options: attributes of its module, e.g. `norm group`.
      weights: published weights to start from, a file or a repository of the Hugging Face hub (see
        `segjax.pretrained.load`); None draws them.
      size: (height, width) of the crops that training sees, in pixels after `scale`.
      scale: images are resized by this factor before the model, predictions back after it.
      steps: of training.
      batch_size: examples a step, over all devices and hosts.
      loss: weights of the objective's terms for the semantic task.
      set_loss: weights of those for instances and panoptic segments.
      nms_threshold: for the instance task: the IoU above which a surer object suppresses another;
        None keeps all.
      score_threshold: for the panoptic task: what a segment's class probability must exceed, in
        evaluation and prediction. A model that has not learnt for long is less sure.
      overlap_threshold: likewise, the share of its mask that a segment must win.
      optimizer: the optimizer and its schedule.
      augmentation: random changes of the training images, on the device.
      accumulate: in how many parts, one after the other, a batch goes through the model.
      average_decay: of the moving average of the weights that is evaluated; 0 keeps none.
      dtype: of the model's computation; parameters are float32.
      parallel: data parallelism by pmap, or jit over a mesh.
      fsdp: with mesh: over how many devices each parameter is sharded.
      distributed: one process of several; all run the same command (a pod, or a cluster JAX knows).
      coordinator: HOST:PORT of process 0, where JAX cannot find it by itself.
      num_processes: likewise, of all.
      process_id: likewise, of this one.
      eval_every: steps between evaluations; there is one at the end too.
      eval_batch_size: examples an evaluation step, over all devices and hosts.
      save_every: steps between checkpoints.
      log_every: steps between rows of the log.
      workers: processes that read images; 0 reads in threads of this one.
      threads: that read images.
      seed: of everything random.
    """

    run: pathlib.Path = pathlib.Path("runs/semantic")
    task: Literal["semantic", "instance", "panoptic"] = "semantic"
    data: str = "synthetic"
    train_split: str = "train"
    eval_split: str = "val"
    void: int | None = None
    model: str = "unet_patch2"
    model_options: dict[str, str] = dataclasses.field(default_factory=dict)
    weights: str | None = None
    size: tuple[int, int] = (128, 128)
    scale: float = 1.0
    steps: int = 1000
    batch_size: int = 16
    loss: SemanticLoss = SemanticLoss()
    set_loss: SetLoss = SetLoss()
    nms_threshold: float | None = None
    score_threshold: float = 0.8
    overlap_threshold: float = 0.8
    optimizer: OptimizerConfig = OptimizerConfig()
    augmentation: Augmentation = Augmentation(zoom=(0.75, 1.5))
    accumulate: int = 1
    average_decay: float = 0.99
    dtype: Literal["float32", "bfloat16"] = "float32"
    parallel: Literal["pmap", "mesh"] = "pmap"
    fsdp: int = 1
    distributed: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    eval_every: int = 500
    eval_batch_size: int = 8
    save_every: int = 500
    log_every: int = 10
    workers: int = 0
    threads: int = 4
    seed: int = 0


# What may differ when a run goes on: where and how it runs, not what it computes.
FREE = {
    "run",
    "parallel",
    "fsdp",
    "distributed",
    "coordinator",
    "num_processes",
    "process_id",
    "eval_batch_size",
    "save_every",
    "log_every",
    "workers",
    "threads",
}


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as what JSON can hold."""

    def plain(value):
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, pathlib.Path):
            return str(value)
        return list(value) if isinstance(value, tuple) else value

    return plain(config)


def from_dict(kind: type, values: dict[str, Any]) -> Any:
    """The dataclass `kind` that `to_dict` gave `values` of."""
    hints = typing.get_type_hints(kind)

    def read(hint, value):
        if dataclasses.is_dataclass(hint):
            return from_dict(hint, value)
        if hint is pathlib.Path:
            return pathlib.Path(value)
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: read(hints[name], value) for name, value in values.items()})
