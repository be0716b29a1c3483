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
      data: as of `segjax train`, such as "folder:PATH"; None takes the run's own.
      split: to evaluate on; None takes the one that the run was evaluated on.
      batch_size: images a step, over all devices; None takes the run's.
      output: a JSON file for the figures; after the semantic task with the confusion matrix in
        pixels, a row a label, a column a prediction.
      pictures: a folder for best.png, median.png and worst.png: the image that the model does best
        with, judged by itself, and so on; after the semantic task confusion.png too. All images
        are judged one by one then, on one device.
    """

    data: str | None = None
    split: str | None = None
    batch_size: int | None = None
    output: pathlib.Path | None = None
    pictures: pathlib.Path | None = None


def run(options: Options) -> int:
    """Prints the figures as a table, and writes them where they are asked for."""
    # Not sooner: `--help` need not wait for JAX.
    from segjax.commands.extremes import ImageJudge, write_extremes
    from segjax.tasks import SemanticMetric
    from segjax.training import Parallel, make_evaluate, open_config_source
    from segjax.training.report import print_confusion, print_figures

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
            f"{config.data} has the classes {source.classes.names}; {options.run} learnt {names}"
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
        judge = ImageJudge(predictor, source, canvases=options.canvases, threads=config.threads)
        scores, metric = judge.scores(track=bar)
    figures = predictor.task.summary(metric, source.classes)
    images = f"{len(source)} images of {config.data}, {config.eval_split}"
    title = f"{predictor.origin}: {images}"
    print_figures(figures, title=title, classes=source.classes)
    found: dict[str, Any] = dict(figures)
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
        extremes = write_extremes(options.pictures, judge, scores)
        for name, index in extremes.items():
            print(f"{options.pictures / name}.png: image {index}, {scores[index]:.3f}")
        if confusion is not None:
            path = options.pictures / "confusion.png"
            viz.draw_confusion(confusion, source.classes, path=path)
            print(f"{path}: which classes are taken for which")
    return 0
