"""`segjax evaluate`."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

from segjax import viz
from segjax.commands.trained import ModelOptions, load
from segjax.files import write_file
from segjax.progress import track


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Evaluates a trained model over a whole split, at the data's own resolution.

    Attributes:
      data: Data set, as in `segjax train`, such as folder:PATH; by default that of the run.
      split: Split to evaluate on; by default that of the run.
      batch_size: Images in a step, over all devices; by default that of the run.
      output: JSON file to write the metrics to; for the semantic task also the confusion matrix in
        pixels, with a row for each label and a column for each prediction.
      pictures: Folder to write best.png, median.png and worst.png to, the images with the best,
        median and worst score; for the semantic task also confusion.png. The images are then
        evaluated one by one on one device.
    """

    data: str | None = None
    split: str | None = None
    batch_size: int | None = None
    output: pathlib.Path | None = None
    pictures: pathlib.Path | None = None


def run(options: Options) -> int:
    """Evaluates, prints the metrics as a table, and writes what the options ask for."""
    # Not sooner: `--help` need not wait for JAX.
    from segjax.commands.extremes import ImageEvaluator, write_extremes
    from segjax.tasks import SemanticMetric
    from segjax.training import Parallel, make_evaluate, open_config_source
    from segjax.training.report import print_confusion, print_metrics

    predictor = load(options)
    if options.model is not None and options.data is None:
        raise ValueError("data: expected a data set to evaluate published weights on, got none")
    config, names = predictor.config, predictor.classes.names
    config = dataclasses.replace(
        config,
        data=config.data if options.data is None else options.data,
        eval_split=config.eval_split if options.split is None else options.split,
    )
    checking = functools.partial(track, title=f"checking {config.eval_split}")
    source = open_config_source(config, config.eval_split, progress=checking)
    if options.model is not None:
        if len(source.classes) != len(names):
            raise ValueError(
                f"data: expected the {len(names)} classes of {options.run}, got the "
                f"{len(source.classes)} of {config.data}"
            )
    elif source.classes.names != names:
        raise ValueError(
            f"data: expected the classes {names} of {options.run}, got {source.classes.names}"
        )

    bar = functools.partial(track, title="evaluating")
    if options.pictures is None:
        parallel = Parallel()
        evaluate = make_evaluate(
            predictor.task,
            predictor.model,
            source,
            parallel,
            batch_size=config.eval_batch_size if options.batch_size is None else options.batch_size,
            canvases=options.canvases,
            threads=config.threads,
        )
        metric = evaluate(parallel.place(predictor.variables), track=bar).metric
    else:
        evaluator = ImageEvaluator(
            predictor, source, canvases=options.canvases, threads=config.threads
        )
        scores, metric = evaluator.scores(track=bar)
    metrics = predictor.task.summary(metric, source.classes)
    images = f"{len(source)} images of {config.data}, {config.eval_split}"
    title = f"{predictor.origin}: {images}"
    print_metrics(metrics, title=title, classes=source.classes)
    found: dict[str, Any] = dict(metrics)
    confusion = metric.confusion.counts if isinstance(metric, SemanticMetric) else None
    if confusion is not None:
        print_confusion(confusion, source.classes)
        found["confusion_matrix"] = {
            "classes": list(source.classes.names),
            "counts": confusion.tolist(),
        }
    if options.output is not None:
        write_file(options.output, json.dumps(found, indent=2) + "\n")
    if options.pictures is not None:
        extremes = write_extremes(options.pictures, evaluator, scores)
        for name, index in extremes.items():
            print(f"{options.pictures / name}.png: image {index}, {scores[index]:.3f}")
        if confusion is not None:
            path = options.pictures / "confusion.png"
            viz.draw_confusion(confusion, source.classes, path=path)
            print(f"{path}: confusion matrix")
    return 0
