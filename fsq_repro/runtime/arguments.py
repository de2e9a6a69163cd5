"""The part of `--config=FILE:ARG` behind the colon: `key=value,key=value`, every key with its allowed values."""

from types import SimpleNamespace


def parse_arg(arg: str | None, **allowed: tuple) -> SimpleNamespace:
    """Reads `key=value,...` against the allowed values (str, int or bool); the first of a key is its default.

    Returns a namespace with one typed attribute per key. ValueError for an unknown key or value, or a key given twice.
    """
    values = {}
    for part in filter(None, (arg or "").split(",")):
        key, equals, text = part.partition("=")
        if key not in allowed or not equals:
            raise ValueError(f"config argument {part!r} is not KEY=VALUE with a KEY of {', '.join(allowed)}")
        by_text = {str(option).lower(): option for option in allowed[key]}
        if text.lower() not in by_text:
            raise ValueError(f"config argument {key}={text!r} is not allowed; choose one of {', '.join(by_text)}")
        if key in values:
            raise ValueError(f"config argument {key} is given twice in {arg!r}")
        values[key] = by_text[text.lower()]
    return SimpleNamespace(**{key: options[0] for key, options in allowed.items()} | values)
