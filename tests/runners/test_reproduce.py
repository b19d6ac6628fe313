"""Papers made again: the files of claims, numbers and verdicts by hand, and one experiment as people run it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from envs.builder import Refusal
from runners.compose import CONFIGS, compose
from runners.experiment import experiment
from runners.reproduce import claims, command, measure, page
from runners.reproduce.measure import Estimate
from tests.runners.test_cli import farlands

ROOT = CONFIGS.parent
RUNS = [(name, scale, arm) for name in claims.names() for made in [claims.read(name)] for scale in made.scales for arm in made.arms]


@pytest.mark.parametrize(("name", "scale", "arm"), RUNS)
def test_every_arm_composes_at_every_scale(name, scale, arm):
    made = experiment(compose(claims.read(name).words(arm, scale)))
    assert made.members and made.config["total_steps"] >= 60


@pytest.mark.parametrize("name", claims.names())
def test_claims_say_where_their_numbers_are_from_and_what_a_scale_cannot_show(name):
    made = claims.read(name)
    assert "smoke" in made.scales and made.title[0].isupper() and (ROOT / "docs" / "methods" / f"{made.method}.md").is_file()
    assert set(made.limits) >= set(made.scales) and all(len(made.limits[scale]) > 10 for scale in made.scales)
    for reference in made.references:
        assert isinstance(reference["value"], float) and isinstance(reference["checked"], bool) and len(reference["source"]) > 10
    assert made.paper.startswith("arXiv ")


def test_every_paper_preset_is_an_arm_of_something():
    used = " ".join(words for name in claims.names() for words in claims.read(name).arms.values())
    for preset in (CONFIGS / "paper").rglob("*.yaml"):
        assert f"paper={preset.stem}" in used, f"configs/claims has nothing for {preset.stem}"


def test_a_file_that_names_what_is_not_there_is_refused(tmp_path, monkeypatch):
    good = yaml.safe_load((claims.CLAIMS / "max_info_mountain_car.yaml").read_text())
    monkeypatch.setattr(claims, "CLAIMS", tmp_path)
    for change in (
        {"claims": [{"better": "nobody", "than": "sac", "measure": "return at the end", "source": "a figure"}]},
        {"claims": [{"better": "max_info_sac", "than": "sac", "measure": "nothing", "source": "a figure"}]},
        {"references": [{"arm": "sac", "measure": "return at the end", "value": 1.0}]},
        {"scales": {"huge": {"all": ""}}},
        {"limits": {}},
        {"numbers": 1},
    ):
        (tmp_path / "made.yaml").write_text("# Made up\n" + yaml.safe_dump(good | change))
        with pytest.raises(Refusal):
            claims.read("made")
    with pytest.raises(Refusal, match="did you mean made"):
        claims.read("mode")


def test_numbers_and_intervals():
    ten = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 100.0]
    found = measure.estimate(ten)
    assert found.middle == np.mean(sorted(ten)[2:8]) == 4.5 and 0 < found.low < 4.5 < found.high < 100 and found.count == 10
    assert measure.estimate([1.0, 1.0, 0.0, 0.0], share=True).middle == 0.5
    assert measure.estimate([2.0]) == pytest.approx(Estimate(2.0, math.nan, math.nan, 1), nan_ok=True)
    assert measure.estimate([]).count == 0
    apart = measure.difference([5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0])
    assert apart.middle == 4.0 and 0 < apart.low < 4 < apart.high


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    """Bootstrap intervals of ten seeds are a little narrow; far below 95 % would be a mistake."""
    rng = np.random.default_rng(0)
    hits = [e.low <= 0 <= e.high for e in (measure.estimate(rng.normal(size=10)) for _ in range(200))]
    assert 0.85 <= np.mean(hits) <= 0.99


def test_verdicts():
    reference = {"value": 100.0, "spread": 20.0, "seeds": 16}  # its interval: 90.2 to 109.8
    assert measure.agrees(Estimate(80.0, 70.0, 90.0, 5), reference) == "lower"
    assert measure.agrees(Estimate(80.0, 70.0, 91.0, 5), reference) == "agrees"
    assert measure.agrees(Estimate(120.0, 110.0, 130.0, 5), reference) == "higher"
    assert measure.agrees(Estimate(80.0, math.nan, math.nan, 1), reference) == "open: one seed"
    assert measure.agrees(Estimate(math.nan, math.nan, math.nan, 0), reference) == "not measured"
    assert [measure.holds(Estimate(0.0, low, high, 5), True) for low, high in ((0.1, 1), (-1, -0.1), (-1, 1))] == ["holds", "fails", "open"]
    assert [measure.holds(Estimate(0.0, low, high, 5), False) for low, high in ((0.1, 1), (-1, -0.1), (-1, 1))] == ["fails", "holds", "open"]


def write_run(folder: Path, rows, finished=True):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (folder / "summary.json").write_text("{}")
    return folder


def test_values_are_those_of_the_rows(tmp_path):
    rows = [{"step": s, "seed": seed, "x": s + seed, "first": 20 if seed and s >= 20 else None} for s in (10, 20, 30) for seed in (0, 1)]
    how = claims.MEASURE | {"metric": "x"}
    run, begun = write_run(tmp_path / "a", rows), write_run(tmp_path / "b", rows, finished=False)
    assert measure.values(run, how) == {0: 30.0, 1: 31.0} and measure.values(begun, how) == {}
    assert measure.values(begun, how | {"at": 20, "last": 2}) == {0: 15.0, 1: 16.0}
    assert measure.values(begun, how | {"at": 25}) == {0: 20.0, 1: 21.0} and measure.values(begun, how | {"at": 31}) == {}
    assert measure.values(run, how | {"metric": "first", "as": "share"}) == {0: 0.0, 1: 1.0}
    assert measure.values(run, how | {"metric": "first", "higher": False}) == {0: 30.0, 1: 20.0}  # never: all its steps
    assert measure.values(run, how | {"metric": "first"}) == {1: 20.0}
    assert measure.values(tmp_path / "nothing", how) == {}


def test_the_page_is_made_of_what_is_stored():
    """docs/results.md is exactly what the stored files and the claims give."""
    assert (ROOT / "docs" / "results.md").read_text() == page.page(command.STORED)
    for file in command.STORED.glob("*.json"):
        result = json.loads(file.read_text())
        assert file.name == f"{result['name']}.{result['scale']}.json" and set(result["arms"]) == set(claims.read(result["name"]).arms)


def test_what_cannot_be_reproduced_is_refused(tmp_path):
    for words, answer in (
        (["sofe_lin"], "did you mean sofe_line"),
        (["sofe_line", "--scale", "tiny"], "there is no such scale"),
        (["sofe_line", "--stor"], "did you mean --store"),
        (["sofe_line", "--scale=paper"], "has no scale paper"),
        (["--scale=smoke"], "reproduce what"),
    ):
        done = farlands("reproduce", *words, cwd=tmp_path, check=2)
        assert answer in done.stderr
    assert "sofe_line" in farlands("reproduce", "--help", cwd=tmp_path, check=0).stdout


@pytest.mark.medium
def test_an_experiment_is_run_told_and_found_again(tmp_path):
    done = farlands("reproduce", "sofe_line", "--scale", "smoke", cwd=tmp_path, check=0)
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert said["reproduced"] == "sofe_line" and said["failed"] == 0 and "not shown" in done.stdout and "cannot show" in done.stdout
    result = json.loads((tmp_path / said["result"]).read_text())
    assert {arm: sorted(v) for arm, v in result["values"]["share of steps on new states"].items()} == {"sofe": ["0", "1"], "not shown": ["0", "1"]}
    again = farlands("reproduce", "sofe_line", "--scale", "smoke", cwd=tmp_path, check=0)
    assert "2 of 2 programs are finished already" in again.stderr
    collected = farlands("reproduce", "sofe_line", "--scale", "smoke", "--collect", cwd=tmp_path, check=0)
    assert json.loads(collected.stdout.strip().splitlines()[-1])["verdicts"] == said["verdicts"]
