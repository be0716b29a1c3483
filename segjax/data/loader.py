"""Batches of a source: shuffled without end for training, each example once for evaluation."""

import dataclasses
import functools
import weakref
from collections.abc import Collection, Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from segjax.data.canvas import pad, plan_canvases, random_window, rescale
from segjax.data.source import Source
from segjax.typing import Record

_ENDLESS = 2**62
_ORDER, _WINDOW = 0, 1  # what is drawn, so that no two draws share their random numbers


def train_batches(
    source: Source,
    *,
    batch_size: int,
    shape: tuple[int, int],
    scale: float = 1.0,
    seed: int = 0,
    workers: int = 0,
    threads: int = 4,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """Endless batches for training, in another order every epoch.

    The stream of examples is a function of `source`, `seed`, `shape` and `scale` alone: position i
    of it is the same example, cut the same way, however many processes, workers and threads read
    it. Global batch k holds the positions `k * batch_size` to `(k + 1) * batch_size - 1`, of which
    process p takes every `process_count`-th from p on.

    An image is resized by `scale` and then, each way by itself, cropped to a random window where it
    is larger than `shape` or padded with black void at the bottom and the right. Instances and
    segments are cropped with it, and those outside the window are not valid. A record without an
    image, as from a source that renders on the device, is left as it is.

    The iterator's `get_state()` is `{"next_batch": k}`; `set_state` resumes exactly there, also
    with another number of processes, workers or threads. Its `close()` ends the workers.

    Args:
      source: source of the examples; with `workers` it must be picklable.
      batch_size: number of examples in a batch, over all processes.
      shape: (height, width) of the examples in pixels.
      scale: output pixels per pixel of the source.
      seed: seed of the order and the windows.
      workers: number of processes that read; 0 reads in this process.
      threads: number of threads that read, in each process.
      process_index: index of this process.
      process_count: number of processes that share a batch.

    Returns:
      A grain dataset of batches: `Record`s of NumPy arrays, `[batch_size // process_count, ...]`
      with `size` the picture's part of the canvas, `index` the position in the stream (modulo
      2^31), and `valid` True.

    Raises:
      ValueError: if an option is out of its range, or the batch cannot be divided evenly.

    Example:
      >>> from segjax import data
      >>> from segjax.data import open_source
      >>> source = open_source("synthetic", "train")
      >>> batches = iter(data.train_batches(source, batch_size=4, shape=(128, 128)))
      >>> next(batches).index
      array([0, 1, 2, 3], dtype=int32)
      >>> batches.get_state()
      {'next_batch': 1}
    """
    share = _share(batch_size, process_index, process_count)
    _require("shape", shape, len(shape) == 2 and min(shape) >= 1, "two sides of at least 1 pixel")
    _require("scale", scale, scale > 0, "above 0")
    _require("seed", seed, seed >= 0, "at least 0")
    _require("workers", workers, workers >= 0, "at least 0")
    _require("threads", threads, threads >= 1, "at least 1")
    _require("len(source)", len(source), len(source) > 0, "at least 1")
    return _TrainBatches(
        _Draw(source, (shape[0], shape[1]), scale, seed),
        _Interleave(share, process_index, process_count, max(workers, 1)),
        workers,
        threads,
    )


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    canvases: int = 0,
    multiple: int = 32,
    threads: int = 4,
    process_index: int = 0,
    process_count: int = 1,
) -> "EvalBatches":
    """Batches for evaluation: every example comes exactly once, over all processes.

    Images keep their resolution. Each is padded to a canvas of its own size rounded up to a
    `multiple`, or of one of at most `canvases` sizes that `plan_canvases` chooses, so that fewer
    shapes occur. The padding repeats the image's border and is void. The last batch of a size is
    filled up with copies for which `valid` is False. All processes get the same number of batches,
    with the same shapes in the same order.

    Predictions may depend on the canvas, unless the model is `models.is_canvas_invariant` and knows
    by `models.blind_beyond` where the image ends, as in tasks. With `canvases=0` they do not depend
    on the sizes of other images, and there are as many shapes as sizes.

    Args:
      source: source of the examples.
      batch_size: number of examples in a batch, over all processes.
      canvases: largest number of sizes; 0 keeps each image's own, rounded up to a `multiple`.
      multiple: number of pixels that the sides of a canvas are multiples of.
      threads: number of threads that read.
      process_index: index of this process.
      process_count: number of processes that share a batch.

    Returns:
      An iterable with a length: `Record`s of NumPy arrays, `[batch_size // process_count, ...]`
      with `size` the picture's part of the canvas, `index` the example's number in the source, and
      `valid`.

    Raises:
      ValueError: if an option is out of its range, or the batch cannot be divided evenly.

    Example:
      >>> from segjax import data
      >>> from segjax.data import open_source
      >>> batches = data.eval_batches(open_source("synthetic", "val", length=5), batch_size=4)
      >>> [batch.valid.tolist() for batch in batches]
      [[True, True, True, True], [True, False, False, False]]
    """
    _share(batch_size, process_index, process_count)
    _require("threads", threads, threads >= 1, "at least 1")
    shapes = plan_canvases(source.sizes, most=canvases, multiple=multiple)
    mine = slice(process_index, None, process_count)
    plan = [
        _Plan((int(height), int(width)), numbers[mine].tolist(), valid[mine])
        for height, width in np.unique(shapes, axis=0)
        for numbers, valid in _batched(
            np.flatnonzero((shapes == (height, width)).all(axis=-1)), batch_size
        )
    ]
    return EvalBatches(source, plan, threads)


@dataclasses.dataclass(frozen=True)
class _Draw:
    """Reads the example at a position of the endless stream."""

    source: Source
    shape: tuple[int, int]
    scale: float
    seed: int

    def __call__(self, position: int) -> Record:
        epoch, place = divmod(position, len(self.source))
        record = self.source.read(int(_order(len(self.source), self.seed, epoch)[place]))
        if record.image is not None:
            generator = np.random.default_rng((self.seed, _WINDOW, position))
            record = random_window(rescale(record, self.scale), self.shape, generator)
        return record.replace(index=np.int32(position % 2**31), valid=np.bool_(True))


@functools.lru_cache(maxsize=4)
def _order(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(length)


@dataclasses.dataclass(frozen=True)
class _Interleave:
    """The position in the stream of each element that a process reads.

    grain distributes the elements of a dataset to its workers in turn, and takes a batch from each
    worker in turn. The elements are interleaved so that consecutive elements of a worker make up a
    whole batch, and batches do not depend on the number of workers.
    """

    share: int
    process_index: int
    process_count: int
    workers: int

    def __call__(self, first_batch: int, element: int) -> int:
        turn, worker = divmod(element, self.workers)
        round_, place = divmod(turn, self.share)
        batch = first_batch + round_ * self.workers + worker
        return (batch * self.share + place) * self.process_count + self.process_index


class _TrainBatches(grain.IterDataset):
    def __init__(self, draw: _Draw, positions: _Interleave, workers: int, threads: int):
        super().__init__()
        self._draw, self._positions = draw, positions
        self.workers, self._threads = workers, threads

    def __iter__(self) -> "_TrainIterator":
        return _TrainIterator(self)

    def starting_at(self, first_batch: int) -> grain.IterDataset:
        if not flags.FLAGS.is_parsed():  # grain's workers read flags, which only absl's app parses
            flags.FLAGS.mark_as_parsed()
        ahead = max(self._threads, 2 * self._positions.share)
        return (
            grain.MapDataset.range(_ENDLESS)
            .map(functools.partial(self._positions, first_batch))
            .map(self._draw)
            .to_iter_dataset(
                grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=ahead)
            )
            .batch(self._positions.share)
            .mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=self.workers))
        )


class _TrainIterator(grain.DatasetIterator):
    """Keeps the number of the next batch as its only state; grain's own depends on the workers."""

    def __init__(self, batches: _TrainBatches):
        super().__init__()
        self._batches = batches
        self._next_batch = 0
        self._pipelines: list[grain.DatasetIterator] = []  # at most one
        # Ends the workers, at exit too, before Python unloads what grain needs for it.
        self._end = weakref.finalize(self, _close_all, self._pipelines)

    def __next__(self) -> Record:
        self._assert_not_closed()
        batch = next(self._running())
        if self._batches.workers:  # their arrays lie in shared memory that ends with them
            batch = jax.tree.map(np.array, batch)
        self._next_batch += 1
        return batch

    def start_prefetch(self) -> None:
        self._running().start_prefetch()

    def _running(self) -> grain.DatasetIterator:
        if not self._pipelines:
            self._pipelines.append(iter(self._batches.starting_at(self._next_batch)))
        return self._pipelines[0]

    def get_state(self) -> dict[str, Any]:
        return {"next_batch": self._next_batch}

    def set_state(self, state: dict[str, Any]) -> None:
        _close_all(self._pipelines)
        self._next_batch = state["next_batch"]

    def close(self) -> None:
        self._end()
        super().close()


def _close_all(pipelines: list[grain.DatasetIterator]) -> None:
    while pipelines:
        pipelines.pop().close()


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A batch of this process: its canvas, its examples, and which of them are no filling."""

    canvas: tuple[int, int]
    numbers: list[int]
    valid: np.ndarray


class EvalBatches:
    """The batches of `eval_batches`: an iterable with a length."""

    def __init__(self, source: Source, plan: list[_Plan], threads: int):
        self._source, self._plan, self._threads = source, plan, threads

    def __len__(self) -> int:
        return len(self._plan)

    def numbers(self) -> np.ndarray:
        """The indices of the examples that this process reads, ascending."""
        return np.sort([n for plan in self._plan for n in np.array(plan.numbers)[plan.valid]])

    def holding(self, numbers: Collection[int]) -> "EvalBatches":
        """The batches that hold any of the examples with these indices."""
        plan = [plan for plan in self._plan if not set(numbers).isdisjoint(plan.numbers)]
        return EvalBatches(self._source, plan, self._threads)

    def __iter__(self) -> Iterator[Record]:
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
        return iter(grain.MapDataset.source(self._plan).map(self._read).to_iter_dataset(options))

    def _read(self, plan: _Plan) -> Record:
        examples = {number: self._example(number, plan.canvas) for number in set(plan.numbers)}
        batch = [
            examples[number].replace(valid=valid)
            for number, valid in zip(plan.numbers, plan.valid, strict=True)
        ]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *batch)

    def _example(self, number: int, canvas: tuple[int, int]) -> Record:
        record = self._source.read(number)
        if record.image is not None:
            record = pad(record, canvas, mode="edge")
        return record.replace(index=np.int32(number))


def _batched(numbers: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Runs of `size` numbers, the last filled up with its first, and which are not filling."""
    for start in range(0, len(numbers), size):
        run = numbers[start : start + size]
        missing = size - len(run)
        yield np.pad(run, (0, missing), constant_values=run[0]), np.arange(size) < len(run)


def _share(batch_size: int, process_index: int, process_count: int) -> int:
    """The number of examples of a batch that each process reads."""
    _require("process_count", process_count, process_count >= 1, "at least 1")
    indices = f"0..{process_count - 1}"
    _require("process_index", process_index, 0 <= process_index < process_count, indices)
    fits = batch_size >= 1 and batch_size % process_count == 0
    _require(
        "batch_size", batch_size, fits, f"a positive multiple of process_count={process_count}"
    )
    return batch_size // process_count


def _require(name: str, value: Any, condition: bool, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
