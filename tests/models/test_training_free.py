"""Dense CLIP: each method against its formula, written out in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from segjax import models
from segjax.models.clip import Clip
from segjax.models.clip_towers import ClipImageTower, ClipTextTower
from segjax.models.layers import quick_gelu
from segjax.ops import resize

FEATURES, HEADS, PATCH = 8, 2, 4
SHARED = {"epsilon": 1e-5, "activation": quick_gelu}
IMAGE = functools.partial(ClipImageTower, FEATURES, 2, HEADS, PATCH, 8, 6, **SHARED)
MODEL = Clip(IMAGE, functools.partial(ClipTextTower, 8, 1, 2, 20, 7, 6, "end", **SHARED))
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(2, 12, 16, 3)).astype(np.float32)
GRID = (3, 4)
PROXY = RANDOM.normal(size=(2, 5, 6, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    template = jax.eval_shape(MODEL.init, jax.random.key(0), IMAGES)
    return jax.tree.map(
        lambda leaf: RANDOM.normal(size=leaf.shape, scale=0.5).astype(np.float32), template
    )


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def _norm(params, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * params["scale"] + params["bias"]


def _dense(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def _by_formula(method, params, x):
    """The patches' embeddings of one image, whose tokens before the last block are `x [n, f]`."""
    block = params["block1"]
    q, k, v = np.split(_dense(block["attention"]["qkv"], _norm(block["norm1"], x)), 3, axis=-1)
    heads = lambda y: y.reshape(len(y), HEADS, -1).swapaxes(0, 1)
    q, k, v = heads(q), heads(k), heads(v)
    scores = lambda a, b: a @ b.swapaxes(-2, -1) / np.sqrt(a.shape[-1])
    match method:
        case "clip":
            y = _softmax(scores(q, k)) @ v
        case "maskclip":
            y = v
        case "sclip":
            y = (_softmax(scores(q, q)) + _softmax(scores(k, k))) @ v
        case "clearclip":
            y = _softmax(scores(q, q)) @ v
        case "naclip":
            bias = np.zeros((len(x), len(x)))
            for i, j in np.ndindex(len(x) - 1, len(x) - 1):
                (a, b), (c, d) = divmod(i, GRID[1]), divmod(j, GRID[1])
                bias[1 + i, 1 + j] = np.exp(-((a - c) ** 2 + (b - d) ** 2) / 50)
            y = _softmax(scores(k, k) + bias) @ v
    y = _dense(block["attention"]["output"], y.swapaxes(0, 1).reshape(len(x), -1))
    if method in ("clip", "maskclip", "sclip"):
        y = x + y
        inner = _dense(block["fc1"], _norm(block["norm2"], y))
        y = y + _dense(block["fc2"], inner / (1 + np.exp(-1.702 * inner)))
    return _dense(params["projection"], _norm(params["norm_post"], y[1:])).reshape(*GRID, -1)


@pytest.mark.parametrize("method", ["clip", "maskclip", "sclip", "clearclip", "naclip"])
def test_features_are_the_formula_s(method, variables):
    states = MODEL.apply(variables, IMAGES, method=lambda m, x: m.image_tower(x)["states"])
    found = jax.jit(functools.partial(models.dense_clip, MODEL, method=method))(variables, IMAGES)
    params = variables["params"]["image_tower"]
    expected = [_by_formula(method, params, np.asarray(x)) for x in states[-2]]
    assert_allclose(found.features, expected, rtol=2e-4, atol=2e-4)
    assert found.keys.shape == (2, *GRID, FEATURES)


def test_unchanged_it_is_clip_s_own_last_block(variables):
    tokens = MODEL.apply(variables, IMAGES, method=lambda m, x: m.image_tower(x)["tokens"])
    params = variables["params"]["image_tower"]
    expected = _dense(params["projection"], _norm(params["norm_post"], np.asarray(tokens)[:, 1:]))
    found = models.dense_clip(MODEL, variables, IMAGES, method="clip").features
    assert_allclose(found.reshape(2, 12, -1), expected, rtol=1e-4, atol=1e-4)


def test_proxyclip_attends_by_another_model_s_features(variables):
    found = models.dense_clip(MODEL, variables, IMAGES, method="proxyclip", proxy=PROXY).features
    states = MODEL.apply(variables, IMAGES, method=lambda m, x: m.image_tower(x)["states"])
    params = variables["params"]["image_tower"]
    block = params["block1"]
    for image in range(2):
        x = _norm(block["norm1"], np.asarray(states[-2][image]))
        v = np.split(_dense(block["attention"]["qkv"], x), 3, axis=-1)[2][1:].reshape(*GRID, -1)
        v = np.asarray(resize(v, PROXY.shape[1:3])).reshape(30, -1)
        units = PROXY[image].reshape(30, -1)
        units = units / np.linalg.norm(units, axis=-1, keepdims=True)
        cosine = units @ units.T
        scores = 3 * (cosine - 1.2 * cosine.mean())
        y = _softmax(np.where(scores > 0, scores, -1e30)) @ v
        y = _norm(params["norm_post"], _dense(block["attention"]["output"], y))
        expected = _dense(params["projection"], y).reshape(5, 6, -1)
        assert_allclose(found[image], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "maskclp"}, "method: expected clip or maskclip"),
        ({"method": "proxyclip"}, "proxy: expected features for proxyclip, got NoneType"),
        ({"proxy": PROXY}, "proxy: expected None for sclip"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(options, message, variables):
    with pytest.raises(ValueError, match=message):
        models.dense_clip(MODEL, variables, IMAGES, **options)


def test_a_residual_network_has_no_last_block():
    model, images = models.clip_resnet50(), jnp.zeros((1, 32, 32, 3))
    with pytest.raises(ValueError, match="expected a CLIP with a vision transformer"):
        jax.eval_shape(
            lambda: models.dense_clip(model, model.init(jax.random.key(0), images), images)
        )
