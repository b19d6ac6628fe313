"""Builders that differ from another one in their defaults only: a published method as settings of a family."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def variant(builder: Callable, name: str, module: str, description: str, **defaults: Any) -> Callable:
    """``builder`` under another name, with other defaults and the same arguments and ranges."""

    def built(spec, **given):
        return builder(spec, **defaults | given)

    signature = inspect.signature(builder)
    unknown = set(defaults) - set(signature.parameters)
    if unknown:
        raise TypeError(f"{name} gives defaults to what {builder.__name__} does not take: {sorted(unknown)}")
    parameters = [p.replace(default=defaults.get(n, p.default)) for n, p in signature.parameters.items()]
    built.__name__, built.__qualname__, built.__module__, built.__doc__ = name, name, module, description
    built.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    built.ranges = builder.ranges  # type: ignore[attr-defined]
    return built
