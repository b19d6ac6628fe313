"""From runs to files: the figures of a report (PNG and PDF) and its page."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from matplotlib.figure import Figure

from runners.report import comparison, figures, maps, page, tables, written
from runners.report.archives import archive_maps, how_to_draw
from runners.report.curves import Group, full_names, groups, metrics, relative, worlds
from runners.report.read import Run
from runners.rundir import write_atomically

SECONDARY_REPETITIONS = 400  # of the bootstrap, for measurements that are not results
DOTS_PER_INCH = 150
LEARNING = ("episode/return", "episode/success")
EVALUATION = ("evaluation/return", "evaluation/success")
ARCHIVE = ("archive/score", "archive/cells", "archive/rooms")
SEARCH = ("search/coverage", "archive/coverage", "search/qd_score", "search/best", "archive/size")
BONUS = ("bonus/raw", "bonus/normalised", "bonus/weighted", "bonus/share")
HOW_TO_READ = (
    "Lines are interquartile means over the seeds of one run and setting: the mean of the middle half of the values, which one lucky or "
    "unlucky seed does not move. Bands and brackets are 95 % intervals from the stratified bootstrap (rliable, arXiv 2108.13264) over the "
    "seeds, point by point. With fewer than four seeds nothing is trimmed; with one there is no interval. Values are means over the "
    "episodes or steps since the point before. Where no episode ended, the value before stands."
)

HOW_TO_COMPARE = (
    "A score is the last value of a seed; returns are scaled in each world, so that 0 is the worst and 1 the best seed of all methods here: scores "
    "depend on what is compared. Only methods that were run in all worlds are here, with as many seeds as they have in each. The optimality gap is "
    "what is missing to 1 on average (less is better). The profile says for each score which share of runs is above it. The probability of "
    "improvement is that of one run being better than one of the reference's. Intervals are rliable's stratified bootstraps (arXiv 2108.13264)."
)


class Section(NamedTuple):
    """A figure of one world: its place on the page, the name of its files, what it shows."""

    heading: str
    name: str
    caption: str
    figure: Figure


def sections(world: str, found: Sequence[Group], looks: dict[str, figures.Style]) -> list[Section]:
    """The figures of one world, without those that have nothing to show."""
    names = metrics(found)
    bonus = [name for name in names if name in BONUS or name.startswith("bonus/raw_")]
    losses = [name for name in names if name.startswith("loss/")]
    areas = [name for name in names if name.startswith("search/area_")]
    apart = {*LEARNING, *EVALUATION, *ARCHIVE, *SEARCH, "time/seconds", "time/steps_per_second", "world/solved", "episode/first_success_step"}
    drawn = {*apart, *areas, *bonus, *losses}
    rest = [name for name in names if name not in drawn and not name.startswith("time/")]

    def secondary(chosen):
        return figures.curves(found, chosen, looks, repetitions=SECONDARY_REPETITIONS)

    made = (
        ("Learning curves", "learning", "Return and success while learning", figures.curves(found, LEARNING, looks, thin=True)),
        ("Evaluation", "evaluation", "Evaluation in worlds of its own", figures.curves(found, EVALUATION, looks, thin=True)),
        ("Archive", "archive", "The best score in the archive, its cells, and the rooms they are in", secondary(ARCHIVE)),
        ("Search", "search", "Cells that evaluations ever reached, cells that the archive keeps, QD score, best return", secondary(SEARCH)),
        ("Reward areas", "areas", "Best return in each reward area", secondary(areas)),
        ("Bonus", "bonus", "The bonus: raw, normalised, weighted as the agent gets it, and its share of all reward", secondary(sorted(bonus, key=order))),
        ("Visits", "visits", "Where the agents have been, over the whole run", maps.visits(found)),
        ("Losses", "losses", "Losses", secondary(losses)),
        ("Speed", "speed", "Wall-clock time and steps per second", figures.speed(found, looks)),
        ("Other measurements", "other", "All else that was measured", secondary(rest)),
    )
    kept = [Section(heading, name, f"{caption}: {world}", figure) for heading, name, caption, figure in made if figure is not None]
    for section in kept:
        section.figure.suptitle(world, fontsize=10, fontweight="bold")
    return kept


def archive_section(run: Run) -> str:
    """The maps of a run's archives, and how to have those that were not drawn; "" for runs without archives."""
    drawn = [page.image(png, caption) for png, caption in archive_maps(run)]
    return "".join(drawn + [page.paragraph(invitation) + page.preformatted(command) for invitation, command in how_to_draw(run)])


def order(metric: str) -> int:
    """Raw bonuses (one per part of a chain) come first, then as in BONUS."""
    return BONUS.index(metric) if metric in BONUS else 0


def build(runs: Sequence[Run], folder: Path, file: Path) -> list[Path]:
    """Write the page to ``file`` and the figures to ``folder``; returns the pictures (PNG)."""
    folder.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    found = groups(runs)
    looks = figures.styles(found)
    pictures: dict[str, list[str]] = {}
    files = []
    by_world = worlds(found)
    for world, members in by_world.items():
        suffix = "" if len(by_world) == 1 else "-" + re.sub(r"[^A-Za-z0-9.=-]+", "_", world)
        for section in sections(world, members, looks):
            png = save(section.figure, folder / f"{section.name}{suffix}.png")
            pictures.setdefault(section.heading, []).append(page.image(png, section.caption))
            files.append(png)
    archives = "".join(map(archive_section, runs))
    pictures |= {"Archive maps": [archives]} if archives else {}
    scores = comparison.scores(by_world) if found else None
    if scores:
        files.append(save(comparison.figure(scores, looks), folder / "comparison.png"))
        pictures = {"Comparison": [page.image(files[-1], f"All methods over {len(scores.worlds)} worlds: {scores.metric}")]} | pictures
    papers = [("Results", tables.results(found))] + ([("Comparison", comparison.table(scores))] if scores else [])
    write_atomically(folder / "tables.md", written.markdown(papers))
    write_atomically(folder / "tables.tex", written.latex(papers))
    write_atomically(file, whole(runs, found, pictures, scores))
    return files


def save(figure: Figure, png: Path) -> Path:
    """As PNG and as PDF."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # matplotlib's remarks on layouts and fonts help nobody here
        figure.savefig(png, dpi=DOTS_PER_INCH)
        figure.savefig(png.with_suffix(".pdf"))
    return png


def whole(runs: Sequence[Run], found: Sequence[Group], pictures: dict[str, list[str]], scores: comparison.Scores | None) -> str:
    """The HTML of the page."""
    names = full_names(runs)
    differ = tables.differences(runs, names)
    parts = [("Runs", page.table(tables.overview(found)) if found else page.paragraph("No run has metrics yet."))]
    if len(runs) > 1:
        told = page.table(differ) if differ else page.paragraph("The runs have the same settings.")
        parts.append(("Settings that differ", told))
    if scores:
        pictures["Comparison"] += [page.table(comparison.table(scores)), page.paragraph(HOW_TO_COMPARE)]
    parts += [(heading, "".join(content)) for heading, content in pictures.items()]
    parts.append(("How to read the figures", page.paragraph(HOW_TO_READ)))
    parts.append(("Commands", "".join(command_of(run, name) for run, name in zip(runs, names, strict=True)) + page.table(tables.places(runs))))
    texts = [yaml.safe_dump(run.config, sort_keys=False) for run in runs]
    settings = [page.folded(f"{name}: config.yaml", page.preformatted(text)) for text, name in zip(texts, names, strict=True)]
    parts.append(("All settings", "".join(settings)))
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M")
    subtitle = f"Farlands report of {', '.join(relative(run.path) for run in runs)}, made {now}"
    return page.page(title, subtitle, page.problems([line for run in runs for line in run.problems]), parts)


def command_of(run: Run, name: str) -> str:
    typed = tables.commands(run)
    return page.paragraph(f"{name} ({relative(run.path)}), {run.state}") + page.preformatted("\n".join(typed) or "not known: manifest.json has no command")
