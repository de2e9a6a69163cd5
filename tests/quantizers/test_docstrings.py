"""The examples in the docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

from fsq_repro import quantizers

MODULES = [m.name for m in pkgutil.iter_modules(quantizers.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"fsq_repro.quantizers.{name}")
    assert not doctest.testmod(module).failed


def test_every_quantizer_has_an_example():
    without = [name for name, cls in quantizers.QUANTIZERS.items() if ">>>" not in cls.__doc__]
    assert not without
