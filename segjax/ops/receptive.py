"""How far a convolutional network sees, by its layers alone: plain arithmetic, for one axis."""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction


@dataclasses.dataclass(frozen=True)
class ConvSpec:
    """A convolution or pooling along one axis: output `i` sees inputs `⌊i·s − p⌋ + t·d`, `t < k`.

    Attributes:
      kernel: `k`, taps.
      stride: `s`, input pixels from one output to the next; `Fraction(1, 2)` where the resolution
        doubles: with kernel 1 for the transposed convolution of kernel 2 and stride 2, or for the
        nearest pixel, with kernel 2 and padding ½ for linear interpolation.
      dilation: `d`, input pixels from one tap to the next.
      padding: `p`, pixels before the first one.

    Example:
      >>> ConvSpec(3, dilation=2, padding=2)
      ConvSpec(kernel=3, stride=1, dilation=2, padding=2)
    """

    kernel: int
    stride: int | Fraction = 1
    dilation: int = 1
    padding: int | Fraction = 0

    def __post_init__(self):
        if self.kernel < 1 or self.dilation < 1 or self.stride <= 0 or self.padding < 0:
            raise ValueError(
                f"kernel, stride and dilation are due to be positive, padding 0 or more; got {self}"
            )


# A layer, or branches side by side whose results meet (ASPP, skips): each a sequence of layers, and
# the empty one the identity.
Layer = ConvSpec | tuple[Sequence["Layer"], ...]


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The input pixels that an output pixel depends on, along one axis.

    Attributes:
      size: in pixels; the largest, where fields differ between outputs.
      stride: input pixels from the field of one output to that of the next.
      padding: how many pixels before the first input the field of the first output begins.
    """

    size: int
    stride: int | Fraction
    padding: int


def effective_kernel(kernel: int, *, dilation: int = 1) -> int:
    """The pixels that a dilated kernel spans: `1 + d(k − 1)`.

    Args:
      kernel: `k`, taps.
      dilation: `d`, pixels from one tap to the next.

    Returns:
      The span in pixels.

    Example:
      >>> effective_kernel(3, dilation=2)
      5

    References:
      Chen et al., "DeepLab", 2018, section 3.1.
    """
    return 1 + dilation * (kernel - 1)


def receptive_field(layers: Sequence[Layer]) -> ReceptiveField:
    """The receptive field of layers one after the other: `R_ℓ = R_{ℓ−1} + d_ℓ(k_ℓ − 1)·J_{ℓ−1}`.

    `J_ℓ = J_{ℓ−1}·s_ℓ` is the stride so far. That is counted here from the output back: `n`
    neighbours of one layer see `⌈(n − 1)s⌉ + 1 + d(k − 1)` of the layer before, which holds where a
    decoder halves the stride again too. Of branches, the largest field counts: those of a network
    with usual padding lie within one another.

    Args:
      layers: `ConvSpec`s from input to output; a tuple stands for branches, each a sequence of
        layers.

    Returns:
      Size, stride and padding in input pixels.

    Raises:
      ValueError: if the branches of a layer have different strides.

    Example:
      >>> receptive_field([ConvSpec(7, stride=2, padding=3), ConvSpec(3, stride=2, padding=1)])
      ReceptiveField(size=11, stride=4, padding=5)
      >>> aspp = tuple([ConvSpec(3, dilation=d, padding=d)] for d in (1, 6, 12, 18))
      >>> receptive_field([aspp]).size
      37

    References:
      Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks",
      2019, equations 1 to 3.
    """
    first, size = _see(layers, 0, 1)
    return ReceptiveField(size, _stride(layers), -first)


def _see(layers: Sequence[Layer], first: int, size: int) -> tuple[int, int]:
    """The first pixel, and how many, that `size` outputs from `first` on see."""
    for layer in reversed(layers):
        if isinstance(layer, ConvSpec):
            first = math.floor(first * layer.stride - layer.padding)
            reach = effective_kernel(layer.kernel, dilation=layer.dilation)
            size = math.ceil((size - 1) * layer.stride) + reach
        else:
            seen = [_see(branch, first, size) for branch in layer]
            first, size = min(start for start, _ in seen), max(extent for _, extent in seen)
    return first, size


def _stride(layers: Sequence[Layer]) -> int | Fraction:
    """The product of the strides."""
    stride: int | Fraction = 1
    for layer in layers:
        if isinstance(layer, ConvSpec):
            stride *= layer.stride
            continue
        strides = {_stride(branch) for branch in layer}
        if len(strides) != 1:
            raise ValueError(f"branches have strides {sorted(strides)}; due is one and the same")
        stride *= strides.pop()
    return int(stride) if stride == int(stride) else stride


def min_depth(size: int, *, kernel: int, dilation: int) -> int:
    """The fewest equal layers of stride 1 that see `size` pixels: `⌈(size − 1) / d(k − 1)⌉`.

    Args:
      size: what is to be seen, in pixels.
      kernel: `k`, taps, at least 2.
      dilation: `d`, pixels from one tap to the next.

    Returns:
      The number of layers.

    Raises:
      ValueError: if `size` or `dilation` is not positive, or `kernel` less than 2.

    Example:
      >>> min_depth(100, kernel=3, dilation=2)
      25
    """
    if size < 1 or kernel < 2 or dilation < 1:
        raise ValueError(
            f"size is {size}, kernel {kernel}, dilation {dilation}; due are 1, 2, 1 or more"
        )
    return -(-(size - 1) // (dilation * (kernel - 1)))


def seen_pixels(layers: Sequence[Layer]) -> tuple[int, ...]:
    """The input pixels that the first output depends on; there may be gaps between them.

    Args:
      layers: as of `receptive_field`.

    Returns:
      Their indices, ascending; negative ones lie in the padding.

    Example:
      >>> seen_pixels([ConvSpec(3, dilation=2), ConvSpec(3, dilation=4)])
      (0, 2, 4, 6, 8, 10, 12)
    """
    return tuple(sorted(_trace(layers, {0})))


def _trace(layers: Sequence[Layer], pixels: set[int]) -> set[int]:
    """The inputs that outputs depend on."""
    for layer in reversed(layers):
        if isinstance(layer, ConvSpec):
            starts = {math.floor(pixel * layer.stride - layer.padding) for pixel in pixels}
            pixels = {s + tap * layer.dilation for s in starts for tap in range(layer.kernel)}
        else:
            pixels = set().union(*(_trace(branch, pixels) for branch in layer))
    return pixels


def has_gridding(layers: Sequence[Layer]) -> bool:
    """Whether an output misses pixels within its receptive field.

    So it is where all dilations have a common factor, and where one is too large for the last.


    Args:
      layers: as of `receptive_field`.

    Returns:
      True if there are gaps between the pixels that the first output depends on.

    Example:
      >>> [has_gridding([ConvSpec(3, dilation=d) for d in rates]) for rates in [(2, 4), (1, 2, 5)]]
      [True, False]

    References:
      Wang et al., "Understanding convolution for semantic segmentation", 2018, section 3.2.
    """
    pixels = seen_pixels(layers)
    return pixels[-1] - pixels[0] + 1 > len(pixels)


def skips_objects(layers: Sequence[Layer], *, width: int) -> bool:
    """Whether a dilated kernel may step over the narrowest object: `max_ℓ d_ℓ·J_{ℓ−1} > width`.

    Conservative, as `J_{ℓ−1}` input pixels or more lie under every tap.

    Args:
      layers: as of `receptive_field`.
      width: of the narrowest object, in input pixels.

    Returns:
      True if some taps lie farther apart than the object is wide.

    Example:
      >>> [skips_objects([ConvSpec(3, dilation=d)], width=8) for d in (6, 12)]
      [False, True]
    """
    return _widest_step(layers) > width


def _widest_step(layers: Sequence[Layer]) -> int | Fraction:
    """The most input pixels between two taps of a kernel."""
    widest: int | Fraction = 0
    stride: int | Fraction = 1
    for layer in layers:
        if not isinstance(layer, ConvSpec):
            widest = max(widest, *(stride * _widest_step(branch) for branch in layer))
        elif layer.kernel > 1:
            widest = max(widest, stride * layer.dilation)
        stride *= _stride([layer])
    return widest
