"""Receptive fields of convolutional networks, computed from their layers, for one axis."""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction


@dataclasses.dataclass(frozen=True)
class ConvSpec:
    """A convolution or pooling along one axis: output `i` sees inputs `⌊i·s − p⌋ + t·d`, `t < k`.

    Attributes:
      kernel: Number of taps `k`, at least 1.
      stride: Input pixels `s` between neighbouring outputs. `Fraction(1, 2)` doubles the
        resolution: with kernel 1 as a transposed convolution of kernel 2 and stride 2 or as nearest
        interpolation, with kernel 2 and padding ½ as linear interpolation.
      dilation: Input pixels `d` between neighbouring taps, at least 1.
      padding: Padded pixels `p` before the first input, at least 0.

    Example:
      >>> from segjax import ops
      >>> ops.ConvSpec(3, dilation=2, padding=2)
      ConvSpec(kernel=3, stride=1, dilation=2, padding=2)
    """

    kernel: int
    stride: int | Fraction = 1
    dilation: int = 1
    padding: int | Fraction = 0

    def __post_init__(self):
        if self.kernel < 1 or self.dilation < 1 or self.stride <= 0 or self.padding < 0:
            raise ValueError(
                "kernel, stride, dilation, padding: expected three positive numbers and 0 or more, "
                f"got {self.kernel}, {self.stride}, {self.dilation}, {self.padding}"
            )


# A layer, or parallel branches whose results are joined (ASPP, skips). Each branch is a sequence of
# layers; an empty one is the identity.
Layer = ConvSpec | tuple[Sequence["Layer"], ...]


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The input pixels that an output pixel depends on, along one axis.

    Attributes:
      size: Size in input pixels; the largest if it differs between outputs.
      stride: Input pixels between the fields of neighbouring outputs.
      padding: Input pixels by which the field of the first output starts before the first input.
    """

    size: int
    stride: int | Fraction
    padding: int


def effective_kernel(kernel: int, *, dilation: int = 1) -> int:
    """Span of a dilated kernel in pixels: `1 + d(k − 1)`.

    Args:
      kernel: Number of taps `k`.
      dilation: Pixels `d` between neighbouring taps.

    Returns:
      The span in pixels.

    Example:
      >>> from segjax import ops
      >>> ops.effective_kernel(3, dilation=2)
      5

    References:
      Chen et al., "DeepLab", 2018, section 3.1.
    """
    return 1 + dilation * (kernel - 1)


def receptive_field(layers: Sequence[Layer]) -> ReceptiveField:
    """Receptive field of a sequence of layers: `R_ℓ = R_{ℓ−1} + d_ℓ(k_ℓ − 1)·J_{ℓ−1}`.

    `J_ℓ = J_{ℓ−1}·s_ℓ` is the stride up to layer ℓ. It is computed from the output back: `n`
    neighbouring outputs of a layer see `⌈(n − 1)s⌉ + 1 + d(k − 1)` of its inputs, which also holds
    for decoders that increase the resolution. Of parallel branches the largest field counts, which
    contains the others if the layers are padded as usual.

    Args:
      layers: `ConvSpec`s from input to output; a tuple stands for parallel branches, each a
        sequence of layers.

    Returns:
      Size, stride and padding of the field in input pixels.

    Raises:
      ValueError: If the branches of a layer have different strides.

    Example:
      >>> from segjax import ops
      >>> stem = [ops.ConvSpec(7, stride=2, padding=3), ops.ConvSpec(3, stride=2, padding=1)]
      >>> ops.receptive_field(stem)
      ReceptiveField(size=11, stride=4, padding=5)
      >>> aspp = tuple([ops.ConvSpec(3, dilation=d, padding=d)] for d in (1, 6, 12, 18))
      >>> ops.receptive_field([aspp]).size
      37

    References:
      Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks",
      2019, equations 1 to 3.
    """
    first, size = _see(layers, 0, 1)
    return ReceptiveField(size, _stride(layers), -first)


def _see(layers: Sequence[Layer], first: int, size: int) -> tuple[int, int]:
    """First input pixel, and number of them, that `size` outputs from `first` on see."""
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
            raise ValueError(f"layers: expected branches of one stride, got {sorted(strides)}")
        stride *= strides.pop()
    return int(stride) if stride == int(stride) else stride


def min_depth(size: int, *, kernel: int, dilation: int) -> int:
    """Fewest layers of stride 1 that see `size` pixels: `⌈(size − 1)/d(k − 1)⌉`.

    Args:
      size: Size to cover in pixels, at least 1.
      kernel: Number of taps `k` of each layer, at least 2.
      dilation: Pixels `d` between neighbouring taps, at least 1.

    Returns:
      The number of layers.

    Raises:
      ValueError: If `size` or `dilation` is not positive, or `kernel` less than 2.

    Example:
      >>> from segjax import ops
      >>> ops.min_depth(100, kernel=3, dilation=2)
      25
    """
    if size < 1 or kernel < 2 or dilation < 1:
        raise ValueError(
            f"size, kernel, dilation: expected at least 1, 2, 1, got {size}, {kernel}, {dilation}"
        )
    return -(-(size - 1) // (dilation * (kernel - 1)))


def seen_pixels(layers: Sequence[Layer]) -> tuple[int, ...]:
    """The input pixels that the first output depends on, which may have gaps between them.

    Args:
      layers: `ConvSpec`s from input to output; a tuple stands for parallel branches, each a
        sequence of layers.

    Returns:
      Indices of the pixels, ascending; negative ones lie in the padding.

    Example:
      >>> from segjax import ops
      >>> ops.seen_pixels([ops.ConvSpec(3, dilation=2), ops.ConvSpec(3, dilation=4)])
      (0, 2, 4, 6, 8, 10, 12)
    """
    return tuple(sorted(_trace(layers, {0})))


def _trace(layers: Sequence[Layer], pixels: set[int]) -> set[int]:
    """The inputs that the outputs `pixels` depend on."""
    for layer in reversed(layers):
        if isinstance(layer, ConvSpec):
            starts = {math.floor(pixel * layer.stride - layer.padding) for pixel in pixels}
            pixels = {s + tap * layer.dilation for s in starts for tap in range(layer.kernel)}
        else:
            pixels = set().union(*(_trace(branch, pixels) for branch in layer))
    return pixels


def has_gridding(layers: Sequence[Layer]) -> bool:
    """Whether an output ignores pixels within its receptive field (the gridding effect).

    This happens if all dilations have a common factor, or if one is too large for the layer before.

    Args:
      layers: `ConvSpec`s from input to output; a tuple stands for parallel branches, each a
        sequence of layers.

    Returns:
      True if there are gaps between the pixels that the first output depends on.

    Example:
      >>> from segjax import ops
      >>> ops.has_gridding([ops.ConvSpec(3, dilation=d) for d in (2, 4)])
      True
      >>> ops.has_gridding([ops.ConvSpec(3, dilation=d) for d in (1, 2, 5)])
      False

    References:
      Wang et al., "Understanding convolution for semantic segmentation", 2018, section 3.2.
    """
    pixels = seen_pixels(layers)
    return pixels[-1] - pixels[0] + 1 > len(pixels)


def skips_objects(layers: Sequence[Layer], *, width: int) -> bool:
    """Whether a dilated kernel can step over the narrowest object: `max_ℓ d_ℓ·J_{ℓ−1} > width`.

    Conservative, as every tap covers at least `J_{ℓ−1}` input pixels.

    Args:
      layers: `ConvSpec`s from input to output; a tuple stands for parallel branches, each a
        sequence of layers.
      width: Width of the narrowest object in input pixels.

    Returns:
      True if two neighbouring taps are farther apart than the object is wide.

    Example:
      >>> from segjax import ops
      >>> ops.skips_objects([ops.ConvSpec(3, dilation=12)], width=8)
      True
    """
    return _widest_step(layers) > width


def _widest_step(layers: Sequence[Layer]) -> int | Fraction:
    """The greatest distance between neighbouring taps of a kernel, in input pixels."""
    widest: int | Fraction = 0
    stride: int | Fraction = 1
    for layer in layers:
        if not isinstance(layer, ConvSpec):
            widest = max(widest, *(stride * _widest_step(branch) for branch in layer))
        elif layer.kernel > 1:
            widest = max(widest, stride * layer.dilation)
        stride *= _stride([layer])
    return widest
