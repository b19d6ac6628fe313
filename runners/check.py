"""``farlands check``: every law of bonuses, and the known answers of the method, for one ``exploration=`` entry.

It answers "is my bonus computed correctly?". The bonus is built as ``train`` would build it, for the chosen world and for made-up ones
with other observations, and lives a few iterations of made-up steps in each; nothing is trained. Runs on the CPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

from envs.base import Spec
from envs.builder import Refusal, build, locate
from exploration.base import check_needs
from exploration.laws.base import FAILED, NOT_APPLICABLE, NOT_RUN, OK, Verdict, judge
from exploration.laws.bonuses import BONUS_LAWS
from exploration.laws.life import Subject
from exploration.laws.worlds import OBSERVATIONS, made_up
from exploration.normalizers import KNOWN_ANSWERS as FILTER_ANSWERS
from runners.checks import makes
from runners.experiment import experiment, make_world, parted

STYLES = {OK: "green", FAILED: "bold red", NOT_APPLICABLE: "dim", NOT_RUN: "yellow"}


class Row(NamedTuple):
    """A line of the table."""

    name: str
    statement: str
    verdict: Verdict


def check(config: Mapping[str, Any]) -> int:
    """Check the bonus of ``config``, show the table, end with a JSON line; 0 when everything holds, else 1.

    Raises Refusal for what ``train`` would refuse too.
    """
    made = experiment(config)
    other = {"Archive": "an archive", "Population": "a population"}.get(makes(locate(made.config["exploration"]["_target_"])))
    if other:
        raise Refusal(f"check is for bonuses, and this exploration makes {other}; try it with train ... debug=true")
    entry, stream = parted("exploration", made.config["exploration"])
    world = make_world(made.config).spec
    jax.config.update("jax_disable_most_optimizations", True)  # many programs, each run a few times
    subjects, left_out = find_subjects(entry, world)
    answers = known_answers(entry, stream)

    console = Console(stderr=True, highlight=False)
    console.print(f"{entry['_target_']} in {', '.join(subjects)}: {len(BONUS_LAWS)} laws; known answers: {len(answers)}", markup=False, soft_wrap=True)
    laws, told, lifeless = [], [], set()  # worlds in which the first law fails: there is nothing to hold the others against
    with console.status("") as status:
        for law in BONUS_LAWS:
            status.update(f"{len(laws) + 1} of {len(BONUS_LAWS)} laws: {law.name}")
            verdicts = {name: Verdict(NOT_RUN, "") if name in lifeless else judge(law.check, subject) for name, subject in subjects.items()}
            if not laws:
                lifeless = {name for name, verdict in verdicts.items() if verdict.outcome == FAILED}
            laws.append(Row(law.name, law.statement, combined(verdicts)))
        for statement, answer in answers:
            status.update(f"known answer: {statement}")
            told.append(Row(statement, "", judge(answer)))
    show(entry["_target_"], list(subjects), left_out, laws, told)
    failed = [row.name for row in (*laws, *told) if row.verdict.outcome == FAILED]
    result = {"exploration": entry["_target_"], "worlds": list(subjects), "laws": len(laws), "known_answers": len(told), "failed": failed}
    print(json.dumps(result))
    return 1 if failed else 0


def find_subjects(entry: Mapping[str, Any], world: Spec) -> tuple[dict[str, Subject], dict[str, str]]:
    """(the bonus in the chosen world and in every made-up one that it accepts; why it does not accept the others)."""

    def make(spec: Spec):
        return build(entry, spec)

    def fits(spec: Spec) -> None:
        """Raises Refusal when the bonus is refused for this world. Other errors are the business of the laws."""
        try:
            made = make(spec)
            check_needs(made, spec, entry["_target_"])
        except Refusal:
            raise
        except Exception:  # whatever the user's code may raise
            return

    subjects, left_out = {world.name: Subject(make, world)}, {}
    fits(subjects[world.name].spec)
    for name, observation in OBSERVATIONS.items():
        subject = Subject(make, made_up(observation, name=name))
        try:
            fits(subject.spec)
            subjects[name] = subject
        except Refusal as error:
            left_out[name] = str(error)
    return subjects, left_out


def known_answers(entry: Mapping[str, Any], stream: Mapping[str, Any]) -> list[tuple[str, Callable]]:
    """``KNOWN_ANSWERS`` of the module of every builder in the entry, each once; and the filter's where the stream uses it."""

    def builders(part: Any):
        if isinstance(part, Mapping):
            if "_target_" in part:
                yield locate(part["_target_"])
            for inner in part.values():
                yield from builders(inner)
        elif isinstance(part, (list, tuple)):
            for inner in part:
                yield from builders(inner)

    modules = dict.fromkeys(builder.__module__ for builder in builders(entry))
    found = [answer for module in modules for answer in getattr(sys.modules.get(module), "KNOWN_ANSWERS", ())]
    return found + (list(FILTER_ANSWERS) if stream.get("normalize") == "reward_forward" else [])


def combined(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict over worlds: failed if it failed anywhere, said once; else what was found in the first world where it applies."""
    for outcome in (FAILED, NOT_RUN, OK, NOT_APPLICABLE):
        found = {name: verdict for name, verdict in verdicts.items() if verdict.outcome == outcome}
        if outcome == NOT_RUN and found:
            return Verdict(NOT_RUN, "see the law above that failed")
        if found:
            name, verdict = next(iter(found.items()))
            where = "" if len(found) == len(verdicts) else f"in {', '.join(found)}: "
            return verdict._replace(detail=where + verdict.detail) if outcome == FAILED else verdict
    raise ValueError("no verdicts")


def show(target: str, worlds: list[str], left_out: Mapping[str, str], laws: list[Row], answers: list[Row]) -> None:
    """The table, on standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    table = Table(title=f"{target} in {', '.join(worlds)}", title_justify="left")
    table.add_column("law", ratio=2)
    table.add_column("outcome", no_wrap=True)
    table.add_column("measured, or why", ratio=3)
    for rows in (laws, answers):
        for name, statement, verdict in rows:
            failed = verdict.outcome == FAILED
            law = Text(name) + Text(f"\n{statement}" if failed and statement else "", style="dim")
            table.add_row(law, Text(verdict.outcome, style=STYLES[verdict.outcome]), Text(verdict.detail))
        table.add_section()
    console.print(table)
    for name, reason in left_out.items():
        console.print(f"not tried in {name}: {reason}", markup=False)
