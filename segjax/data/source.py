"""The interface of data sources, and their classes."""

import abc
import dataclasses

import jax
import numpy as np

from segjax.typing import Record


@dataclasses.dataclass(frozen=True)
class Classes:
    """Names, display colours and ids of classes.

    Labels and predictions number the classes from 0 on; files that are written, such as masks and
    COCO's JSON, have the data set's own ids.

    Attributes:
      names: name of each class.
      colors: colour of each class, RGB in 0..255.
      things: for each class, whether it is a thing, whose objects are counted one by one; empty if
        unknown.
      ids: id of each class in the data set's files; by default 0, 1, 2 ….

    Example:
      >>> from segjax import data
      >>> data.Classes(("cat", "dog"), ((9, 9, 9), (200, 0, 0))).ids
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

    `read` runs on the host, in threads, and reads files. `render` is a pure function that runs
    inside the compiled step: a source that draws its examples from a random key does all of its
    work there, and the host sends only an index.

    Attributes:
      classes: names and colours of its classes.
      channels: number of channels of its images.
      sizes: int `[n, 2]`, (height, width) of every example, known without reading it.
    """

    classes: Classes
    channels: int
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    @abc.abstractmethod
    def read(self, index: int) -> Record:
        """Reads example `index` on the host: NumPy arrays without batch axes."""

    def render(self, record: Record) -> Record:
        """Completes a record from `read` on the device. Traced, without batch axes."""
        return record

    def __getitem__(self, index: int) -> Record:
        """Example `index`, read and rendered, as NumPy arrays."""
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"index: expected below {len(self)}, the number of examples, got {index}"
            )
        return jax.device_get(self.render(self.read(index % len(self))))
