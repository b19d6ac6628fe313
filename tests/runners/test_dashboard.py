"""The dashboard: what it reads, what it refuses, and the page in headless Chromium while a run goes on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from envs.builder import Refusal
from runners.compose import CONFIGS
from runners.dashboard import charts, runs
from runners.dashboard.app import difference
from runners.dashboard.command import parsed
from runners.report.archives import archive_maps, how_to_draw
from runners.report.curves import Curve, groups
from runners.report.statistics import estimate, quick
from tests.runners.test_report import CONFIG, FOUR, make

ROOT = CONFIGS.parent


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "runs"
    make(made / "first", FOUR, visits=np.arange(36).reshape(4, 3, 3))
    hyper = [{"exploration.scale": scale} for scale in (0.5, 0.5, 3.0, 3.0)]
    make(made / "second", FOUR, finished=False, hyper=hyper, exploration=CONFIG["exploration"] | {"scale": 2.0, "power": 1.0})
    make(made / "inner" / "third", FOUR[:2], env={"_target_": "envs.gymnasium.gymnasium", "id": "CartPole-v1"})
    (made / "first" / "report").mkdir()
    (made / "first" / "report" / "picture.png").write_bytes(bytes.fromhex("89504e470d0a1a0a"))
    (made / "second" / "pictures").mkdir()
    Image.new("RGB", (40, 30), "red").save(made / "second" / "pictures" / "archive-0.png")
    (made / "broken").mkdir()
    (made / "broken" / "config.yaml").write_text("[")
    return made


def test_runs_are_found_filtered_and_read_again_when_they_change(folder):
    found = runs.Runs(folder)
    every = {found.place(run): run for run in found.all()}
    assert set(every) == {"first", "second", "inner/third"}
    assert found.all()[0] is next(run for run in found.all() if found.place(run) == found.place(found.all()[0]))  # not read twice
    fits = lambda words: {place for place, run in every.items() if runs.matches(run, place, words)}  # noqa: E731
    assert fits("") == set(every) and fits("cartpole") == {"inner/third"} and fits("size=4") == {"first", "second"}
    assert fits("power=1") == {"second"} and fits("exploration.power=1 unfinished") == {"second"} and fits("size=4 third") == set()
    row = runs.row(found, every["first"])
    assert (row["steps"], row["members"], row["state"], row["agent"]) == (400, 4, "finished", "ppo") and row["return"] == 2 * np.mean([4, 2, 3, 9])
    with open(folder / "second" / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 500, "member": 0, "seed": 0, "episode/return": 7.0}) + "\n")
    again = {found.place(run): run for run in found.all()}
    assert again["second"].steps == 500 and again["first"] is every["first"]
    assert [found.place(run) for run in found.chosen(["second", "../x", "/etc", "nothing"])] == ["second"]
    assert runs.media(again["first"]) == [("report/picture.png", "image")]


def test_lines_are_groups_or_the_values_of_any_setting(folder):
    chosen = runs.Runs(folder).chosen(["first", "second"])
    assert "exploration.scale" in runs.comparable(chosen) and "exploration.power" in runs.comparable(chosen) and "env.size" not in runs.comparable(chosen)
    every = groups(chosen)
    assert len(charts.arranged(every, None)) == 3
    by = charts.arranged(every, "exploration.scale")
    assert {label: sum(len(g.members) for g in some) for label, some in by.items()} == {"scale=2": 4, "scale=0.5": 2, "scale=3": 2}
    rows = {row["line"]: row for row in charts.ends(by, "episode/return")}
    assert rows["scale=2"]["interquartile mean"] == 3.5 and rows["scale=2"]["largest"] == 9.0 and rows["scale=3"]["seeds"] == 2
    figure = charts.lines(by, ["episode/return", "loss/value"], thin=True, log=False)
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert named == ["scale=2, 4 seeds", "scale=0.5, 2 seeds", "scale=3, 2 seeds"]
    line = next(trace for trace in figure.data if trace.name == "scale=2, 4 seeds")
    np.testing.assert_allclose(line.y, [0.0, 0.5, 1.5, 3.5])
    assert charts.visits(chosen[0], "first").data[0].z.shape == (3, 3) and charts.visits(chosen[1], "second") is None


def test_curves_of_several_runs_are_pooled_step_by_step():
    made = charts.pooled([Curve(np.array([10, 20]), np.array([[1.0, 2.0]])), Curve(np.array([15, 20, 30]), np.array([[5.0, 6.0, 7.0]]))])
    np.testing.assert_array_equal(made.steps, [10, 15, 20, 30])
    np.testing.assert_array_equal(made.values, [[1, 1, 2, np.nan], [np.nan, 5, 6, 7]])


def test_quick_intervals_are_those_of_the_report_within_chance():
    values = np.random.default_rng(0).normal(size=(12, 5))
    values[0, :2] = np.nan
    fast, slow = quick(values, 4000), estimate(values)
    np.testing.assert_allclose(fast.middle, slow.middle)
    np.testing.assert_allclose(fast.low, slow.low, atol=0.1)
    np.testing.assert_allclose(fast.high, slow.high, atol=0.1)
    assert np.isnan(quick(values[:1], 100).low).all() and (fast.count == slow.count).all()


def test_only_what_changed_goes_to_the_table():
    a, b = {"run": "a", "steps": 1}, {"run": "b", "steps": 1}
    assert difference({"a": a, "b": b}, {"a": a, "b": b}) is None
    assert difference({"a": a}, {"b": b}) == {"add": [b], "remove": [a], "async": False}
    assert difference({"a": a}, {"a": a | {"steps": 2}}) == {"update": [{"run": "a", "steps": 2}], "async": False}


def test_its_words_are_checked():
    assert parsed(["mine", "port=9000"]) == (Path("mine"), 9000) and parsed([]) == (Path("runs"), 8050)
    for words, answer in ((["prt=1"], "did you mean port"), (["port=x"], "1 to 65535"), (["--open"], "no option")):
        with pytest.raises(Refusal, match=answer):
            parsed(words)


class Server:
    def __init__(self, folder: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "runners.cli", "dashboard", str(folder), f"port={self.port}"]
        self.process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.port}"
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(self.url, timeout=5)
                return
            except OSError:
                assert self.process.poll() is None, self.process.stderr.read()
                time.sleep(0.2)
        raise AssertionError("the dashboard did not answer")

    def get(self, path: str, host: str | None = None) -> int:
        request = urllib.request.Request(self.url + path, headers={"Host": host} if host else {})
        try:
            return urllib.request.urlopen(request, timeout=10).status
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture
def server(folder):
    made = Server(folder)
    yield made
    made.process.terminate()
    made.process.communicate(timeout=30)


@pytest.mark.medium
def test_it_answers_this_machine_and_gives_out_pictures_alone(server, folder):
    assert server.get("/") == 200 and server.get("/", host=f"localhost:{server.port}") == 200
    assert server.get("/", host="somewhere.example:80") == 403  # a page elsewhere that names this address its own
    assert server.get("/media/first/report/picture.png") == 200
    assert {server.get(path) for path in ("/media/first/config.yaml", "/media/../x.png", "/media/%2e%2e/x.png", "/media/first/none.png")} == {404}
    found = subprocess.run(["ss", "-ltn"], capture_output=True, text=True).stdout if shutil.which("ss") else f"127.0.0.1:{server.port}"
    assert f"127.0.0.1:{server.port}" in found and f"0.0.0.0:{server.port}" not in found
    second = [sys.executable, "-m", "runners.cli", "dashboard", str(folder), f"port={server.port}"]
    done = subprocess.run(second, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and f"port={server.port} cannot be used" in done.stderr


@pytest.mark.medium
def test_the_page_in_a_browser(server, folder, tmp_path):
    """Open, filter, choose two runs, compare them, watch one go on; a screenshot of each; nothing on the browser's console."""
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with its driver on this machine; add them with: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000", offline, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = webdriver.Chrome(options=options, service=Service(driver))
    wait = WebDriverWait(page, 60, ignored_exceptions=[Exception])

    def texts(selector):
        return [element.text for element in page.find_elements(By.CSS_SELECTOR, selector)]

    def rows():
        return texts("#runs .ag-center-cols-container .ag-row [col-id=run]")

    def tab(name):
        next(e for e in page.find_elements(By.CSS_SELECTOR, ".tab") if name in e.text).click()

    try:
        page.get(server.url)
        wait.until(lambda _: len(rows()) == 3)
        words = page.find_element(By.ID, "filter")
        words.send_keys("size=4")
        wait.until(lambda _: sorted(rows()) == ["first", "second"] and "2 of 3 runs" in page.find_element(By.ID, "count").text)
        for box in page.find_elements(By.CSS_SELECTOR, "#runs .ag-row .ag-checkbox-input"):
            box.click()
        wait.until(lambda _: len([t for t in texts("#curves .legendtext") if t]) == 3)
        page.save_screenshot(str(tmp_path / "curves.png"))
        tab("Compare")
        wait.until(lambda _: "exploration.power" in page.find_element(By.ID, "compared").text)
        page.save_screenshot(str(tmp_path / "compare.png"))
        tab("Commands")
        wait.until(lambda _: "vmap.exploration.scale=[1,2]" in page.find_element(By.ID, "commands").text)
        tab("Maps")
        wait.until(lambda _: len(page.find_elements(By.CSS_SELECTOR, "#content .heatmaplayer")) == 1)
        wait.until(lambda _: [e.get_property("naturalWidth") for e in page.find_elements(By.CSS_SELECTOR, "#maps img")] == [40])  # the archive's map
        tab("Curves")
        wait.until(lambda _: page.find_elements(By.CSS_SELECTOR, "#curves .legendtext"))
        with open(folder / "second" / "metrics.jsonl", "a") as file:  # it goes on
            for member in range(4):
                scale = 0.5 if member < 2 else 3.0
                row = {"step": 9000, "member": member, "seed": member, "exploration.scale": scale, "episode/return": 70.0}
                file.write(json.dumps(row) + "\n")
        wait.until(lambda _: "9,000" in " ".join(texts("#runs [col-id=steps]")))
        wait.until(lambda _: any("8k" in text or "8000" in text for text in texts("#curves .xtick text")))
        page.save_screenshot(str(tmp_path / "later.png"))
        words.clear()
        said = [line for line in page.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]
        assert said == []
    finally:
        page.quit()
    for name in ("curves", "compare", "later"):
        assert np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).std() > 10, f"{name} is blank"


def test_how_to_draw_an_archive_is_said_where_nobody_has(folder):
    found = {run.name: run for run in runs.Runs(folder).all()}
    assert [png.name for png, _ in archive_maps(found["second"])] == ["archive-0.png"] and archive_maps(found["first"]) == []
    assert how_to_draw(found["first"]) == []
    for metric, command in (("archive/cells", "demonstrate"), ("search/coverage", "elites")):
        [(_, typed)] = how_to_draw(found["first"]._replace(rows=[{metric: 1.0}]))
        assert f" {command} " in typed
