"""What a law is, and what comes of holding a bonus against it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

from exploration.laws.life import CannotRun, Subject, blame

OK, FAILED, NOT_APPLICABLE, NOT_RUN = "ok", "FAILED", "not applicable", "not run"


class NotApplicable(NamedTuple):
    """Given back by a law that says nothing about this bonus."""

    reason: str


class Law(NamedTuple):
    """One sentence that holds for every bonus, and the function that finds out."""

    name: str
    statement: str
    check: Callable[[Subject], str | NotApplicable]  # gives what was measured; raises AssertionError with the reason


class Verdict(NamedTuple):
    outcome: str  # OK, FAILED, NOT_APPLICABLE, or NOT_RUN where another law says why
    detail: str  # what was measured, or the reason


def law(function: Callable[[Subject], str | NotApplicable]) -> Law:
    """A function as a law: its name, and the first line of its docstring as the statement."""
    return Law(function.__name__.replace("_", " "), inspect.getdoc(function).partition("\n")[0], function)


def judge(check: Callable[..., str | NotApplicable], *subject: Subject) -> Verdict:
    """What comes of a law, or of a known answer, which takes no subject. Never raises for what a bonus does wrong."""
    try:
        found = check(*subject)
    except CannotRun as error:
        return Verdict(NOT_RUN, str(error))
    except AssertionError as error:
        return Verdict(FAILED, " ".join(str(error).split()))
    except Exception as error:  # whatever the user's code may raise
        return Verdict(FAILED, blame(error))
    return Verdict(NOT_APPLICABLE, found.reason) if isinstance(found, NotApplicable) else Verdict(OK, found or "")
