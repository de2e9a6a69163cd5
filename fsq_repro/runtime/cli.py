"""How the scripts start: what a user can mend is printed as one sentence, with exit code 2 and no traceback."""

import errno
import pathlib
import re
import sys
from collections.abc import Callable

from absl import app, flags

from fsq_repro.errors import UserError
from fsq_repro.files import printable


def run(main: Callable[..., int | None], *, arguments: bool = False) -> None:
    """Parses the flags and calls `main`; its return value is the exit code.

    With `arguments`, what stands on the command line besides flags is given to `main` as a list; else it is refused.
    The script lies in a folder of the checkout, whose root is put on `sys.path` before a config file is read: configs
    import each other as `configs.x`, and are not installed.
    """
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files can be anything; stderr does it by itself
    sys.path.insert(0, str(pathlib.Path(sys.argv[0]).resolve().parents[1]))

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
        except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError) as e:
            _exit(_one_sentence(e))
        if rest[1:] and not arguments:
            _exit(f"argument {rest[1]!r} is not a flag; flags begin with --")
        return rest

    def guarded(rest: list[str]) -> int | None:
        try:
            return main(rest[1:]) if arguments else main()
        except UserError as e:
            return _exit(str(e))
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = f" ({printable(e.filename)})" if e.filename else ""
            return _exit(f"{e.strerror}{where}; make room and start the same command again")

    app.run(guarded, flags_parser=parse)


def _exit(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def _one_sentence(error: Exception) -> str:
    """config_flags wraps what a config file raises into a message with its traceback; the last line says it."""
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    raised = re.findall(r"^\s*\w*(?:Error|Exception): (.+)$", message, re.MULTILINE)
    return raised[-1] if raised else " ".join(message.split())
