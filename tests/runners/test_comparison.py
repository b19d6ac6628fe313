"""Methods over several worlds: known aggregates, profiles and probabilities, the figure, and tables for papers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from runners.cli import run as farlands
from runners.report import comparison, curves, figures, written
from runners.report.read import read_run
from runners.report.tables import Table
from tests.runners.test_report import CONFIG, make


def lines(*ends):
    """Members that rise to the given last returns."""
    return [[0.0, end / 3, end / 2, float(end)] for end in ends]


@pytest.fixture
def found(tmp_path):
    worlds = [{"_target_": "envs.deep_sea.deep_sea", "size": size} for size in (4, 8)]
    runs = []
    for i, world in enumerate(worlds):
        for name, ends in (("none", (0, 0, 1, 1)), ("counts", (2, 3, 4, 5)), ("rnd", (0, 1, 5, 6))):
            exploration = CONFIG["exploration"] | {"_target_": f"exploration.{name}.{name}"}
            runs.append(make(tmp_path / f"{name}{i}", lines(*((1 + 9 * i) * end for end in ends)), env=world, exploration=exploration))
    make(tmp_path / "alone", lines(1, 2), env=worlds[0], exploration=CONFIG["exploration"] | {"_target_": "exploration.icm.icm"})
    return [read_run(run) for run in [*runs, tmp_path / "alone"]]


def test_scores_are_scaled_in_each_world_and_shared_by_all(found):
    scores = comparison.scores(curves.worlds(curves.groups(found)))
    assert scores.metric == "evaluation/return" and len(scores.worlds) == 2 and set(scores.values) == {"ppo-none", "ppo-counts", "ppo-rnd"}
    assert scores.ends == [(0.0, 12.0), (0.0, 120.0)]
    for column in scores.values["ppo-counts"].T:
        np.testing.assert_allclose(column, np.array([2, 3, 4, 5]) / 6)


def test_known_aggregates_profiles_and_probabilities(found):
    scores = comparison.scores(curves.worlds(curves.groups(found)))
    whole = comparison.aggregates(scores)["ppo-counts"]
    np.testing.assert_allclose(whole[:, 0], [3.5 / 6, 3.5 / 6, 3.5 / 6, 1 - 3.5 / 6])
    assert (whole[:, 1] <= whole[:, 0]).all() and (whole[:, 0] <= whole[:, 2]).all()
    share = comparison.profiles(scores)["ppo-counts"][0]
    assert share[0] == 1.0 and share[50] == 0.5 and share[100] == 0.0  # above 3/6 are the values 4 and 5
    better = comparison.improvements(scores)
    assert comparison.reference(scores) == "ppo-none" and set(better) == {"ppo-counts", "ppo-rnd"}
    assert better["ppo-counts"][0] == 1.0 and better["ppo-rnd"][0] == pytest.approx((8 + 2 + 2 * 0.5 + 2 * 0.5) / 16)
    made = comparison.table(scores)
    assert made.rows[1][3].startswith("0.583 [") and made.rows[0][-1] == "-"


def test_nothing_is_compared_where_there_is_nothing_to_compare(found):
    alone = [run for run in found if "none" in run.name]
    assert comparison.scores(curves.worlds(curves.groups(alone))) is None
    assert comparison.scores(curves.worlds(curves.groups(found[-1:]))) is None


def test_the_figure_names_every_method_and_its_seeds(found):
    groups = curves.groups(found)
    scores = comparison.scores(curves.worlds(groups))
    figure = comparison.figure(scores, figures.styles(groups))
    texts = " ".join(text.get_text() for legend in figure.legends for text in legend.get_texts())
    assert all(f"{label} (4 seeds)" in texts for label in scores.values)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["aggregates", "performance profiles", "probability of improvement over ppo-none"]


def test_a_report_of_several_worlds_has_it_with_tables_for_papers(found, tmp_path, capsys):
    assert farlands(["report", *(str(run.path) for run in found), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    page = (tmp_path / "out" / "report.html").read_text()
    assert ">Comparison</h2>" in page and (tmp_path / "out" / "comparison.pdf").stat().st_size > 1000
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "| ppo-counts | 7.000 [" in text and "## Comparison" in text
    tex = (tmp_path / "out" / "tables.tex").read_text()
    assert tex.count(r"\begin{tabular}") == 2 and r"deep\_sea" in tex


def test_latex_is_escaped_and_has_as_many_cells_as_columns():
    made = Table(["a_b", "50 %", "x"], [["m&n", "$1", "{#}"], ["~^", "\\", ""]])
    tex = written.latex([("Title & more", made)])
    assert r"a\_b & 50 \% & x \\" in tex and r"m\&n & \$1 & \{\#\} \\" in tex and r"\textasciitilde{}\^{} & \textbackslash{} &  \\" in tex
    assert r"\caption{Title \& more}" in tex and r"\begin{tabular}{lrr}" in tex
    assert not re.search(r"(?<!\\)[&%$#_]", tex.replace(" & ", "").replace(" &", "").split("booktabs}")[1])
    assert written.markdown([("T", made)]).splitlines()[2:5] == ["| a_b | 50 % | x |", "|---|---|---|", "| m&n | $1 | {#} |"]
