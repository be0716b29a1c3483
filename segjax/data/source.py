"""What every source of examples offers: the host reads, the device renders."""

import abc
import dataclasses

import jax
import numpy as np

from segjax.typing import Record


@dataclasses.dataclass(frozen=True)
class Classes:
    """The names and display colours of a source's classes, by class.

    Labels and predictions number the classes from 0 on; what is written to files, such as masks
    and COCO's JSON, has the data set's own ids.

    Attributes:
      names: one a class.
      colors: RGB in 0..255, one a class.
      things: whether a class's objects are counted one by one, one a class; empty where nobody
        said.
      ids: what the data set's files call each class; left empty, they become 0, 1, 2 ….

    Example:
      >>> Classes(("cat", "dog"), ((9, 9, 9), (200, 0, 0))).ids
      (0, 1)
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    things: tuple[bool, ...] = ()
    ids: tuple[int, ...] = ()

    def __post_init__(self):
        if not self.ids:
            object.__setattr__(self, "ids", tuple(range(len(self.names))))
        if len(set(self.ids)) != len(self.names):
            raise ValueError(f"ids: expected {len(self.names)} different ones, got {self.ids}")

    def __len__(self) -> int:
        return len(self.names)


class Source(abc.ABC):
    """Random access to the examples of one split.

    `read` runs on the host, in threads, and does what only a host can: files. `render` is a pure
    function that runs inside the compiled step: a source that draws its examples from a key does
    all its work there, and then the host sends nothing but an index.

    Attributes:
      classes: names and colours by class id.
      channels: of its images.
      sizes: int `[n, 2]`, (height, width) of every example, known without reading it.
    """

    classes: Classes
    channels: int
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    @abc.abstractmethod
    def read(self, index: int) -> Record:
        """The host's part of example `index`: NumPy arrays without batch axes."""

    def render(self, record: Record) -> Record:
        """The device's part: a whole record from what `read` gave. Traced, without batch axes."""
        return record

    def __getitem__(self, index: int) -> Record:
        """The whole example `index`, as NumPy arrays."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} examples")
        return jax.device_get(self.render(self.read(index % len(self))))
