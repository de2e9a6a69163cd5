"""Flags for files and folders that a script writes, checked when the command line is read: before any work is done."""

from absl import flags

from fsq_repro.files import check_output

flags.disclaim_key_flags()  # they belong to the script, which lists them under --help


def define_output_file(name: str, help_text: str, *, suffix: str = "", required: bool = False) -> None:
    """A flag for the path of a file; `suffix`: how its name must end."""
    flags.DEFINE_string(name, None, help_text, required=required)
    flags.register_validator(name, lambda path: path is None or _check(path, suffix=suffix))


def define_output_files(name: str, help_text: str) -> None:
    """A flag for the path of a file that may be given several times."""
    flags.DEFINE_multi_string(name, [], help_text)
    flags.register_validator(name, lambda paths: all(_check(path) for path in paths))


def define_output_folder(name: str, default: str | None, help_text: str, *, required: bool = False) -> None:
    """A flag for the path of a folder, which may be there already."""
    flags.DEFINE_string(name, default, help_text, required=required)
    flags.register_validator(name, lambda path: path is None or _check(path, is_folder=True))


def _check(path: str, *, suffix: str = "", is_folder: bool = False) -> bool:
    if not path.lower().endswith(suffix):
        raise flags.ValidationError(f"the name must end in {suffix}")
    try:
        check_output(path, is_folder=is_folder)
    except ValueError as e:
        raise flags.ValidationError(str(e)) from e
    return True
