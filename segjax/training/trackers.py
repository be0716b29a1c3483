"""Callbacks that log metrics to TensorBoard, Weights & Biases or MLflow."""

import importlib.util
import os
import pathlib
import re
import time
from collections.abc import Mapping

from segjax.data import Classes
from segjax.files import name_os_errors, write_file
from segjax.training.callbacks import Callback
from segjax.training.config import TrainConfig, to_dict, to_flat_dict

_PICTURES = ("curves.png", "predictions.png")


class TensorBoard(Callback):
    """Logs metrics to TensorBoard files in the folder `tensorboard/` of the run."""

    def on_start(self, config: TrainConfig, classes: Classes, step: int) -> None:
        # Not SummaryWriter: on a full disk its thread ends with a traceback, and then it blocks.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._folder = config.run / "tensorboard"
        self._folder.mkdir(parents=True, exist_ok=True)
        with name_os_errors(self._folder):
            self._writer = EventsWriter(str(self._folder / "events"))
            # TensorBoard hides what an earlier process has written of later steps.
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with name_os_errors(self._folder):
            for name, value in metrics.items():
                summary = scalar(name, value)
                self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._writer.flush()

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.on_metrics(step, _prefix_names(metrics))

    def close(self) -> None:
        with name_os_errors(self._folder):
            self._writer.close()


class Wandb(Callback):
    """Logs metrics to a run of Weights & Biases, which continues when the training resumes.

    The project is "segjax" or `WANDB_PROJECT`. With `WANDB_MODE=offline`, everything is written to
    the folder of the run.
    """

    def on_start(self, config: TrainConfig, classes: Classes, step: int) -> None:
        import wandb

        self._picture, self._folder, self._exit_code = wandb.Image, config.run, 1
        file = config.run / "wandb.id"
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "segjax"),
                name=config.run.name,
                dir=str(config.run),
                config=to_dict(config) | {"classes": list(classes.names)},
                id=_read(file),
                resume="allow",
            )
        except wandb.Error as error:  # for example if nobody is logged in
            raise ValueError(f"trackers: wandb: {error}") from error
        write_file(file, self._run.id)
        # With its own step counter, W&B would drop rows that a resumed run repeats.
        self._run.define_metric("*", step_metric="step")

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.on_metrics(step, _prefix_names(metrics))

    def on_end(self, metrics: Mapping[str, float]) -> None:
        self._run.log({name: self._picture(str(self._folder / name)) for name in _PICTURES})
        self._exit_code = 0

    def close(self) -> None:
        self._run.finish(exit_code=self._exit_code)


class Mlflow(Callback):
    """Logs metrics to a run of MLflow, which continues when the training resumes.

    `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME` choose the server and the experiment.
    """

    def on_start(self, config: TrainConfig, classes: Classes, step: int) -> None:
        import mlflow

        self._mlflow, self._folder, self._status = mlflow, config.run, "KILLED"
        file = config.run / "mlflow.id"
        before = _read(file)
        try:
            run = mlflow.start_run(run_id=before, run_name=config.run.name)
        except mlflow.MlflowException as error:  # for example if the run was deleted
            raise ValueError(f"trackers: mlflow: {error}") from error
        write_file(file, run.info.run_id)
        if before is None:
            mlflow.log_params(to_flat_dict(config))

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        # Names of classes may contain characters that MLflow does not allow.
        named = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in metrics.items()}
        self._mlflow.log_metrics(named, step=step)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.on_metrics(step, _prefix_names(metrics))

    def on_end(self, metrics: Mapping[str, float]) -> None:
        for name in _PICTURES:
            self._mlflow.log_artifact(str(self._folder / name))
        self._status = "FINISHED"

    def close(self) -> None:
        self._mlflow.end_run(self._status)


TRACKERS: dict[str, type[Callback]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
}


def check_trackers(config: TrainConfig) -> None:
    """Checks that the packages of the trackers are installed.

    Args:
      config: Configuration of a run that is about to start.

    Raises:
      ImportError: If a package is missing. The message names the extra to install.
    """
    for name in config.trackers:
        if name == "tensorboard":
            continue
        package = importlib.util.find_spec(name)
        if package is None or package.origin is None:  # a folder of that name has no origin
            raise ImportError(f"trackers: {name} is not installed; pip install 'segjax[{name}]'")


def _prefix_names(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"val/{name}": value for name, value in metrics.items()}


def _read(file: pathlib.Path) -> str | None:
    return file.read_text() if file.exists() else None
