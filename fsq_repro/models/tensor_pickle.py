"""The part of pickle that `torch.save` writes, read by an interpreter of our own.

A pickle is a program. Python's own reader, even if it is lent no harmful name, can be made to fill the memory (a file
chooses the places in its memo, which is one array), to crash (hashes of deeply nested keys) or to change the functions
that it is lent. This one knows the instructions that tensors in dicts need, and no others; torch's own
`torch/_weights_only_unpickler.py` does the same.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

MAX_INSTRUCTIONS = 2_000_000  # a tensor takes some 40


class Refused(Exception):
    """What is wrong with the file, as the end of a sentence that begins with its name."""


def load(file: BinaryIO, functions: Mapping[tuple[str, str], Any], persistent: Callable[[Any], Any]) -> Any:
    """Reads one pickle, and leaves the file behind its end.

    Args:
      functions: {(module, name): what the pickle gets for it, and may call}.
      persistent: makes the object that a persistent id stands for.

    Raises Refused for what torch.save does not write, errors of many kinds where the pickle is damaged.
    """
    stack: list[Any] = []
    below_marks: list[list[Any]] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, below_marks.pop()
        return items

    def pop(count: int) -> list[Any]:
        if len(stack) < count:
            raise IndexError("pop from an empty stack")
        items = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return items

    for position, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if position == MAX_INSTRUCTIONS:
            raise Refused(f"has a pickle of more than {MAX_INSTRUCTIONS:,} instructions")
        match instruction.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(instruction.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case (
                "BINSTRING" | "SHORT_BINSTRING"
            ):  # of Python 2; taken for UTF-8 as torch does, by pickletools for Latin-1
                stack.append(argument.encode("latin-1").decode())
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(instruction.name[-1]))))
            case "MARK":
                below_marks.append(stack)
                stack = []
            case "TUPLE":
                items = pop_to_mark()
                stack.append(tuple(items))
            case "APPEND" | "APPENDS":
                items = pop(1) if instruction.name == "APPEND" else pop_to_mark()
                _of_type(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = pop(2) if instruction.name == "SETITEM" else pop_to_mark()
                _of_type(stack[-1], dict).update(checked_pairs(zip(items[::2], items[1::2], strict=True)))
            case "BUILD":  # sets attributes, such as the _metadata of a module's OrderedDict: not wanted
                pop(1)
                _of_type(stack[-1], dict)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL" | "STACK_GLOBAL":
                name = tuple(argument.split(" ", 1)) if instruction.name == "GLOBAL" else tuple(pop(2))
                if not all(isinstance(part, str) for part in name) or name not in functions:
                    shown = ".".join(part for part in name if isinstance(part, str))
                    raise Refused(f"asks for {shown}, but only tensors in a dict may be in it")
                stack.append(functions[name])
            case "BINPERSID":
                stack.append(persistent(*pop(1)))
            case "REDUCE":
                function, arguments = pop(2)
                if not callable(function):
                    raise Refused("calls what is no function")
                stack.append(function(*_of_type(arguments, tuple)))
            case _:
                raise Refused(f"has {instruction.name} in its pickle, which torch.save does not write")
    (value,) = pop(1)
    return value


def checked_pairs(pairs: Any) -> list[tuple[Any, Any]]:
    """Key and value pairs for a dict; Refused for keys that are no strings or numbers: a hash may take for ever."""
    checked = [(key, value) for key, value in pairs]
    if not all(isinstance(key, str | int) for key, _ in checked):
        raise Refused("has a dict with a key that is neither a string nor a number")
    return checked


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise Refused(f"takes a {type(value).__name__} for a {kind.__name__}")
    return value
