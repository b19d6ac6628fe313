"""Results as tables: on the terminal after ``reproduce``, and as ``docs/results.md``, which is made of stored results and of nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runners.compose import COMMAND
from runners.reproduce import claims, measure
from runners.reproduce.claims import SCALES, Claims
from runners.reproduce.measure import Estimate

HEAD = f"""# Results of papers, made again

Made by `{COMMAND} reproduce`, from the files under `docs/results/`; nothing here is typed. Numbers are interquartile means over seeds with 95 %
bootstrap intervals and the number of seeds; those of papers are means over their seeds, with deviations where they are known. "Difference" is
ours less the paper's. A number of a paper *agrees* where our interval meets its own;
a claimed order *holds* where the interval of the difference is on its side of zero, *fails* where it is on the other, and is *open* else.
Scales: `smoke` says only that it runs, `small` is made for two cores, `paper` is the published horizon. Bonuses side by side are on
[another page](bonuses.md).
"""


def rows(made: Claims, result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(arm, measure, ours, the paper's, difference, verdict) of everything that was measured."""
    found = []
    for name, how in made.measures.items():
        share = how["as"] == "share"
        for arm in made.arms:
            values = list(result["values"].get(name, {}).get(arm, {}).values())
            ours = measure.estimate(values, share)
            told = [r for r in made.references if (r["arm"], r["measure"]) == (arm, name)]
            if not values and not told:
                continue
            if not told:
                found.append((arm, name, shown(ours, share), "", "", ""))
            for reference in told:
                theirs = number(reference["value"]) + (f" ± {number(reference['spread'])}" if reference.get("spread") else "")
                theirs += f", n={reference['seeds']}" if reference.get("seeds") else ""
                theirs += "" if reference.get("checked") else " (not checked)"
                apart = "" if math.isnan(ours.middle) else number(ours.middle - reference["value"], sign=True)
                found.append((arm, name, shown(ours, share), theirs, apart, measure.agrees(ours, reference)))
    return found


def orders(made: Claims, result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(claim, measure, difference, verdict); none where the scale says only that it runs."""
    found: list[tuple[str, str, str, str]] = []
    if result["scale"] == "smoke":
        return found
    for claim in made.claims:
        how, values = made.measures[claim["measure"]], result["values"].get(claim["measure"], {})
        better, than = (list(values.get(claim[k], {}).values()) for k in ("better", "than"))
        apart = measure.difference(better, than, how["as"] == "share")
        sign = ">" if how["higher"] else "<"
        found.append((f"{claim['better']} {sign} {claim['than']}", claim["measure"], shown(apart, how["as"] == "share"), measure.holds(apart, how["higher"])))
    return found


def shown(found: Estimate, share: bool = False) -> str:
    if math.isnan(found.middle):
        return "not measured"
    digits = (lambda x: f"{x:.2f}") if share else number
    interval = "" if math.isnan(found.low) else f" [{digits(found.low)}, {digits(found.high)}]"
    return f"{digits(found.middle)}{interval}, n={found.count}"


def number(value: float, sign: bool = False) -> str:
    """Four digits, thousands apart."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"+{text}" if sign and value > 0 else text


def markdown(made: Claims, result: Mapping[str, Any]) -> str:
    lines = [f"### {result['scale']}, {result['date'][:10]}", ""]
    lines += table(("arm", "measure", "ours", "paper", "difference", "verdict"), rows(made, result))
    claimed = orders(made, result)
    if claimed:
        lines += ["", *table(("claimed order", "measure", "difference", "verdict"), claimed)]
    lines += ["", f"What this scale cannot show: {made.limits[result['scale']]}", ""]
    unfinished = [arm for arm, told in result["arms"].items() if not told["finished"]]
    if unfinished:
        told = [f"{arm} ({result['arms'][arm]['steps']:,} steps so far)" for arm in unfinished]
        lines += [f"Not finished: {', '.join(told)}.", ""]
    lines += [f"    {COMMAND} reproduce {made.name} --scale {result['scale']}", ""]
    hours = sum(told["seconds"] for told in result["arms"].values()) / 3600
    commits = ", ".join(commit[:10] for commit in result["commits"])
    lines += [f"{result['machine']}; jax {result['versions'].get('jax')}; commit {commits}; {hours:.2f} hours of stepping in all.", ""]
    return "\n".join(lines)


def table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {' | '.join(cells)} |" for cells in body)]


def page(folder: Path) -> str:
    """``docs/results.md``."""
    parts = [HEAD]
    for name in claims.names():
        made = claims.read(name)
        stored = [claims.path_of(name, scale, folder) for scale in SCALES if claims.path_of(name, scale, folder).is_file()]
        if not stored:
            continue
        parts.append(f"## {made.title}\n\n`{name}`, {made.paper}; [{made.method}](methods/{made.method}.md).\n")
        sources = sorted({entry["source"] for entry in [*made.references, *made.claims]})
        parts += [f"The paper's: {'; '.join(sources)}.\n"] if sources else []
        parts += [markdown(made, json.loads(file.read_text())) for file in stored]
    return "\n".join(parts)
