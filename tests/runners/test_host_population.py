"""Searches over policies in worlds on the host: the number of workers changes nothing, nor does a stop; NaN and errors of a world are told in one line."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

from agents.controller import controller
from envs.base import Spec
from envs.builder import Failure, Refusal
from runners import api
from runners.compose import compose
from runners.experiment import experiment


class Line(gymnasium.Env):
    """A place that actions move; pays it, or NaN left of -0.5; an episode is four steps. A file that is named says that a worker shall die, once."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, deadly: str | None = None):
        self.deadly = deadly

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = np.full(2, 0.1, np.float32), 0
        return self.place, {}

    def step(self, action):
        if self.deadly and os.path.exists(self.deadly) and multiprocessing.parent_process():
            os.unlink(self.deadly)
            os.kill(os.getpid(), signal.SIGKILL)
        self.place = np.clip(self.place + 0.3 * np.asarray(action), -1, 1).astype(np.float32)
        self.steps += 1
        pays = float("nan") if self.place[0] < -0.5 else float(self.place.sum())
        return self.place, pays, False, self.steps == 4, {}


gymnasium.register("FarlandsLine-v0", entry_point=f"{__name__}:Line", max_episode_steps=10)


def where(step):
    return step.next_obs


def broken(step):
    raise KeyError("speed")


WORLD = ["env=gymnasium", f"env.id={__name__}:FarlandsLine-v0", "agent.hidden=[3]", f"runner.descriptor={__name__}.where", "runner.box=[[-1,-1],[1,1]]"]
SEARCH = ["exploration=novelty_search", "exploration.population=4", "exploration.added=3", "exploration.capacity=8"]
RUN = [*SEARCH, *WORLD, "runner.cells=[5,4]", "total_steps=960", "segments=2", "seeds=2", "logger.console=false"]


def rows(where: Path, *options: str) -> list[dict]:
    run = api.train(api.compose(*RUN, *options), where)["run_dir"]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in api.metrics(run)]


@pytest.mark.medium
def test_workers_deaths_and_stops_change_nothing(tmp_path):
    """A search whose archive grows on the way: by itself, by two workers of which one is killed, and stopped and gone on with."""
    alone = rows(tmp_path / "alone", "runner.workers=0")
    deadly = tmp_path / "deadly"
    deadly.touch()
    assert rows(tmp_path / "two", "runner.workers=2", f"env.arguments={{deadly: '{deadly}'}}") == alone and not deadly.exists()
    rows(tmp_path / "parts", "runner.workers=0", "stop_at=480")
    assert rows(tmp_path / "parts", "runner.workers=0") == alone
    last = [row for row in alone if "search/evaluations" in row][-1]
    assert last["search/evaluations"] == 4 + 8 * 11 and last["search/steps"] == 4 * last["search/evaluations"]
    assert last["search/invalid"] > 0 and last["archive/size"] > 16 and np.isfinite(last["search/best"])


def test_the_policy_of_workers_is_the_agents():
    """numpy beside jax: continuous and discrete actions, every kind of bias."""
    for action in (spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([1.0, np.inf], np.float32)), spaces.Discrete(3, start=1)):
        for bias in ("shared", "unit", "none"):
            spec = Spec(spaces.Box(-2.0, 2.0, (3,), np.float32), action, lanes=1)
            agent = controller(spec, hidden=(4,), bias=bias, activation="relu", normalize=True)
            for key in jax.random.split(jax.random.PRNGKey(0), 5):
                genome, obs = np.asarray(agent.init(key)), np.asarray(jax.random.normal(key, (3,)))
                wanted = agent.act(genome, key, ((), obs[None], np.ones(1, bool), "greedy"))[1][0]
                np.testing.assert_allclose(agent.genome.act(genome, obs), wanted, atol=1e-6)


def test_what_a_users_function_raises_is_one_line(tmp_path):
    options = [option for option in RUN if not option.startswith("runner.descriptor")]
    config = api.compose(*options, f"runner.descriptor={__name__}.broken", "runner.workers=0")
    with pytest.raises((Failure, KeyError)) as failed:
        api.train(config, tmp_path)
    assert "speed" in str(failed.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["runner.fixed_start=false"], "starts the same way for every policy"),
        (["exploration=taxons"], "lives on the host; use exploration.descriptor=truth"),
        (["runner.descriptor=auto", "runner.box=null"], "describes no behaviour"),
        (["env.id=CartPole-v1", "agent=ppo"], "searches over the weights"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(options, said):
    given = {option.partition("=")[0] for option in options}
    base = [option for option in ["exploration=novelty_search", *WORLD] if option.partition("=")[0] not in given]
    base = [option for option in base if not ("agent=ppo" in options and option.startswith("agent."))]
    with pytest.raises(Refusal) as refused:
        experiment(compose(["seeds=1", *base, *options])).make_runner({})
    assert said in str(refused.value) and "\n" not in str(refused.value)
