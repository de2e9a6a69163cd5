"""The examples in the docstrings of the quantizers run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

from fsq_repro import quantizers


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(quantizers.__path__)])
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(f"fsq_repro.quantizers.{name}"))
    assert not failed
