"""Builders: functions that make a record from keyword arguments, with the legal range of every argument beside them.

A configuration entry is a builder's import path under ``_target_`` and its keyword arguments; nothing is registered::

    _target_: exploration.rnd.rnd
    learning_rate: 1e-4

``@options(learning_rate=Real(0, 1))`` declares ranges. ``Real`` arguments may be traced by JAX, so a different value per
member runs in one compiled program (``vmap.exploration.learning_rate=[1e-4,1e-3]``). Everything else is static: a shape, a
length, or something that Python branches on.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Refusal(Exception):
    """A request that cannot be honoured: one readable line, shown by the command line without a traceback."""

    def __init__(self, line: str):
        """What a terminal would not print as it is (a line break, an escape, half a character) is shown escaped."""
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line))


LARGEST_WHOLE, LARGEST_REAL = 2**31 - 1, 3.4e38  # what int32 and float32 hold


class Failure(Exception):
    """A run that cannot go on, through no fault of the request: one readable line; what was saved before is kept."""


class Real(NamedTuple):
    """A finite number in [low, high] that may be traced."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False  # True: low itself is not legal

    traceable = True

    def accepts(self, value: Any) -> bool:
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        finite = number and not math.isnan(value) and abs(value) <= LARGEST_REAL
        return bool(finite and self.low <= value <= self.high and not (self.open_low and value == self.low))

    def describe(self) -> str:
        left, right = "(" if self.open_low or math.isinf(self.low) else "[", ")" if math.isinf(self.high) else "]"
        return f"a number in {left}{self.low:g}, {self.high:g}{right}"


class Integer(NamedTuple):
    """A whole number in [low, high]; static."""

    low: int = 0
    high: int = LARGEST_WHOLE

    traceable = False

    def accepts(self, value: Any) -> bool:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool) and self.low <= value <= self.high

    def describe(self) -> str:
        return f"a whole number in [{self.low}, {self.high}]" if self.high != LARGEST_WHOLE else f"a whole number, {self.low} or more (at most 2^31 - 1)"


class Choice(NamedTuple):
    """One of the listed values; static."""

    values: tuple[Any, ...]

    traceable = False

    def accepts(self, value: Any) -> bool:
        return any(value is v or (type(value) is type(v) and value == v) for v in self.values)

    def describe(self) -> str:
        return "one of " + ", ".join(str(v).lower() if isinstance(v, bool) else str(v) for v in self.values)


class Sizes(NamedTuple):
    """A list of layer widths; static."""

    traceable = False

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (list, tuple)) and all(Integer(1, 2**20).accepts(v) for v in value)

    def describe(self) -> str:
        return f"a list of whole numbers in [1, {2**20}], as [64,64]"


class Numbers(NamedTuple):
    """A list of one number or more; static."""

    traceable = False

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) > 0 and all(Real().accepts(v) for v in value)

    def describe(self) -> str:
        return "a list of numbers, as [-0.5,0,0.5]"


class Optional(NamedTuple):
    """None, or what ``inner`` accepts."""

    inner: Any

    @property
    def traceable(self) -> bool:
        return self.inner.traceable

    def accepts(self, value: Any) -> bool:
        return value is None or self.inner.accepts(value)

    def describe(self) -> str:
        return f"null or {self.inner.describe()}"


class Text(NamedTuple):
    """Text, not empty; static."""

    what: str

    traceable = False

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value.strip() != ""

    def describe(self) -> str:
        return self.what


class Nested(NamedTuple):
    """An entry with its own ``_target_``, or a list of them, built before the builder is called; static."""

    many: bool = False

    traceable = False

    def accepts(self, value: Any) -> bool:
        if self.many:
            return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(Nested().accepts, value))
        return isinstance(value, Mapping) and "_target_" in value

    def describe(self) -> str:
        return "a list of entries, as [{_target_: package.module.name}]" if self.many else "an entry, as {_target_: package.module.name}"


class Anything(NamedTuple):
    """No declared range: text, a path, a nested entry; static."""

    what: str = "any value"

    traceable = False

    def accepts(self, value: Any) -> bool:
        return True

    def describe(self) -> str:
        return self.what


class Entries(NamedTuple):
    """A list of entries with ``_target_`` that the builder builds itself; static."""

    traceable = False

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (list, tuple)) and all(isinstance(v, Mapping) and "_target_" in v for v in value)

    def describe(self) -> str:
        return "a list of entries, as [{_target_: package.module.name, argument: value}]"


POSITIVE = Real(0.0, math.inf, open_low=True)
NON_NEGATIVE = Real(0.0)
FRACTION = Real(0.0, 1.0)
FLAG = Choice((True, False))


def options(**ranges: Any) -> Callable[[Callable], Callable]:
    """Declare the legal range of each keyword argument of a builder (read back as ``builder.ranges``)."""

    def declare(builder: Callable) -> Callable:
        unknown = set(ranges) - set(inspect.signature(builder).parameters)
        if unknown:
            raise TypeError(f"{builder.__name__} declares ranges for arguments it does not take: {sorted(unknown)}")
        builder.ranges = ranges  # type: ignore[attr-defined]
        return builder

    return declare


def ranges_of(builder: Callable) -> dict[str, Any]:
    """Range of every keyword argument; arguments without a declaration take their kind from the default value."""
    declared = getattr(builder, "ranges", {})
    found = {}
    for name, parameter in inspect.signature(builder).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY or parameter.default is not parameter.empty:
            fallback = Real() if isinstance(parameter.default, float) else Anything()
            found[name] = declared.get(name, fallback)
    return found


def locate(path: str, at: str = "_target_") -> Callable:
    """Import ``package.module.name``. Raises Refusal with the closest existing name when it is not there."""
    if not isinstance(path, str) or "." not in path:
        raise Refusal(f"{at}={path!r} is not an import path; write package.module.function, as exploration.rnd.rnd")
    module_name, _, name = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")):
        raise Refusal(f"{at}={path!r} is not an import path; write package.module.function, as exploration.rnd.rnd")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            where = "is its package installed in this environment? if it lies in this directory, type PYTHONPATH=. before the command"
            raise Refusal(f"{at}={path}: there is no module {error.name!r}; {where}") from None
        raise Refusal(f"{at}={path}: importing it needs the package {error.name!r}, which is not installed{extra_hint(error.name)}") from None
    except Exception as error:  # whatever the code of a module raises
        look = f"python -c 'import {module_name}' shows where"
        raise Refusal(f"{at}={path}: importing {module_name} failed with {type(error).__name__}: {error}; {look}") from None
    if not hasattr(module, name):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise Refusal(f"{at}={path}: {module_name} has no {name!r}{closest(name, public)}")
    builder = getattr(module, name)
    if not callable(builder):
        raise Refusal(f"{at}={path} is not a function")
    try:
        inspect.signature(builder)
    except (TypeError, ValueError):
        raise Refusal(f"{at}={path} does not tell its arguments, as functions written in Python do") from None
    return builder


EXTRAS = {
    "gymnax": "",
    "xminigrid": "minigrid",
    "minigrid": "minigrid",
    "ale_py": "atari",
    "mujoco": "mujoco",
    "dm_control": "control",
    "gymnasium_robotics": "robotics",
    "minari": "offline",
    "textworld": "textworld",
}


def extra_hint(module: str | None) -> str:
    """'; add it with ...' for a package that this project's own installation brings ("": without extras); nothing for others."""
    extra = EXTRAS.get((module or "").split(".")[0])
    if extra is None:
        return ""
    return f"; add it with: pip install -e {repr(f'.[{extra}]') if extra else '.'}"


def closest(word: str, legal: Any, limit: int = 12) -> str:
    """' (did you mean X? legal: a, b, c)', for the end of an error line."""
    names = sorted(map(str, legal))
    if not names:
        return ""
    near = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    shown = ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
    return (f" (did you mean {near[0]}?" if near else " (") + f"{' ' if near else ''}legal: {shown})"


def check(builder: Callable, arguments: Mapping[str, Any], at: str) -> None:
    """Refuse unknown arguments, missing arguments and values out of range. ``at`` is the configuration path, as 'agent'."""
    signature = inspect.signature(builder)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    ranges = ranges_of(builder)
    for name, value in arguments.items():
        if name not in ranges:
            if takes_any:
                continue
            hint = "" if "." in at else f"; a builder of your own goes with {at}=custom, which gives it nothing else"
            raise Refusal(f"{at}.{name}: {builder.__module__}.{builder.__name__} takes no {name!r}{closest(name, ranges)}{hint}")
        if not ranges[name].accepts(value):
            raise Refusal(f"{at}.{name}={value!r} is not legal: it must be {ranges[name].describe()}")
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and name not in arguments:
            raise Refusal(f"{at}.{name} is missing: {builder.__module__}.{builder.__name__} needs it")


def build(entry: Mapping[str, Any], *positional: Any) -> Any:
    """Call the builder of a configuration entry. Nested entries (values with ``_target_``, also in lists) are built first,
    with the same positional arguments, so combinators compose in the configuration file."""
    builder = locate(entry["_target_"])
    ranges = ranges_of(builder)
    given = {key: value for key, value in entry.items() if key != "_target_"}
    arguments = {key: value if isinstance(ranges.get(key), Entries) else _resolve(value, positional) for key, value in given.items()}
    return builder(*positional, **arguments)


def _resolve(value: Any, positional: tuple[Any, ...]) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        return build(value, *positional)
    if isinstance(value, (list, tuple)):
        return tuple(_resolve(v, positional) for v in value)
    return value
