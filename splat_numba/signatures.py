"""Calls with arguments that a function has not, or without those that it needs: an error of ours that names one.

Python finds them before a function begins, so the function is called within `try`, which costs a good call 0.1 us.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from splat_numba.errors import ArgumentTypeError, SplatError

P = ParamSpec("P")
R = TypeVar("R")


def strict(
    hints: Mapping[str, str] | None = None, error: type[SplatError] = ArgumentTypeError
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: arguments that do not fit the signature raise ``error``, which begins with an argument's name.

    hints: what to write instead of keywords that others have, by their names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def checked(*args: P.args, **options: P.kwargs) -> R:
            try:
                return function(*args, **options)
            except TypeError as found:
                if found.__traceback__ is None or found.__traceback__.tb_next is not None:
                    raise  # from within the function
            raise error(_complaint(function, args, options, hints or {}))

        return checked

    return decorate


def _complaint(
    function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any], hints: Mapping[str, str]
) -> str:
    """What does not fit."""
    name, given, parameters = function.__name__, len(args), dict(inspect.signature(function).parameters)
    if parameters.pop("self", None) is not None:
        given -= 1
        name = type(args[0]).__name__ if name in ("__init__", "__call__") else name
    if parameters.pop("cls", None) is not None:
        given -= 1
        name = f"{args[0].__name__}.{name}"
    unknown = [keyword for keyword in options if keyword not in parameters]
    if unknown:
        return _unknown(name, unknown[0], [*parameters], hints)
    places = [one.name for one in parameters.values() if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    twice = [keyword for keyword in options if keyword in places[:given]]
    if twice:
        return f"{twice[0]} wanted once by {name}, got it by place and by name. Leave one of them out."
    if given > len(places):
        named = [one for one in parameters if one not in places]
        if named:
            return f"{named[0]} wanted by name in {name}, got {given} arguments by place. Write {named[0]}=..."
        last = places[-1] if places else "arguments"
        return f"{last} wanted as the last of {name}'s arguments, got {given} by place. Leave out the others."
    missing = [
        one.name
        for one in parameters.values()
        if one.default is inspect.Parameter.empty and one.name not in places[:given] and one.name not in options
    ]
    return f"{missing[0]} wanted by {name}, got nothing. Give it: help({name}) says what it is."


def _unknown(name: str, keyword: str, parameters: list[str], hints: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(keyword, parameters, n=1, cutoff=0.75)
    if keyword in hints:
        advice = hints[keyword]
    elif close:
        advice = f"Did you mean {close[0]}?"
    else:
        advice = f"There are: {', '.join(parameters)}." if parameters else "Leave it out."
    return f"{keyword} wanted left out, because {name} has no such argument. {advice}"
