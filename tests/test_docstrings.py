"""Public functions say what they take, give back and raise, in the sections that the site's reference is made of."""

import inspect
import re

import pytest

import flurka_numba
import splat_numba
from splat_numba.formats import patterns

SECTION = re.compile(r"^(\w+)\n-+$", re.MULTILINE)
# A sentence defines each of these; the module says what they raise.
IN_PROSE = {name for name in patterns.__all__ if name != "Pattern"}


def public():
    for package in (splat_numba, flurka_numba):
        for name in package.__all__:
            value = getattr(package, name)
            if inspect.isfunction(value):
                yield pytest.param(value, id=f"{package.__name__}.{name}")


def sections(function):
    """Titles of a docstring's sections, with the lines of each that are not indented: names, or what is raised."""
    parts = SECTION.split(inspect.getdoc(function))
    return {
        title: re.findall(r"^(\S.*?)(?: : .*)?$", text, re.MULTILINE)
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


@pytest.mark.parametrize("function", list(public()))
def test_a_docstring_names_every_parameter_and_what_comes_back(function):
    parameters = list(inspect.signature(function).parameters)
    if function.__name__ in IN_PROSE:
        text = inspect.getdoc(function)
        assert [name for name in parameters if not re.search(rf"\b{name}\b", text)] == []
        return
    found = sections(function)
    named = [name.strip() for line in found["Parameters"] for name in line.split(",")]
    assert sorted(named) == sorted(parameters)
    assert found["Returns"]
    raised = {name.strip() for line in found["Raises"] for name in line.split(",")}
    assert [name for name in raised if not issubclass(getattr(splat_numba.errors, name), splat_numba.SplatError)] == []
