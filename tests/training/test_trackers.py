"""What trackers get: TensorBoard by its file; W&B and MLflow by stand-ins with their interface."""

import sys
import types

import pytest
from runs import full_disk, tiny
from tensorboardX.proto.event_pb2 import Event

from segjax.data import Classes
from segjax.training import SemanticConfig
from segjax.training.trackers import Mlflow, TensorBoard, Wandb, check_trackers

CLASSES = Classes(("sky", "car (red)"), ((0, 0, 0), (255, 0, 0)))
FINISHED = {"wandb": 0, "mlflow": "FINISHED"}
BROKEN_OFF = {"wandb": 1, "mlflow": "KILLED"}


class _Service:
    """Keeps runs by id: the rows `(step, names)`, what they ended with, and their files."""

    def __init__(self):
        self.runs = {}

    def open(self, name):
        name = name or f"id{len(self.runs)}"
        self.run = self.runs.setdefault(name, {"rows": [], "ends": [], "files": [], "config": {}})
        return name


@pytest.fixture
def wandb(monkeypatch):
    class Run:
        def __init__(self, service, name, config):
            self.id, self.run = service.open(name), service.run
            self.run["config"] |= config

        def define_metric(self, name, step_metric):
            assert (name, step_metric) == ("*", "step")

        def log(self, row):
            if "step" in row:
                self.run["rows"].append((row["step"], sorted(row.keys() - {"step"})))
            else:
                self.run["files"] += list(row.values())

        def finish(self, exit_code):
            self.run["ends"].append(exit_code)

    service = _Service()
    service.init = lambda *, id, config, **_: Run(service, id, config)
    service.Image = lambda path: path.rpartition("/")[2]
    service.Error = RuntimeError
    monkeypatch.setitem(sys.modules, "wandb", service)
    return service


@pytest.fixture
def mlflow(monkeypatch):
    service = _Service()

    def start_run(run_id, run_name):
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=service.open(run_id)))

    service.start_run = start_run
    service.log_params = lambda values: service.run["config"].update(values)
    service.log_metrics = lambda row, step: service.run["rows"].append((step, sorted(row)))
    service.log_artifact = lambda path: service.run["files"].append(path.rpartition("/")[2])
    service.end_run = lambda status: service.run["ends"].append(status)
    service.MlflowException = RuntimeError
    monkeypatch.setitem(sys.modules, "mlflow", service)
    return service


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Wandb, Mlflow])
def test_a_run_that_resumes_is_the_same_run(kind, tmp_path, request):
    name = kind.__name__.lower()
    service = request.getfixturevalue(name)
    config = SemanticConfig(run=tmp_path)

    stopped = kind()
    stopped.on_start(config, CLASSES, 0)
    stopped.on_metrics(10, {"loss": 1.0})
    stopped.close()

    resumed = kind()
    resumed.on_start(config, CLASSES, 10)
    assert resumed.on_evaluation(10, {"iou/car (red)": 0.5}) is None
    resumed.on_end({})
    resumed.close()

    (run,) = service.runs.values()
    car = {"wandb": "val/iou/car (red)", "mlflow": "val/iou/car _red_"}[name]
    assert run["rows"] == [(10, ["loss"]), (10, [car])]
    assert run["ends"] == [BROKEN_OFF[name], FINISHED[name]]
    assert run["files"] == ["curves.png", "predictions.png"]
    nested = run["config"]["optimizer"]["name"] if name == "wandb" else None
    assert run["config"].get("optimizer.name", nested) == config.optimizer.name


@pytest.mark.parametrize(("kind", "opens"), [(Wandb, "init"), (Mlflow, "start_run")])
def test_what_a_service_refuses_is_told_in_a_line(kind, opens, tmp_path, request, monkeypatch):
    service = request.getfixturevalue(kind.__name__.lower())

    def refuse(**_):
        raise RuntimeError("nobody is logged in")

    monkeypatch.setattr(service, opens, refuse)
    with pytest.raises(ValueError, match=r"trackers: \w+: nobody is logged in"):
        kind().on_start(SemanticConfig(run=tmp_path), CLASSES, 0)


def test_tensorboard_has_each_metric_at_its_step(tmp_path, data):
    board = TensorBoard()
    board.on_start(tiny(tmp_path, data), CLASSES, 0)
    board.on_metrics(1, {"loss": 0.5, "learning_rate": 0.25})
    board.on_evaluation(2, {"mean_iou": 0.75})
    board.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert _scalars(file) == [
        (1, "loss", 0.5),
        (1, "learning_rate", 0.25),
        (2, "val/mean_iou", 0.75),
    ]


def test_on_a_full_disk_tensorboard_names_its_folder_and_does_not_block(tmp_path, data):
    board = TensorBoard()
    board.on_start(tiny(tmp_path, data), CLASSES, 0)
    with full_disk():
        for step in range(30):  # more than any queue holds
            with pytest.raises(OSError, match=r"tensorboard"):
                board.on_metrics(step, {"loss": 0.5} if step else {f"{k}": 0.5 for k in range(99)})
    board.close()


def _scalars(file):
    """The scalars of a file of events: records of a length, its checksum, the event, and its."""
    content, found = file.read_bytes(), []
    while content:
        size = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        content = content[16 + size :]
    return found


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_names_its_extra(name, tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()  # as W&B leaves them where it ran: no package
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ImportError, match=rf"{name} is not installed; pip install 'segjax\[{name}"):
        check_trackers(SemanticConfig(trackers=("tensorboard", name)))
