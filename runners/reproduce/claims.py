"""What is to be reproduced: files of ``configs/claims/``, one for an experiment of a paper.

    # one line that says what it is
    paper: arXiv 2412.12098
    method: max_info                          the page docs/methods/max_info.md
    arms: {NAME: words of a command line}     runs that are compared
    scales: {SCALE: {all: words, NAME: further words}}
    measures: {NAME: {metric: ..., at: end | steps, last: 1, as: value | share}}
    references: [{arm, measure, value, spread, seeds, source, checked}]     numbers of the paper
    claims: [{better: arm, than: arm, measure, source}]                     orders that the paper states
    limits: {SCALE: what this scale cannot show}

``at``: environment steps of the run; ``last``: mean of so many last values up to there; ``share``: the share of seeds that have a value (a first success).
``higher: false``: less is better, and who never got there counts with the steps that it made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from envs.builder import Refusal, closest
from runners.compose import CONFIGS

CLAIMS = CONFIGS / "claims"
SCALES = ("smoke", "small", "paper")
KEYS = {"paper", "method", "arms", "scales", "measures", "references", "claims", "limits"}
MEASURE = {"metric": None, "at": "end", "last": 1, "as": "value", "higher": True}


class Claims(NamedTuple):
    name: str
    title: str
    paper: str
    method: str
    arms: dict[str, str]
    scales: dict[str, dict[str, str]]
    measures: dict[str, dict[str, Any]]
    references: list[dict[str, Any]]
    claims: list[dict[str, Any]]
    limits: dict[str, str]

    def words(self, arm: str, scale: str) -> list[str]:
        """The command line of an arm at a scale."""
        further = self.scales[scale]
        return [*self.arms[arm].split(), *further.get("all", "").split(), *further.get(arm, "").split()]


def names() -> list[str]:
    return sorted(file.stem for file in CLAIMS.glob("*.yaml"))


def read(name: str) -> Claims:
    """Raises Refusal for an unknown name, and for a file that is not as it should be."""
    file = CLAIMS / f"{name}.yaml"
    if not file.is_file():
        raise Refusal(f"there is nothing called {name} to reproduce{closest(name, [*names(), *methods()])}")
    text = file.read_text()
    found = yaml.safe_load(text)
    if set(found) - KEYS or not {"paper", "method", "arms", "scales", "measures", "limits"} <= set(found):
        raise Refusal(f"{file.name} has {', '.join(sorted(found))}; it must have {', '.join(sorted(KEYS))}")
    scales = {scale: {key: words or "" for key, words in (given or {}).items()} for scale, given in found["scales"].items()}
    measures = {key: MEASURE | given for key, given in found["measures"].items()}
    made = Claims(
        name, text.splitlines()[0].lstrip("# "), *(found[k] for k in ("paper", "method", "arms")), scales, measures, found.get("references") or [],
        found.get("claims") or [], found["limits"],
    )  # fmt: skip
    check(made, file.name)
    return made


def check(made: Claims, file: str) -> None:
    """Everything that is named is there."""
    wrong = [f"scale {s}" for s in made.scales if s not in SCALES] + [f"limit {s}" for s in made.scales if s not in made.limits]
    wrong += [f"words for {arm}" for given in made.scales.values() for arm in given if arm not in {"all", *made.arms}]
    wrong += [f"key {key} of a measure" for given in made.measures.values() for key in set(given) - set(MEASURE)]
    for entry in [*made.references, *made.claims]:
        wrong += [f"arm {entry[k]}" for k in ("arm", "better", "than") if k in entry and entry[k] not in made.arms]
        wrong += [f"measure {entry['measure']}"] if entry["measure"] not in made.measures else []
        wrong += ["a number without a source"] if not entry.get("source") else []
    if wrong:
        raise Refusal(f"{file}: {wrong[0]} is not as it should be")


def methods() -> list[str]:
    return sorted({yaml.safe_load(file.read_text())["method"] for file in CLAIMS.glob("*.yaml")})


def chosen(wanted: list[str]) -> list[Claims]:
    """Experiments by their names, or by their methods."""
    every = [read(name) for name in names()]
    found: list[Claims] = []
    for word in wanted:
        some = [made for made in every if word in (made.name, made.method)] or [read(word)]
        found += [made for made in some if made not in found]
    return found


def path_of(name: str, scale: str, folder: Path) -> Path:
    """Where a result is stored."""
    return folder / f"{name}.{scale}.json"
