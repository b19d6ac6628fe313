"""The report: its statistics against known values, its tables and pages from runs of every state, the page in a real browser."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from envs.builder import Refusal
from runners.cli import run as farlands
from runners.report import curves, tables
from runners.report.read import read_run
from runners.report.statistics import estimate, iqm

CONFIG = {
    "env": {"_target_": "envs.deep_sea.deep_sea", "size": 4},
    "agent": {"_target_": "agents.ppo.ppo", "hidden": [8]},
    "runner": {"_target_": "runners.on_policy.on_policy", "lanes": 4},
    "exploration": {"_target_": "exploration.counts.counts", "scale": 2.0},
    "seeds": [0, 1, 2, 3],
    "total_steps": 400,
    "vmap": {},
    "run_dir": None,
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make(path: Path, returns, finished=True, visits=None, hyper=None, **changes) -> Path:
    """A run directory with the given returns [members, segments], 100 steps apart; evaluations after 200 and 400 steps."""
    config = CONFIG | {"seeds": list(range(len(returns)))} | changes
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    start = {"command": ["/somewhere/farlands", "train", "vmap.exploration.scale=[1,2]"], "versions": {"jax": "1.2.3"}, "commit": COMMIT, "plan": {}}
    (path / "manifest.json").write_text(json.dumps({"starts": [start]}))
    rows = []
    for segment in range(len(returns[0])):
        for member, values in enumerate(returns):
            head = {"step": 100 * (segment + 1), "member": member, "seed": config["seeds"][member], **(hyper[member] if hyper else {})}
            bonus = {f"bonus/{name}": 1.0 / (segment + 1) for name in ("raw", "normalised", "weighted", "share")}
            measured = {"episode/return": values[segment], "loss/value": 0.1, "time/seconds": segment + 1.0}
            rows.append(head | measured | bonus)
            if segment % 2:
                rows.append(head | {"evaluation/return": 2.0 * values[segment]})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (path / "summary.json").write_text(json.dumps({"steps": rows[-1]["step"], "members": [{"metrics": {}} for _ in returns]}))
    if visits is not None:
        np.savez(path / "visits.npz", visits=np.asarray(visits, np.uint32))
    return path


FOUR = [[0.0, 1.0, 2.0, 4.0], [0.0, 0.0, 1.0, 2.0], [1.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 9.0]]


# --- statistics --------------------------------------------------------------------------------------------------------


def test_interquartile_mean_by_hand():
    assert iqm(np.array([3.0, 1.0, 100.0, 2.0])[:, None, None]) == pytest.approx(2.5)  # (2 + 3) / 2
    assert iqm(np.arange(1.0, 9.0)[::-1, None, None]) == pytest.approx(4.5)  # (3 + 4 + 5 + 6) / 4
    assert iqm(np.array([0.0, 0.0, 9.0])[:, None, None]) == pytest.approx(3.0)  # too few to trim


@pytest.mark.parametrize("seeds", range(1, 12))
def test_interquartile_mean_is_rliables(seeds):
    from rliable.metrics import aggregate_iqm

    scores = np.random.default_rng(seeds).normal(size=(seeds, 1, 5))
    np.testing.assert_allclose(iqm(scores), [aggregate_iqm(scores[..., [point]]) for point in range(5)], rtol=1e-12)


def test_interval_is_that_of_all_resamples():
    """Four values have 256 equally likely resamples: the percentiles can be enumerated."""
    values = np.array([1.0, 2.0, 3.0, 10.0])
    exact = np.percentile([np.sort(resample)[1:3].mean() for resample in itertools.product(values, repeat=4)], [2.5, 97.5])
    found = estimate(values[:, None])
    assert found.middle == pytest.approx(2.5)
    np.testing.assert_allclose((found.low[0], found.high[0]), exact)


def test_estimates_count_who_has_a_value():
    nan = np.nan
    found = estimate(np.array([[1.0, nan, nan], [3.0, 5.0, nan]]))
    np.testing.assert_array_equal(found.count, [2, 1, 0])
    np.testing.assert_array_equal(found.middle, [2.0, 5.0, nan])
    np.testing.assert_array_equal((found.low, found.high), [(1.0, nan, nan), (3.0, nan, nan)])


def test_the_same_runs_give_the_same_report():
    """And numpy's global generator, which rliable uses, is left as it was."""
    values = np.random.default_rng(0).normal(size=(5, 3))
    np.random.seed(7)
    first = estimate(values)
    after = np.random.random()
    np.random.seed(7)
    assert np.random.random() == after
    np.testing.assert_array_equal(first.low, estimate(values).low)


# --- what is compared --------------------------------------------------------------------------------------------------


def test_curves_keep_the_value_before_and_end_with_the_member(tmp_path):
    run = make(tmp_path / "run", [[None, 1.0, None, 2.0], [5.0, 6.0, 7.0, 8.0]])
    lines = [line for line in (run / "metrics.jsonl").read_text().splitlines() if not ('"member": 1' in line and '"step": 400' in line)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")  # member 1 was frozen
    [group] = curves.groups([read_run(run)])
    made = curves.curve(group, "episode/return")
    np.testing.assert_array_equal(made.steps, [100, 200, 300, 400])
    np.testing.assert_array_equal(made.values, [[np.nan, 1, 1, 2], [5, 6, 7, np.nan]])
    np.testing.assert_array_equal(curves.curve(group, "evaluation/return").steps, [200, 400])
    assert curves.curve(group, "no/such") is None


def test_long_curves_are_thinned_with_their_ends(tmp_path):
    run = read_run(make(tmp_path / "run", [list(map(float, range(1000)))]))
    made = curves.curve(curves.groups([run])[0], "episode/return")
    assert len(made.steps) == curves.MOST_POINTS and (made.steps[0], made.steps[-1]) == (100, 100_000)
    np.testing.assert_array_equal(made.values[0], made.steps / 100 - 1)


def test_swept_settings_are_groups(tmp_path):
    hyper = [{"exploration.scale": 1.0}, {"exploration.scale": 1.0}, {"exploration.scale": 2.5}, {"exploration.scale": 2.5}]
    run = read_run(make(tmp_path / "run", FOUR, hyper=hyper))
    assert [(g.label, g.members) for g in curves.groups([run])] == [("ppo-counts scale=1", (0, 1)), ("ppo-counts scale=2.5", (2, 3))]


def test_labels_tell_runs_apart(tmp_path):
    agent = {"agent": CONFIG["agent"] | {"hidden": [16]}}
    scale = {"exploration": CONFIG["exploration"] | {"scale": 1.0}}
    world = {"env": CONFIG["env"] | {"size": 8}}
    none = {"exploration": {"_target_": "exploration.base.none"}}
    runs = [read_run(make(tmp_path / str(i), FOUR, **changes)) for i, changes in enumerate(({}, scale, scale | agent, none, world, {}))]
    assert curves.labels(runs) == ["ppo-counts scale=2 0", "ppo-counts scale=1 hidden=[8]", "ppo-counts scale=1 hidden=[16]", "ppo-none", "ppo-counts"] + [
        "ppo-counts scale=2 5"
    ]
    assert curves.world_names(runs) == [*["deep_sea size=4"] * 4, "deep_sea size=8", "deep_sea size=4"]


def test_differing_settings_and_nothing_else(tmp_path):
    changed = {"exploration": CONFIG["exploration"] | {"scale": 0.5}, "total_steps": 800, "run_dir": "elsewhere"}
    runs = [read_run(make(tmp_path / "a", FOUR)), read_run(make(tmp_path / "b", FOUR, **changed))]
    table = tables.differences(runs, ["a", "b"])
    assert (table.headings, table.rows) == (["setting", "a", "b"], [["exploration.scale", "2", "0.5"], ["total_steps", "400", "800"]])
    assert tables.differences(runs[:1], ["a"]) is None


def test_the_table_of_runs(tmp_path):
    [group] = curves.groups([read_run(make(tmp_path / "run", FOUR))])
    table = tables.overview([group])
    row = dict(zip(table.headings, table.rows[0], strict=True))
    assert row["return, IQM [95%]"].startswith("3.500 [")  # of 4, 2, 3, 9
    assert row["evaluation return, IQM [95%]"].startswith("7.000 [")
    assert (row["seeds"], row["state"], row["steps per member"], row["steps/s, all members"]) == ("4", "finished", "400", "400")
    assert (row["commit"], row["versions"], row["stepping time"]) == (COMMIT[:10], "jax 1.2.3", "4.0 s")
    assert tables.commands(group.run) == ["scripts/farlands train 'vmap.exploration.scale=[1,2]'"]


def test_durations():
    assert [tables.duration(s) for s in (4.04, 59.7, 200, 7500)] == ["4.0 s", "59.7 s", "3:20 min", "2:05 h"]


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("manifest.json", '{"starts": 3}', "starts is damaged"),
        ("manifest.json", '{"starts": [{"command": 1, "plan": [], "versions": null}]}', "command, versions, plan are damaged"),
        ("manifest.json", "[]", "not an object"),
        ("summary.json", '{"members": [{"metrics": 0}]}', "members are damaged"),
        ("metrics.jsonl", '{"step": 100, "member": -1}\n{"step": 100, "member": 0, "seed": 0, "time/seconds": "x"}\n', "line 1 cannot be read"),
        ("config.yaml", "env: 1\nagent: {}\nrunner: {}\nexploration: {}\n", "env is damaged"),
        ("config.yaml", "\x00", "config.yaml cannot be read"),
    ],
)
def test_damage_is_told_and_the_rest_is_shown(file, content, told, tmp_path):
    path = make(tmp_path / "run", FOUR)
    (path / file).write_text(content)
    run = read_run(path)
    assert [told in line and len(line.splitlines()) == 1 for line in run.problems] == [True]
    made = curves.groups([run])
    assert len(made) == 1 and tables.overview(made).rows and tables.places([run]).rows
    assert tables.commands(run) is not None and curves.full_names([run])


# --- the command -------------------------------------------------------------------------------------------------------


def report(*arguments, capsys):
    """(exit code, the closing JSON or None, standard error)."""
    code = farlands(["report", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if code == 0 else None, err


@pytest.mark.medium
def test_one_finished_run(tmp_path, capsys):
    run = make(tmp_path / "run", FOUR, visits=np.arange(64).reshape(4, 4, 4))
    code, closing, err = report(run, capsys=capsys)
    assert code == 0 and err == ""
    page = (run / "report" / "report.html").read_text()
    names = {Path(figure).name for figure in closing["figures"]}
    assert names == {"learning.png", "evaluation.png", "bonus.png", "visits.png", "losses.png", "speed.png"}
    assert all((run / "report" / name).with_suffix(".pdf").stat().st_size > 1000 for name in names)
    assert page.count("data:image/png;base64,") == len(names)
    assert "scripts/farlands train" in page and "jax 1.2.3" in page and "Settings that differ" not in page
    assert not re.search(r"<script|(?:src|href)=\"(?!data:|#)", page), "the page needs something outside itself"


@pytest.mark.medium
def test_runs_that_differ_and_one_unfinished(tmp_path, capsys):
    make(tmp_path / "runs" / "a", FOUR)
    make(tmp_path / "runs" / "b", [values[:2] for values in FOUR], finished=False, exploration={"_target_": "exploration.base.none"})
    code, closing, err = report(tmp_path / "runs", "--out", tmp_path / "page.html", capsys=capsys)
    assert (code, closing["runs"], err) == (0, 2, "")
    page = (tmp_path / "page.html").read_text()
    assert "unfinished: 200 of 400 steps" in page and "exploration.base.none" in page and "ppo-none" in page
    assert (tmp_path / "page" / "learning.png").exists()


@pytest.mark.medium
def test_one_member_and_damaged_files(tmp_path, capsys):
    run = make(tmp_path / "run", FOUR[:1])
    (run / "summary.json").write_text("{")
    (run / "visits.npz").write_bytes(b"PK\x03\x04 nothing")
    text = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([text[0], "\x00\x00", *text[1:], '{"step": 5']))
    code, closing, err = report(run, tmp_path / "nowhere", capsys=capsys)
    assert code == 0 and len(closing["figures"]) == 5
    told = err.splitlines()
    assert len(told) == 4
    for words in ("nowhere is not a run", "summary.json cannot be read", "visits.npz cannot be read", "metrics.jsonl: line 2 cannot be read"):
        assert sum(words in line for line in told) == 1
    page = (run / "report" / "report.html").read_text()
    assert '<td class="short">4.000</td>' in page and "line 2 cannot be read" in page


@pytest.mark.medium
def test_a_lost_configuration_and_a_run_without_metrics(tmp_path, capsys):
    lost, young = make(tmp_path / "lost", FOUR), make(tmp_path / "young", FOUR, finished=False)
    (lost / "config.yaml").write_text("a: [")
    (young / "metrics.jsonl").unlink()
    code, closing, err = report(lost, young, capsys=capsys)
    assert code == 0 and "config.yaml cannot be read" in err and "young: no metrics yet" in err
    assert Path(closing["report"]).parent.parent == tmp_path and len(closing["figures"]) == 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "needs at least one run directory"),
        (["empty"], "is not a run"),
        (["nowhere"], "is not a run"),
        (["--out"], "--out needs a place"),
        (["--oot", "x"], "no option --oot"),
    ],
)
def test_refusals_are_one_line(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    code, _, err = report(*arguments, capsys=capsys)
    assert code == 2 and expected in err and len(err.splitlines()) == 1
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_a_missing_package_says_how_to_add_it(monkeypatch):
    from runners.report import command

    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"pip install -e '.\[report\]'"):
        command.report(["anything"])


# --- the browser -------------------------------------------------------------------------------------------------------


@pytest.mark.medium
def test_the_page_in_a_browser(tmp_path, capsys):
    """Headless Chromium draws it with its pictures, without a network, and has nothing to say on its console."""
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine; add it with: apt-get install chromium")
    run = make(tmp_path / "run", FOUR)
    report(run, capsys=capsys)
    page = (run / "report" / "report.html").read_text()
    probe = "console.log('pictures', [...document.images].filter(i => i.complete && i.naturalWidth > 600).length)"
    (tmp_path / "probed.html").write_text(page.replace("</body>", f"<script>window.onload = () => {probe}</script></body>"))
    said = {file: console(browser, file, tmp_path) for file in (run / "report" / "report.html", tmp_path / "probed.html")}
    assert said[run / "report" / "report.html"] == []
    assert len(said[tmp_path / "probed.html"]) == 1 and '"pictures 5"' in said[tmp_path / "probed.html"][0]
    from PIL import Image

    pixels = np.asarray(Image.open(tmp_path / "report.png").convert("L"))
    assert pixels.std() > 10, "the page is blank"


def console(browser: str, file: Path, folder: Path) -> list[str]:
    """What the browser logs from the page; a screenshot goes to ``folder``."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1360,3000", f"--screenshot={folder / file.with_suffix('.png').name}"]
    done = subprocess.run([browser, *options, file.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_run_that_went_on_in_new_episodes_is_told(tmp_path):
    """Worlds that cannot be saved: the manifest says so, and once such a run was resumed the report does."""
    run = make(tmp_path / "run", [[0.0, 1.0]])
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["starts"][0]["plan"] = {"worlds_saved": False}
    for starts, told in ((manifest["starts"], False), (manifest["starts"] * 2, True)):
        (run / "manifest.json").write_text(json.dumps({"starts": starts}))
        state = tables.state(curves.groups([read_run(run)])[0])
        assert ("new episodes" in state) == told, state
