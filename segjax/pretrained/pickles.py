"""Safe reading of pickles: nothing that they name is imported, built or called."""

import dataclasses
import io
import mmap
import pickletools
from collections.abc import Callable, Sequence
from typing import Any

# A pickle of this many steps takes seconds to read; torch's have about 40 an array.
_MOST_STEPS = 4_000_000
_DICTS = ("builtins.dict", "__builtin__.dict", "collections.OrderedDict", "collections.defaultdict")


@dataclasses.dataclass(frozen=True, eq=False)
class Name:
    """A name that a pickle would import, "MODULE.NAME"."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A call of an imported class or function in a pickle, which is not carried out.

    Attributes:
      name: name of the class or function.
      arguments: arguments of the call.
      attributes: what the pickle sets on the object afterwards, by name.
    """

    name: str
    arguments: tuple
    attributes: dict[str | int, Any] = dataclasses.field(default_factory=dict, repr=False)


def read_pickle(file: io.BytesIO | mmap.mmap, persistent: Callable[[Any], Any]) -> Any:
    """Reads a pickle, up to its end in the file.

    Numbers, strings, tuples, lists and dicts are read as such, but of dicts only the entries whose
    key is a string or an integer. Everything else becomes a `Call` or a `Name`.

    Args:
      file: file at the start of the pickle.
      persistent: function from a persistent id to the object that stands for it.

    Returns:
      The object.

    Raises:
      ValueError: if the pickle is damaged, or has more than four million steps.

    Example:
      >>> import io
      >>> from segjax.pretrained.pickles import read_pickle
      >>> import pickle
      >>> content = pickle.dumps({"a": [1, 2.5], "b": 1j})
      >>> read_pickle(io.BytesIO(content), lambda id: id)
      {'a': [1, 2.5], 'b': Call(name='builtins.complex', arguments=(0.0, 1.0))}
    """
    try:
        return _run(file, persistent)
    except (LookupError, TypeError, AttributeError) as error:  # the stack holds something else
        raise ValueError(f"damaged pickle ({error})") from error


def _run(file: Any, persistent: Callable[[Any], Any]) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    argument: Any

    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if step == _MOST_STEPS:
            raise ValueError(f"more than {_MOST_STEPS} steps in a pickle")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "POP":
                stack.pop()
            case "POP_MARK":
                _pop_to_mark(stack, marks)
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(opcode.name[-1])
                stack[-length:] = [tuple(stack[-length:])]
            case "TUPLE":
                stack.append(tuple(_pop_to_mark(stack, marks)))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(_pop_to_mark(stack, marks))
            case "APPEND":
                _extend(stack[-2], [stack.pop()])
            case "APPENDS" | "ADDITEMS":
                items = _pop_to_mark(stack, marks)
                _extend(stack[-1], items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                entries: dict[str | int, Any] = {}
                _update(entries, _pop_to_mark(stack, marks))
                stack.append(entries)
            case "SETITEM":
                _update(stack[-3], [stack.pop(-2), stack.pop()])
            case "SETITEMS":
                items = _pop_to_mark(stack, marks)
                _update(stack[-1], items)
            case "EMPTY_SET":
                stack.append(Call("builtins.set", ()))
            case "FROZENSET":
                stack.append(Call("builtins.frozenset", tuple(_pop_to_mark(stack, marks))))
            case "GLOBAL":
                stack.append(Name(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(Name(f"{module}.{name}"[:1000]))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function.name, arguments))
            case "NEWOBJ_EX":
                _, arguments, function = stack.pop(), stack.pop(), stack.pop()
                stack.append(_call(function.name, arguments))
            case "INST":
                stack.append(_call(argument.replace(" ", "."), _pop_to_mark(stack, marks)))
            case "OBJ":
                function, *arguments = _pop_to_mark(stack, marks)
                stack.append(_call(function.name, arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Call) and isinstance(state, dict):
                    stack[-1].attributes.update(state)
            case "BINPERSID":
                stack.append(persistent(stack.pop()))
            case "PERSID":
                stack.append(persistent(argument))
            case "EXT1" | "EXT2" | "EXT4":
                stack.append(Name(f"extension {argument}"))
            case "NEXT_BUFFER" | "READONLY_BUFFER":
                raise ValueError("buffers outside a pickle")
            case _:  # numbers and strings
                stack.append(argument)
    raise ValueError("a pickle without an end")


def _pop_to_mark(stack: list, marks: list[int]) -> list:
    start = marks.pop()
    items = stack[start:]
    del stack[start:]
    return items


def _call(name: str, arguments: Sequence) -> Any:
    return {} if name in _DICTS else Call(name, tuple(arguments))


def _extend(target: Any, items: list) -> None:
    if isinstance(target, list):  # not a `Call`
        target.extend(items)


def _update(target: Any, items: list) -> None:
    if isinstance(target, dict):
        pairs = zip(items[::2], items[1::2], strict=True)
        target.update({key: value for key, value in pairs if isinstance(key, str | int)})
