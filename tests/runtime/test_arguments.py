import pytest

from fsq_repro.runtime.arguments import parse_arg

ALLOWED = {"quantizer": ("fsq", "vq"), "bits": (10, 8), "context": (True, False)}


def test_defaults_are_the_first_values():
    assert vars(parse_arg("", **ALLOWED)) == {"quantizer": "fsq", "bits": 10, "context": True}
    assert vars(parse_arg(None, **ALLOWED)) == vars(parse_arg("", **ALLOWED))


def test_values_keep_their_type():
    a = parse_arg("bits=8,context=false", **ALLOWED)
    assert a.bits == 8 and a.context is False


@pytest.mark.parametrize(
    ("arg", "words"),
    [
        ("bitz=8", ("bitz=8", "quantizer, bits, context")),
        ("bits=9", ("bits='9'", "10, 8")),
        ("vq", ("'vq'", "KEY=VALUE")),
        ("bits=8,bits=10", ("twice",)),
    ],
)
def test_bad_arguments_are_named_with_what_is_allowed(arg, words):
    with pytest.raises(ValueError) as e:
        parse_arg(arg, **ALLOWED)
    assert all(w in str(e.value) for w in words)
