"""Appearance and difficulty of synthetic scenes."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SceneStyle:
    """Appearance and difficulty of synthetic scenes.

    Attributes:
      max_instances: Largest number of things in a scene.
      size: Least and largest radius of a thing, as shares of the scene's shorter side.
      hue_spread: Half the width of the triangular distribution of a shape's hues, in distances
        between the mean hues of neighbouring shapes: above 0.5 neighbours overlap. None gives all
        shapes the same hues, so that colour does not tell them apart.
      own_pattern: Probability that a thing has the pattern of its shape instead of a random one.
      saturation: Least and largest saturation of things, in 0..1.
      stuff_saturation: Least and largest saturation of stuff, in 0..1.

    Raises:
      ValueError: if a value is out of its range.

    Example:
      >>> from segjax import data
      >>> data.SceneStyle(max_instances=2).size
      (0.25, 0.42)
    """

    max_instances: int = 4
    size: tuple[float, float] = (0.25, 0.42)
    hue_spread: float | None = 1.8
    own_pattern: float = 0.9
    saturation: tuple[float, float] = (0.6, 1.0)
    stuff_saturation: tuple[float, float] = (0.1, 0.4)

    def __post_init__(self) -> None:
        ranges = {
            "max_instances": (self.max_instances >= 1, "at least 1"),
            "size": (0 < self.size[0] <= self.size[1] <= 1, "two rising shares above 0"),
            "hue_spread": (
                self.hue_spread is None or self.hue_spread >= 0,
                "None or at least 0",
            ),
            "own_pattern": (0 <= self.own_pattern <= 1, "a probability in 0..1"),
            **{
                name: (0 <= low <= high <= 1, "two rising numbers in 0..1")
                for name in ("saturation", "stuff_saturation")
                for low, high in [getattr(self, name)]
            },
        }
        for name, (holds, expected) in ranges.items():
            if not holds:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")


# Only their shapes tell things apart, so that training takes more steps, or an accelerator.
OUTLINES = SceneStyle(
    max_instances=8,
    size=(0.12, 0.3),
    hue_spread=None,
    own_pattern=0.0,
    saturation=(0.25, 0.75),
    stuff_saturation=(0.25, 0.75),
)
