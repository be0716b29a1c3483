"""Damaged copies of files, drawn from a seed, and what a reader may say of them.

A reader joins by a function that writes its files into a folder and one that reads them again; see
`test_data_files.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# What stands in files where something else should: of every type, and beyond every range.
HOSTILE = [None, True, -1, 0, 1, 255, 2**16, 2**31, 2**53, 2**63 - 1, 2**64, 10**400, -(2**63)]
HOSTILE += [0.5, -0.0, 1e39, 1e308, float("nan"), float("inf"), [], {}, [[]], [None], [[[[0]]]]]
HOSTILE += ["", "0", "a", "\0", "\ud800", "\x1b[2J", "..", "../a.png", "/etc/passwd", "a" * 5000]
HOSTILE += [[0, 2**63 - 1, 2**63 - 1, 2], "oooooooo0" * 3, [1e308, 1e308, 1e308, 1e308] * 2]


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """A copy in which bytes are flipped, cut off, emptied, repeated, or put in between."""
    pixels = np.frombuffer(data, np.uint8).copy()
    start, end = np.sort(generator.integers(len(pixels) + 1, size=2))
    match generator.integers(6):
        case 0:
            places = generator.integers(len(pixels), size=generator.integers(1, 9))
            pixels[places] ^= (1 << generator.integers(8, size=len(places))).astype(np.uint8)
        case 1:
            pixels = pixels[:start]
        case 2:
            pixels[start : start + 8] = generator.choice([0, 127, 128, 255])
        case 3:
            pixels = np.concatenate([pixels[:end], pixels[start:]])
        case 4:
            pixels = np.delete(pixels, slice(start, start + generator.integers(1, 9)))
        case 5:
            pixels = np.insert(pixels, start, generator.integers(256, size=4, dtype=np.uint8))
    return pixels.tobytes()


def damaged_json(data: bytes, generator: np.random.Generator) -> bytes:
    """A copy in which a value, or one of the values in it, and so on, is another or missing."""
    content = json.loads(data)
    here: Any = content
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = keys[generator.integers(len(keys))]
        if isinstance(here[key], dict | list) and here[key] and generator.random() < 0.8:
            here = here[key]
            continue
        match generator.integers(4):
            case 0:
                del here[key]
            case 1 if isinstance(here, list):
                here.append(here[key])
            case _:
                here[key] = HOSTILE[generator.integers(len(HOSTILE))]
        break
    return json.dumps(content).encode()


def survive(
    read: Callable[[Path], Any],
    folder: Path,
    *,
    count: int,
    seed: int = 0,
    expected: tuple[type[Exception], ...],
) -> int:
    """Reads a folder of files many times, each time with one of them damaged.

    Args:
      read: reads all there is in the folder.
      folder: of the files, which are whole again in the end.
      count: how often.
      seed: of the damage.
      expected: what `read` may raise; the message must name the folder, and be printable.

    Returns:
      How many times it was an error.
    """
    read(folder)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    errors = 0
    for number in range(count):
        generator = np.random.default_rng([seed, number])
        file = files[generator.integers(len(files))]
        whole = file.read_bytes()
        structured = file.suffix == ".json" and generator.random() < 0.9
        file.write_bytes((damaged_json if structured else damaged)(whole, generator))
        message = None
        try:
            read(folder)
        except expected as error:
            message = str(error)
        except Exception as error:
            raise AssertionError(f"{file}, damage {number}: {error!r}") from error
        finally:
            file.write_bytes(whole)
        if message is not None:
            errors += 1
            assert str(folder) in message, (number, message)
            assert message.replace("\n", "").isprintable(), (number, message)
    return errors
