"""Synthetic scenes: things with shapes before stuff with textures, with all kinds of labels.

The layout is drawn first and determines all labels; then the picture is painted. Classes of stuff
differ by texture alone. Classes of things differ by shape, and by colour and pattern as far as a
`SceneStyle` makes these depend on the shape.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from segjax.data.synthetic.draws import normal, uniform
from segjax.data.synthetic.shapes import SHAPES, Things, covers, to_local
from segjax.data.synthetic.style import SceneStyle
from segjax.data.synthetic.textures import PATTERNS, STUFF, noise, stuff_textures, thing_textures
from segjax.ops.boundaries import label_edges
from segjax.ops.masks import masks_to_boxes
from segjax.typing import Array, Instances, Panoptic, Points, Record

COLORS = ("red", "yellow", "green", "cyan", "blue", "magenta")
VOCABULARY = ("", *COLORS, *PATTERNS, *SHAPES)

# Where each shape's mean hue lies on the colour circle: disc, ring, box, cross, triangle, blob,
# star, so that thin shapes and solid ones alternate as far as they can.
_HUE_PLACES = 2 * np.arange(len(SHAPES)) % len(SHAPES)
# Shapes of the same pattern are at least three places apart.
_OWN_PATTERNS = _HUE_PLACES % len(PATTERNS)

_LEAST_PIXELS = 16
_LEAST_VISIBLE = 0.25


def scene(
    key: jax.Array,
    *,
    shape: tuple[int, int] = (128, 128),
    style: SceneStyle = SceneStyle(),
) -> Record:
    """Draws a scene with all kinds of labels, which agree with each other.

    The first classes are stuff (clouds, gravel, waves, bricks), the others things (disc, box,
    triangle, star, ring, cross, blob). The rows of `panoptic` and `points` are the
    kinds of stuff followed by the instances, the nearest first. An instance is valid if at least a
    quarter of it and 16 pixels are visible; otherwise it is not in the picture at all.

    Args:
      key: random key, which determines the scene.
      shape: (height, width) in pixels.
      style: number, size and colours of the things.

    Returns:
      A record without batch axes. The image is float32 in 0..1, and no pixel is void; every segment
      has one point and one scribble; a caption is three words of `VOCABULARY`: colour, pattern and
      shape.

    Raises:
      ValueError: if `shape` is smaller than 16 pixels.

    Example:
      >>> import jax
      >>> from segjax import data
      >>> style = data.SceneStyle(max_instances=6)
      >>> record = data.scene(jax.random.key(0), shape=(64, 80), style=style)
      >>> record.image.shape, record.instances.masks.shape
      ((64, 80, 3), (6, 64, 80))
    """
    if len(shape) != 2 or min(shape) < 16:
        raise ValueError(f"shape: expected (height, width) of 16 pixels or more, got {shape}")
    return _draw_scene(key, shape=tuple(shape), style=style)


def caption_text(caption: Int[Array, "words"]) -> str:
    """Converts a caption to words, such as "red striped disc".

    Args:
      caption: `[words]`, indices into `VOCABULARY`; 0 is padding.

    Returns:
      The words, with spaces between them.

    Example:
      >>> import numpy as np
      >>> from segjax import data
      >>> data.caption_text(np.array([1, 8, 11]))
      'red striped disc'
    """
    return " ".join(VOCABULARY[word] for word in np.asarray(caption) if word)


@functools.partial(jax.jit, static_argnames=("shape", "style"))
def _draw_scene(key: jax.Array, *, shape: tuple[int, int], style: SceneStyle) -> Record:
    keys = jax.random.split(key, 5)
    things = _draw_things(keys[0], shape, style)
    segments, valid = _arrange(things, _draw_stuff(keys[1], shape))
    paint = _draw_paint(keys[2], things, style)
    image = _photograph(keys[3], segments, things, paint)
    return _annotate(keys[4], image, segments, valid, paint)


def _draw_things(key: jax.Array, shape: tuple[int, int], style: SceneStyle) -> Things:
    """Things of every shape and size, the nearest first."""
    n, (least, greatest) = style.max_instances, style.size
    shape_draw, x, y, size, width, height, angle, bend, count = uniform(key, (9, n))
    size = least * min(shape) * (greatest / least) ** size
    return Things(
        shapes=_choose(shape_draw, len(SHAPES)),
        centers=jnp.stack([x * shape[1], y * shape[0]], axis=-1),
        radii=jnp.stack([size * (0.7 + 0.3 * width), size * (0.7 + 0.3 * height)], axis=-1),
        angles=2 * jnp.pi * angle,
        bends=2 * jnp.pi * bend,
        present=jnp.arange(n) <= n * count[0],
    )


def _choose(draws: Float[jax.Array, "*n"], options: int) -> Int[jax.Array, "*n"]:
    """Uniform numbers in 0..1 to uniform indices."""
    return (draws * options).astype(jnp.int32)


def _draw_stuff(key: jax.Array, shape: tuple[int, int]) -> Int[jax.Array, "h w"]:
    """Irregular regions: at each pixel the kind of stuff whose random surface is the highest."""
    cells = (min(shape) / 2.5, min(shape) / 12)
    coarse, fine = noise(key, shape, cells=cells, channels=len(STUFF))
    return jnp.argmax(coarse + 0.12 * fine, axis=0).astype(jnp.int32)


def _pixel_centers(shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """x `[h, w]` and y `[h, w]`."""
    y, x = jnp.mgrid[: shape[0], : shape[1]].astype(jnp.float32) + 0.5
    return x, y


def _arrange(
    things: Things, stuff: Int[Array, "h w"]
) -> tuple[Int[jax.Array, "h w"], Bool[jax.Array, "rows"]]:
    """Puts things before stuff, the nearest first: the segment of each pixel, and which exist."""
    x, y = _pixel_centers(stuff.shape)

    def place(segments, row_and_thing):
        row, thing = row_and_thing
        inside = covers(thing, x, y)
        visible = inside & (segments < 0)
        least = jnp.maximum(_LEAST_PIXELS, _LEAST_VISIBLE * jnp.sum(inside))
        placed = thing.present & (jnp.sum(visible) >= least)
        return jnp.where(visible & placed, row, segments), placed

    rows = len(STUFF) + jnp.arange(len(things.shapes), dtype=jnp.int32)
    segments, placed = jax.lax.scan(place, jnp.full_like(stuff, -1), (rows, things))
    segments = jnp.where(segments < 0, stuff, segments)
    seen = jnp.any(segments == jnp.arange(len(STUFF))[:, None, None], axis=(1, 2))
    return segments, jnp.concatenate([seen, placed])


class _Paint(NamedTuple):
    """Appearance of each segment, row by row.

    Attributes:
      classes: class of the segment.
      hues: index into `COLORS`.
      colors: two RGB colours in 0..1, where the texture is 1 and where it is -1.
      textures: index into `STUFF` followed by `PATTERNS`.
    """

    classes: Int[Array, "rows"]
    hues: Int[Array, "rows"]
    colors: Float[Array, "rows 2 3"]
    textures: Int[Array, "rows"]


def _draw_paint(key: jax.Array, things: Things, style: SceneStyle) -> _Paint:
    """Colours and patterns; those of things are drawn about what their shape's are."""
    stuff, n = jnp.arange(len(STUFF), dtype=jnp.int32), len(STUFF)
    draws = uniform(key, (6, n + len(things.shapes)))
    hue = (_choose(draws[0], len(COLORS)) + 0.6 * draws[1] - 0.3) / len(COLORS)
    if style.hue_spread is not None:
        off = style.hue_spread * (draws[0, n:] + draws[1, n:] - 1)
        hue = hue.at[n:].set((jnp.asarray(_HUE_PLACES)[things.shapes] + off) / len(SHAPES))
    (low, high), (stuff_low, stuff_high) = style.saturation, style.stuff_saturation
    saturation = jnp.concatenate(
        [
            stuff_low + (stuff_high - stuff_low) * draws[2, :n],
            low + (high - low) * draws[2, n:],
        ]
    )
    value = 0.45 + 0.5 * draws[3]
    other_value = value * jnp.where(value > 0.7, 0.45, 1.35)
    patterns = jnp.where(
        draws[5, n:] < style.own_pattern,
        jnp.asarray(_OWN_PATTERNS)[things.shapes],
        _choose(draws[4, n:], len(PATTERNS)),
    )
    color, other = _rgb(hue, saturation, value), _rgb(hue, saturation / 2, other_value)
    return _Paint(
        classes=jnp.concatenate([stuff, n + things.shapes]),
        hues=jnp.round(len(COLORS) * hue).astype(jnp.int32) % len(COLORS),
        colors=jnp.stack([color, other], axis=1),
        textures=jnp.concatenate([stuff, n + patterns]),
    )


def _rgb(
    hue: Float[jax.Array, "*n"], saturation: Float[jax.Array, "*n"], value: Float[jax.Array, "*n"]
) -> Float[jax.Array, "*n 3"]:
    """HSV to RGB, all in 0..1."""
    sector = (jnp.array([5.0, 3.0, 1.0]) + 6 * hue[..., None]) % 6
    share = jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1)
    return value[..., None] * (1 - saturation[..., None] * share)


def _photograph(
    key: jax.Array, segments: Int[Array, "h w"], things: Things, paint: _Paint
) -> Float[jax.Array, "h w 3"]:
    """The picture: textures under light from one side, through a lens, with noise."""
    texture_key, light_key, noise_key = jax.random.split(key, 3)
    x, y = _pixel_centers(segments.shape)
    on_thing = segments >= len(STUFF)
    thing = jax.tree.map(lambda a: a[jnp.maximum(segments - len(STUFF), 0)], things)
    u, v = to_local(thing, x, y)
    textures = jnp.concatenate([stuff_textures(texture_key, segments.shape), thing_textures(u, v)])
    texture = jnp.take_along_axis(textures, paint.textures[segments][None], axis=0)[0]
    light = _light(light_key, on_thing, thing)

    def expose(channel):
        colors, grain = channel
        first, second = colors[segments, 0], colors[segments, 1]
        exposed = light * (second + (first - second) * (texture + 1) / 2)
        return jnp.clip(_blur(exposed) + 0.03 * grain, 0, 1)

    channels = jnp.moveaxis(paint.colors, -1, 0), normal(noise_key, (3, *segments.shape))
    return jnp.stack(jax.lax.map(expose, channels), axis=-1)


def _light(key: jax.Array, on_thing: Bool[Array, "h w"], thing: Things) -> Float[jax.Array, "h w"]:
    """Brightness: a slope over the picture, another over each thing, and shadows on the stuff."""
    shape = on_thing.shape
    x, y = _pixel_centers(shape)
    angle = 2 * jnp.pi * uniform(key, ())
    to_x, to_y = jnp.cos(angle), jnp.sin(angle)
    slope = to_x * (x / shape[1] - 0.5) + to_y * (y / shape[0] - 0.5)
    dx, dy = x - thing.centers[..., 0], y - thing.centers[..., 1]
    across = (to_x * dx + to_y * dy) / jnp.max(thing.radii, axis=-1)
    reach = min(shape) / 40
    col = jnp.clip(x + reach * to_x, 0, shape[1] - 1).astype(int)
    row = jnp.clip(y + reach * to_y, 0, shape[0] - 1).astype(int)
    return 1 + 0.3 * slope + jnp.where(on_thing, 0.2 * across, -0.35 * on_thing[row, col])


def _blur(channel: Float[Array, "h w"]) -> Float[jax.Array, "h w"]:
    """Weights 1/4, 1/2, 1/4 along both axes."""
    padded = jnp.pad(channel, 1, mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


def _annotate(
    key: jax.Array,
    image: Float[Array, "h w 3"],
    segments: Int[Array, "h w"],
    valid: Bool[Array, "rows"],
    paint: _Paint,
) -> Record:
    """Every label of a layout."""
    point_key, scribble_key = jax.random.split(key)
    things = slice(len(STUFF), None)
    masks = segments == jnp.arange(len(STUFF), len(valid))[:, None, None]
    points = _pick_points(point_key, segments, len(valid))
    words = jnp.stack(
        [
            VOCABULARY.index(COLORS[0]) + paint.hues,
            VOCABULARY.index(PATTERNS[0]) + paint.textures - len(STUFF),
            VOCABULARY.index(SHAPES[0]) + paint.classes - len(STUFF),
        ],
        axis=-1,
    )
    return Record(
        image=image,
        labels=paint.classes[segments],
        where=jnp.ones(segments.shape, bool),
        size=jnp.array(segments.shape, jnp.int32),
        instances=Instances(
            boxes=masks_to_boxes(masks),
            classes=paint.classes[things],
            valid=valid[things],
            masks=masks,
            areas=jnp.sum(masks, axis=(1, 2), dtype=jnp.float32),
        ),
        panoptic=Panoptic(segments, paint.classes, valid),
        edges=label_edges(segments),
        points=Points(points, paint.classes, valid),
        scribbles=_scribbles(scribble_key, segments, points),
        tags=jnp.zeros(len(STUFF) + len(SHAPES), bool).at[paint.classes].max(valid),
        captions=jnp.where(valid[things, None], words[things], 0),
    )


def _pick_points(
    key: jax.Array, segments: Int[Array, "h w"], rows: int
) -> Float[jax.Array, "rows 2"]:
    """The centre of one pixel of each segment: the one that draws the greatest number."""
    members = segments == jnp.arange(rows)[:, None, None]
    draws = jnp.where(members, uniform(key, segments.shape), -1)
    greatest = members & (draws == jnp.max(draws, axis=(1, 2), keepdims=True))
    index = jnp.max(greatest * jnp.arange(segments.size).reshape(segments.shape), axis=(1, 2))
    row, col = jnp.divmod(index, segments.shape[1])
    return jnp.stack([col, row], axis=-1).astype(jnp.float32) + 0.5


def _scribbles(
    key: jax.Array, segments: Int[Array, "h w"], points: Float[Array, "rows 2"]
) -> Bool[jax.Array, "h w"]:
    """In each segment a bent stroke through its point, about two pixels wide."""
    angle, length, bend = uniform(key, (3, len(points)))
    angle = 2 * jnp.pi * angle
    length = min(segments.shape) * (0.1 + 0.3 * length)
    bend = (bend - 0.5) / length
    x, y = _pixel_centers(segments.shape)
    x, y = x - points[segments, 0], y - points[segments, 1]
    cos, sin = jnp.cos(angle)[segments], jnp.sin(angle)[segments]
    along, across = cos * x + sin * y, cos * y - sin * x
    return (jnp.abs(along) < length[segments]) & (jnp.abs(across - bend[segments] * along**2) < 1)
