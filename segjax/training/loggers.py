"""Logs beside `metrics.jsonl`, as callbacks: TensorBoard, Weights & Biases, MLflow."""

import importlib
import importlib.util
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from segjax.data import Classes
from segjax.training.callbacks import Callback
from segjax.training.config import TrainConfig, to_dict

_PICTURES = ("curves.png", "predictions.png")


class TensorBoard(Callback):
    """Scalars in the run's folder `tensorboard/`."""

    def on_start(self, config: TrainConfig, classes: Classes, step: int) -> None:
        writer = importlib.import_module("tensorboardX").SummaryWriter
        self._writer = writer(str(config.run / "tensorboard"), purge_step=step + 1)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.on_metrics(step, _of_evaluation(metrics))

    def close(self) -> None:
        self._writer.close()


class Wandb(Callback):
    """A run of Weights & Biases, which a training that resumes continues.

    The project is segjax, unless `WANDB_PROJECT` says otherwise; `WANDB_MODE=offline` writes to the
    run's folder alone.
    """

    def on_start(self, config: TrainConfig, classes: Classes, step: int) -> None:
        wandb = importlib.import_module("wandb")
        self._picture, self._folder, self._code = wandb.Image, config.run, 1
        id_file = config.run / "wandb.id"
        self._run = wandb.init(
            project=wandb.Settings().project or "segjax",
            name=config.run.name,
            dir=str(config.run),
            config=to_dict(config) | {"classes": list(classes.names)},
            id=_read(id_file),
            resume="allow",
        )
        id_file.write_text(self._run.id)
        # A row may come again where the training resumes; W&B's own steps only rise.
        self._run.define_metric("*", step_metric="step")

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.on_metrics(step, _of_evaluation(metrics))

    def on_end(self, metrics: Mapping[str, float]) -> None:
        self._run.log({p: self._picture(str(self._folder / p)) for p in _PICTURES})
        self._code = 0

    def close(self) -> None:
        self._run.finish(exit_code=self._code)


class Mlflow(Callback):
    """A run of MLflow, which a training that resumes continues.

    `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME` say where.
    """

    def on_start(self, config: TrainConfig, classes: Classes, step: int) -> None:
        self._mlflow = importlib.import_module("mlflow")
        self._folder, self._status = config.run, "KILLED"
        id_file = config.run / "mlflow.id"
        run_id = _read(id_file)
        run = self._mlflow.start_run(run_id=run_id, run_name=config.run.name)
        id_file.write_text(run.info.run_id)
        if run_id is None:
            self._mlflow.log_params(_flat(to_dict(config)))

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        # Names of classes may have what MLflow's names must not.
        named = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in metrics.items()}
        self._mlflow.log_metrics(named, step=step)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.on_metrics(step, _of_evaluation(metrics))

    def on_end(self, metrics: Mapping[str, float]) -> None:
        for picture in _PICTURES:
            self._mlflow.log_artifact(str(self._folder / picture))
        self._status = "FINISHED"

    def close(self) -> None:
        self._mlflow.end_run(self._status)


LOGGERS: dict[str, type[Callback]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
}


def check_loggers(config: TrainConfig) -> None:
    """Finds loggers whose package is not there.

    Args:
      config: of a run that is about to start.

    Raises:
      ImportError: for such a logger; it names the extra to install.
    """
    for name in config.loggers:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise ImportError(
                f"loggers: {name} is not installed; it comes with pip install 'segjax[{name}]'"
            )


def _of_evaluation(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"val/{name}": value for name, value in metrics.items()}


def _read(file: pathlib.Path) -> str | None:
    return file.read_text() if file.exists() else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat
