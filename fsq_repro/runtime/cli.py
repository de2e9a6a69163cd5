"""How the scripts start: what a user can mend is printed as one sentence, with exit code 2 and no traceback."""

import errno
import os
import pathlib
import re
import site
import sys
import traceback
from collections.abc import Callable

from absl import app, flags

from fsq_repro.errors import UserError
from fsq_repro.files import printable

NO_CONFIG = "Configuration is not available because of an earlier failure to load:"  # config_flags, at the first use


def run(main: Callable[..., int | None], *, arguments: bool = False) -> None:
    """Parses the flags and calls `main`; its return value is the exit code.

    With `arguments`, what stands on the command line besides flags is given to `main` as a list; else it is refused.
    The script lies in a folder of the checkout, whose root is put on `sys.path` before a config file is read: configs
    import each other as `configs.x`, and are not installed. What the locale's encoding lacks is printed as \\x...
    """
    sys.path.insert(0, str(pathlib.Path(sys.argv[0]).resolve().parents[1]))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
        except Exception as e:  # a config file is a program of the user's, which may raise anything
            _exit(_one_sentence(e))
        if rest[1:] and not arguments:
            _exit(f"argument {rest[1]!r} is not a flag; flags begin with --")
        return rest

    def guarded(rest: list[str]) -> int | None:
        try:
            return main(rest[1:]) if arguments else main()
        except UserError as e:
            return _exit(str(e))
        except (OSError, RuntimeError, AssertionError) as e:
            if str(e).startswith(NO_CONFIG):
                _exit(_one_sentence(e))
            if _finds_no_device(e):
                platforms = os.environ.get("JAX_PLATFORMS", "")
                _exit(f"JAX_PLATFORMS = {platforms!r} names no device that JAX finds here; cpu is always there")
            if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
                where = f" ({printable(e.filename)})" if e.filename else ""
                _exit(f"{e.strerror}{where}; make room and start the same command again")
            raise

    app.run(guarded, flags_parser=parse)


def _exit(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def _one_sentence(error: Exception) -> str:
    """What was raised, by a flag or a config file, as one sentence that says where."""
    message = str(error)
    if message.startswith(NO_CONFIG):
        message = message.removeprefix(NO_CONFIG)
        missing = re.search(r"\[Errno \d+\] (.+)", message)
        return f"the config file cannot be read: {missing[1] if missing else ' '.join(message.split())}"
    # config_flags wraps a ValueError or TypeError of a config file into one with the traceback as its text.
    raised = re.findall(r"^\s*\w*(?:Error|Exception): (.+)$", message, re.MULTILINE)
    if isinstance(error, ValueError | TypeError | flags.Error):
        return raised[-1] if raised else " ".join(message.split())
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    if isinstance(error, KeyError) and error.args:
        message = str(error.args[0])
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    if places:
        return f"{places[-1].filename}, line {places[-1].lineno}: {type(error).__name__}: {' '.join(message.split())}"
    for flag in (arg.partition("=")[0] for arg in sys.argv[1:] if arg.startswith("--")):
        if any(part in re.findall(r"\w+", message) for part in flag.split(".")[1:]):
            hint = re.search(r"Did you mean .+\?", message)
            return f"{flag} is not a field of the config{f'; {hint[0]}' if hint else ''}"
    return " ".join(message.split())


def _finds_no_device(error: Exception) -> bool:
    """Of JAX, when it is first asked for devices; without a GPU the platform cuda fails an assertion of its own."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    asserted = isinstance(error, AssertionError) and last.name == "backends" and "xla_bridge" in last.filename
    return asserted or str(error).startswith("Unable to initialize backend")


def _is_users(file: str) -> bool:
    """Whether code is neither of Python, of a package, nor of what starts the script."""
    path = pathlib.Path(file).resolve()
    ours = pathlib.Path(__file__).resolve().parents[1]
    libraries = [pathlib.Path(folder).resolve() for folder in (*site.getsitepackages(), sys.base_prefix, ours)]
    script = pathlib.Path(sys.argv[0]).resolve()
    return path.is_file() and path != script and not any(path.is_relative_to(library) for library in libraries)
