import itertools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjax.data.errors import DataError
from segjax.data.folder import Folder
from segjax.data.loader import eval_batches, train_batches
from segjax.data.source import Classes, Source
from segjax.typing import Record


class Numbered(Source):
    """Examples whose images hold their number, row and column, and so do the labels."""

    classes = Classes(("sky",), ((0, 0, 0),))
    channels = 3

    def __init__(self, sizes):
        self.sizes = np.array(sizes, np.int32).reshape(-1, 2)

    def read(self, index):
        row, column = np.indices(self.sizes[index])
        number = np.full_like(row, index)
        return Record(
            image=np.stack([number, row, column], axis=-1).astype(np.uint8),
            labels=(100 * row + column).astype(np.int32),
            where=np.ones_like(row, bool),
        )


class Rendered(Numbered):
    """Examples that the device draws from their index."""

    def read(self, index):
        return Record(index=np.int32(index))


def take(batches, count):
    return list(itertools.islice(batches, count))


def numbers(batches):
    return np.concatenate([batch.image[:, 0, 0, 0] for batch in batches])


def assert_same(batches, others):
    jax.tree.map(np.testing.assert_array_equal, batches, others)


@pytest.mark.parametrize(("length", "batch_size"), [(6, 3), (7, 3), (5, 8), (1, 4)])
def test_every_epoch_holds_every_example_once_in_another_order(length, batch_size):
    source = Numbered([(2, 3)] * length)
    batches = take(train_batches(source, batch_size=batch_size, shape=(2, 3)), 4 * length)
    epochs = numbers(batches)[: 4 * length].reshape(4, length)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(length), (4, 1)))
    assert length < 5 or len({tuple(epoch) for epoch in epochs.tolist()}) == 4


def test_a_batch_is_whole_and_numbered_by_position():
    source = Numbered([(5, 6), (3, 9), (4, 4)])
    for k, batch in enumerate(take(train_batches(source, batch_size=4, shape=(4, 5)), 3)):
        assert batch.image.shape == (4, 4, 5, 3)
        assert batch.image.dtype == np.uint8
        assert batch.labels.dtype == batch.index.dtype == batch.size.dtype == np.int32
        assert batch.index.tolist() == list(range(4 * k, 4 * k + 4))
        assert batch.valid.all()
        assert batch.edges is batch.instances is None
        inside = source.sizes[batch.image[:, 0, 0, 0]]
        np.testing.assert_array_equal(batch.size, np.minimum(inside, (4, 5)))
        row, column = np.moveaxis(batch.image[..., 1:].astype(int), -1, 0)
        np.testing.assert_array_equal((100 * row + column)[batch.where], batch.labels[batch.where])
        assert batch.where.sum(axis=(1, 2)).tolist() == batch.size.prod(axis=-1).tolist()


def test_the_seed_alone_makes_the_difference():
    source = Numbered([(8, 8)] * 20)
    options = {"batch_size": 5, "shape": (4, 4)}
    reference = take(train_batches(source, seed=3, **options), 6)
    assert_same(reference, take(train_batches(source, seed=3, threads=1, **options), 6))
    other = take(train_batches(source, seed=4, **options), 6)
    assert (numbers(reference) != numbers(other)).any()
    windows = [tuple(image[0, 0, 1:]) for batch in reference for image in batch.image]
    assert len(set(windows)) > 5


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9))
def test_processes_share_the_stream_of_one(process_count, share, length):
    source = Rendered([(2, 2)] * length)
    options = {"batch_size": share * process_count, "shape": (2, 2), "threads": 1}
    whole = take(train_batches(source, **options), 3)
    for process in range(process_count):
        part = take(
            train_batches(source, process_index=process, process_count=process_count, **options), 3
        )
        for mine, batch in zip(part, whole, strict=True):
            assert mine.index.tolist() == batch.index[process::process_count].tolist()


@given(st.integers(0, 7))
def test_resumes_exactly(done):
    batches = train_batches(Numbered([(5, 5)] * 7), batch_size=4, shape=(3, 3), seed=1)
    iterator = iter(batches)
    take(iterator, done)
    state = json.dumps(iterator.get_state())
    expected = take(iterator, 4)
    for resumed in (iter(batches), iterator):  # a new one, and one that has run
        resumed.set_state(json.loads(state))
        assert_same(take(resumed, 4), expected)


def test_resumes_on_another_number_of_processes():
    source = Rendered([(1, 1)] * 5)
    iterator = iter(train_batches(source, batch_size=4, shape=(1, 1)))
    take(iterator, 3)
    half = iter(train_batches(source, batch_size=4, shape=(1, 1), process_index=1, process_count=2))
    half.set_state(iterator.get_state())
    assert next(half).index.tolist() == next(iterator).index[1::2].tolist()


def test_what_the_device_renders_passes_untouched():
    source = Rendered([(4, 6)] * 3)
    (batch,) = take(train_batches(source, batch_size=2, shape=(2, 2)), 1)
    assert batch.index.tolist() == [0, 1]
    assert batch.image is batch.size is None
    indices = [batch.index[batch.valid].tolist() for batch in eval_batches(source, batch_size=2)]
    assert indices == [[0, 1], [2]]


@pytest.mark.slow
def test_workers_deliver_and_resume_the_same_stream(write_folder):
    source = Folder(write_folder([(6, 7), (4, 4), (5, 9), (8, 3), (7, 7)]))
    options = {"batch_size": 3, "shape": (5, 5), "scale": 0.8, "seed": 2}
    expected = take(train_batches(source, **options), 9)
    iterator = iter(train_batches(source, workers=2, **options))
    assert_same(take(iterator, 5), expected[:5])
    resumed = iter(train_batches(source, workers=1, **options))
    resumed.set_state(iterator.get_state())
    iterator.close()
    assert_same(take(resumed, 4), expected[5:])
    resumed.close()
    with pytest.raises(ValueError, match="closed"):
        next(resumed)


@pytest.mark.slow
def test_a_bad_file_is_named_from_within_a_worker(write_folder):
    path = write_folder([(4, 4)] * 2)
    source = Folder(path)
    (path / "train" / "images" / "001.png").write_bytes(b"no image")
    iterator = iter(train_batches(source, batch_size=2, shape=(4, 4), workers=1))
    with pytest.raises(DataError, match=r"001\.png: expected an image that can be decoded"):
        next(iterator)
    iterator.close()


@pytest.mark.slow
def test_a_script_with_workers_may_simply_end(write_folder):
    path = write_folder([(4, 4)] * 2)
    (path / "script.py").write_text(
        "from segjax.data import Folder, train_batches\n"
        "if __name__ == '__main__':\n"
        f"    source = Folder({str(path)!r})\n"
        "    batches = iter(train_batches(source, batch_size=2, shape=(4, 4), workers=1))\n"
        "    print(next(batches).index)\n"
    )
    ended = subprocess.run([sys.executable, path / "script.py"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "[0 1]\n"), ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bad_file_is_named(write_folder):
    path = write_folder([(4, 4)] * 2)
    source = Folder(path)
    (path / "train" / "masks" / "001.png").write_bytes(b"no image")
    for batches in (
        train_batches(source, batch_size=2, shape=(4, 4)),
        eval_batches(source, batch_size=2),
    ):
        with pytest.raises(DataError, match=r"001\.png: expected an image"):
            next(iter(batches))


sizes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


@given(sizes, st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(0, 3))
def test_evaluation_counts_every_example_exactly_once(
    sizes, process_count, share, multiple, canvases
):
    source = Numbered(sizes)
    options = {"batch_size": share * process_count, "multiple": multiple, "threads": 1}
    options["canvases"] = canvases
    parts = [
        eval_batches(source, process_index=process, process_count=process_count, **options)
        for process in range(process_count)
    ]
    counted = []
    for batches in zip(*parts, strict=True):
        assert len({batch.image.shape for batch in batches}) == 1
        for batch in batches:
            assert len(batch.valid) == share
            counted += batch.index[batch.valid].tolist()
            for number, image, where, size in zip(
                batch.index, batch.image, batch.where, batch.size, strict=True
            ):
                height, width = source.sizes[number]
                assert size.tolist() == [height, width]
                assert all(side % multiple == 0 for side in where.shape)
                assert canvases or np.subtract(where.shape, size).max() < multiple
                np.testing.assert_array_equal(image[:height, :width], source.read(number).image)
                assert where[:height, :width].all()
                assert where.sum() == height * width
    assert sorted(counted) == list(range(len(sizes)))
    assert {len(part) for part in parts} == {len(list(parts[0]))}
    shapes = {batch.image.shape for batch in parts[0]}
    assert not canvases or len(shapes) <= canvases
    assert sorted(n for part in parts for n in part.numbers().tolist()) == sorted(counted)


def test_evaluation_compiles_few_shapes():
    source = Numbered([(31, 40), (20, 64), (32, 33), (33, 33)])
    batches = list(eval_batches(source, batch_size=2))
    assert [batch.image.shape[1:3] for batch in batches] == [(32, 64), (32, 64), (64, 64)]
    assert [batch.valid.sum() for batch in batches] == [2, 1, 1]
    assert_same(batches, list(eval_batches(source, batch_size=2, threads=1)))
    (batch,) = eval_batches(source, batch_size=2).holding({3})
    assert batch.index[batch.valid].tolist() == [3]


def test_evaluation_goes_round_again():
    batches = eval_batches(Numbered([(3, 3)] * 3), batch_size=2)
    assert_same(list(batches), list(batches))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a positive multiple"),
        ({"batch_size": 3, "process_count": 2}, "batch_size: expected a positive multiple"),
        ({"process_index": 1}, r"process_index: expected 0\.\.0"),
        ({"process_count": 0}, "process_count: expected at least 1"),
        ({"threads": 0}, "threads: expected at least 1"),
    ],
)
@pytest.mark.parametrize("batches", [train_batches, eval_batches])
def test_options_out_of_range_are_named(batches, options, message):
    shape = {"shape": (2, 2)} if batches is train_batches else {}
    with pytest.raises(ValueError, match=message):
        batches(Numbered([(2, 2)]), **{"batch_size": 2, **shape, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (0, 2)}, "shape: expected"),
        ({"scale": 0.0}, "scale: expected above 0"),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"workers": -1}, "workers: expected at least 0"),
    ],
)
def test_options_of_training_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        train_batches(Numbered([(2, 2)]), **{"batch_size": 2, "shape": (2, 2), **options})


def test_no_examples_or_no_multiple_is_an_error():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        train_batches(Numbered([]), batch_size=1, shape=(1, 1))
    with pytest.raises(ValueError, match="multiple: expected at least 1, got 0"):
        eval_batches(Numbered([(2, 2)]), batch_size=1, multiple=0)


def test_labels_that_cannot_be_fitted_are_an_error():
    class Tagged(Numbered):
        def read(self, index):
            return super().read(index).replace(tags=np.ones(3, bool))

    with pytest.raises(ValueError, match=r"record: expected only .* got tags"):
        next(iter(train_batches(Tagged([(2, 2)]), batch_size=1, shape=(1, 1))))


@pytest.mark.parametrize("name", ["camvid", "dsb2018", "pennfudan"])
def test_real_data_goes_through(data_dir, name):
    source = Folder(data_dir / "tiny" / name, "val")
    (batch,) = take(train_batches(source, batch_size=4, shape=(64, 96), scale=0.5), 1)
    assert batch.image.shape == (4, 64, 96, 3)
    assert batch.labels.max() < len(source.classes)
    counted = sum(int(batch.valid.sum()) for batch in eval_batches(source, batch_size=4))
    assert counted == len(source)
