"""Checkpoints: what comes back is what was saved, placed as it is wanted."""

import dataclasses
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_array_equal
from runs import full_disk, saved_steps

from segjax.models import unet
from segjax.training import create_state
from segjax.training.checkpoint import Checkpoints, load_variables
from segjax.training.parallel import Parallel, make_mesh

PARALLEL = {"pmap": lambda: Parallel(), "mesh": lambda: Parallel(make_mesh(fsdp=4))}


def _state(seed=0, *, step=3, average=True, widths=(4, 8), optimizer=optax.adam):
    """A state of random numbers."""
    create = lambda key: create_state(
        key, unet(3, widths=widths), optimizer(0.1), jnp.zeros((1, 8, 8, 3)), average=average
    )
    rng = np.random.default_rng(seed)
    draw = lambda x: np.asarray(rng.uniform(0, 9, x.shape)).astype(x.dtype)
    state = jax.tree.map(draw, jax.eval_shape(create, jax.random.key(0)))
    return dataclasses.replace(state, step=np.int32(step))


def _assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    jax.tree.map(assert_array_equal, tree, expected)


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("saved", PARALLEL)
@pytest.mark.parametrize("restored", PARALLEL)
def test_a_state_comes_back_on_any_devices(tmp_path, saved, restored, average):
    state = _state(average=average)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(PARALLEL[saved]().place(state), {"batches": {"next_batch": 7}})
    checkpoints.close()

    like = PARALLEL[restored]().place(_state(seed=1, step=0, average=average))
    checkpoints = Checkpoints(tmp_path)
    back, position = checkpoints.restore(like)
    checkpoints.close()
    assert position == {"batches": {"next_batch": 7}}
    _assert_same(jax.device_get(back), state)
    for got, due in zip(jax.tree.leaves(back), jax.tree.leaves(like), strict=True):
        assert got.sharding == due.sharding
        assert got.dtype == due.dtype


def test_only_the_last_is_kept_and_the_best_beside_it(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest_step() is None
    placed = {step: Parallel().place(_state(step=step)) for step in (1, 2, 3)}
    checkpoints.save_best(placed[1], 1.0)
    for step in (1, 2, 3):
        checkpoints.save(placed[step], {})
    checkpoints.close()
    assert saved_steps(tmp_path, "best") == [1]
    assert saved_steps(tmp_path, "last") == [3]


def test_the_best_are_kept_also_over_a_restart(tmp_path):
    folder, kept = tmp_path / "checkpoints", []
    for step, score in enumerate([0.2, 0.5, 0.3, 0.5, 0.9, 0.5, 0.1, float("nan")], 1):
        checkpoints = Checkpoints(folder, keep_best=2)
        checkpoints.save_best(Parallel().place(_state(step=step)), score)
        checkpoints.close()
        kept.append(saved_steps(tmp_path, "best"))
    assert kept == [[1], [1, 2], [2, 3], [2, 4], [4, 5], [4, 5], [4, 5], [4, 5]]
    assert load_variables(folder, "best")[1] == 5
    assert load_variables(folder, 4)[1] == 4
    with pytest.raises(FileNotFoundError, match="expected a checkpoint of step 3, got steps 4, 5"):
        load_variables(folder, 3)


def test_a_state_may_be_changed_as_soon_as_it_is_saved(tmp_path):
    """The step donates its buffers while the checkpoint is still being written."""
    state = _state()
    placed = Parallel().place(state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(placed, {})
    jax.tree.map(lambda x: x.delete(), placed)
    checkpoints.close()
    variables, _ = load_variables(tmp_path, "last")
    _assert_same(variables, state.variables)


@pytest.mark.parametrize("average", [True, False])
def test_variables_are_those_to_evaluate(tmp_path, average):
    last, best = _state(0, step=9, average=average), _state(1, step=4, average=average)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Parallel().place(last), {})
    checkpoints.save_best(Parallel().place(best), 1.0)
    checkpoints.close()
    for which, state in (("last", last), ("best", best)):
        variables, step = load_variables(tmp_path, which)
        assert step == state.step
        _assert_same(variables, state.variables)


def test_where_there_is_no_best_it_is_the_last(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Parallel().place(_state(step=5)), {})
    checkpoints.close()
    assert load_variables(tmp_path, "best")[1] == 5


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_variables(tmp_path / "nowhere", "best")
    Checkpoints(tmp_path).close()
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_variables(tmp_path, "best")


def _saved(folder, kinds=("last", "best"), state=None):
    state = state or _state(step=5)
    checkpoints = Checkpoints(folder)
    if "last" in kinds:
        checkpoints.save(Parallel().place(state), {"batches": 5})
    if "best" in kinds:
        checkpoints.save_best(Parallel().place(state), 1.0)
    checkpoints.close()
    return state


def _incompressible_state():
    """Nine tenths of it one array of random bits, which stand in its file as they are.

    All of it is read, in one piece, so that a flipped bit in the middle of the largest file is one
    of this array, and no sign to who unpacks it.
    """
    state = _state(step=5, average=False, widths=(4, 64), optimizer=optax.sgd)
    rng = np.random.default_rng(0)
    bits = lambda x: np.nan_to_num(rng.integers(2**32, size=x.shape, dtype=np.uint32).view("f4"))
    return jax.tree.map(lambda x: bits(x) if x.dtype == np.float32 else x, state)


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_flipped_bit_is_never_used(tmp_path, which):
    state = _saved(tmp_path, state=_incompressible_state())
    other = "last" if which == "best" else "best"
    line = f"{tmp_path / which}/5: cannot be read \\((.*)\\); "
    line += f'the checkpoint "{other}" \\(step 5\\) may be intact'
    file = max((tmp_path / which).rglob("d/*"), key=lambda file: file.stat().st_size)
    whole = file.read_bytes()
    found = []
    for place in np.linspace(0, len(whole) - 1, 7).astype(int):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            variables, _ = load_variables(tmp_path, which)
            _assert_same(variables, state.variables)  # the place is of nothing that is used
        except OSError as error:
            # Some places are of what describes the arrays, which Orbax holds to sums of its own.
            found.append(re.fullmatch(line, str(error))[1])
    assert sum("got another checksum" in reason for reason in found) > 2, found


def test_a_damaged_checkpoint_is_not_resumed_from(tmp_path):
    _saved(tmp_path, kinds=("last",))
    like = Parallel().place(_state(seed=1, step=0))
    path = tmp_path / "last" / "5" / "position" / "metadata"
    path.write_text(path.read_text().replace("5", "6"))
    checkpoints = Checkpoints(tmp_path)
    line = r"last/5: cannot be read \(position: expected .* another checksum\); delete it to resume"
    with pytest.raises(OSError, match=line):
        checkpoints.restore(like)
    checkpoints.close()


def test_checkpoints_without_checksums_are_read(tmp_path):
    state = _saved(tmp_path)
    for kind in ("last", "best"):
        shutil.rmtree(tmp_path / kind / "5" / "checksums")
        _assert_same(load_variables(tmp_path, kind)[0], state.variables)
    checkpoints = Checkpoints(tmp_path)
    back, position = checkpoints.restore(Parallel().place(_state(seed=1)))
    checkpoints.close()
    _assert_same(jax.device_get(back), state)
    assert position == {"batches": 5}


@pytest.mark.parametrize("keep", [0, 0.5])
@pytest.mark.parametrize("which", ["last", "best"])
def test_a_cut_checkpoint_is_one_line(tmp_path, which, keep, capfd):
    _saved(tmp_path, kinds=(which,))
    for file in (tmp_path / which / "5").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            file.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(OSError, match=f"^{tmp_path / which}[^\n]*: cannot be [^\n]*$"):
        load_variables(tmp_path, which)
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_disk_costs_no_checkpoint(tmp_path):
    state = _saved(tmp_path, kinds=("last",))
    checkpoints = Checkpoints(tmp_path)

    def save():  # in the background
        checkpoints.save(Parallel().place(_state(step=6)), {})
        checkpoints.close()

    line = f"^{tmp_path / 'last'}[^\n]*cannot be saved[^\n]*$"
    with full_disk(), pytest.raises(OSError, match=line):
        save()
    variables, step = load_variables(tmp_path, "last")
    assert step == 5
    _assert_same(variables, state.variables)
