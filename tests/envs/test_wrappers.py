"""Sticky actions and the noisy TV: the same answers from the pure functions and from the Gymnasium wrappers."""

from __future__ import annotations

import copy
import functools
import math
import pickle

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import Refusal, build
from envs.deep_sea import deep_sea
from envs.wrappers import StickyActions, host_wrappers, wrapped
from runners.compose import compose
from runners.experiment import experiment
from runners.source import jax_source
from tests.runners.tiny import TINY, batch_of

FAR = 2**20
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


def echo(action: spaces.Space = spaces.Discrete(FAR), length: int = FAR) -> Environment:  # noqa: B008
    """A world that shows the action it was given last, and nothing but that."""
    start = jnp.zeros(action.shape or (), jnp.int32 if isinstance(action, spaces.Discrete) else jnp.float32)

    def step(t, key, action):
        return t + 1, TimeStep(action, jnp.float32(0), t + 1 >= length, jnp.bool_(False), {"state_id": jnp.int32(0)})

    info = {"state_id": spaces.Discrete(1)}
    return Environment(Spec(action, action, "echo", info=info, num_states=1, deterministic=True), lambda key: (jnp.int32(0), start), step)


class Echo(gymnasium.Env):
    """The same for Gymnasium."""

    def __init__(self, action: spaces.Space = spaces.Discrete(FAR), length: int = FAR):  # noqa: B008
        self.action_space = self.observation_space = action
        self.length, self.t = length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.action_space.sample() * 0, {}

    def step(self, action):
        self.t += 1
        return np.copy(action)[()], 0.0, self.t >= self.length, False, {}


def host(env: gymnasium.Env, sticky_actions: float = 0.0, noisy_tv: int = 0) -> gymnasium.Env:
    return functools.reduce(lambda inner, wrap: wrap(inner), host_wrappers(sticky_actions, noisy_tv), env)


def play_jax(actions, space, length=FAR, seed=0, **wrappers):
    """(first observation, observations after each action); episodes start anew after ``length`` steps, with the observation left out."""
    env = wrapped(echo(space, length), **wrappers)

    def one(carry, inputs):
        action, key = inputs
        step_key, reset_key = jax.random.split(key)
        state, timestep = env.step(carry, step_key, action)
        fresh, _ = env.reset(reset_key)
        return jax.tree.map(lambda a, b: jnp.where(timestep.terminated, a, b), fresh, state), timestep.obs

    start, rest = jax.random.split(jax.random.PRNGKey(seed))
    state, first = env.reset(start)
    _, seen = jax.jit(lambda s: jax.lax.scan(one, s, (jnp.asarray(actions), jax.random.split(rest, len(actions)))))(state)
    return jax.tree.map(np.asarray, (first, seen))


def play_host(actions, space, length=FAR, seed=0, **wrappers):
    env = host(Echo(space, length), **wrappers)
    first, _ = env.reset(seed=seed)
    seen = []
    for action in actions:
        obs, _, terminated, *_ = env.step(action)
        assert env.observation_space.contains(obs)
        seen.append(obs)
        if terminated:
            env.reset()
    return first, jax.tree.map(lambda *leaves: np.stack(leaves), *seen)


each_kind = pytest.mark.parametrize("play", [play_jax, play_host])


def test_zero_changes_nothing():
    env = deep_sea(size=4)
    assert wrapped(env, sticky_actions=0, noisy_tv=0) is env and wrapped(env, sticky_actions=0.0) is env
    assert host_wrappers(0.0, 0) == []


@each_kind
@pytest.mark.parametrize("probability", [0.25, 0.9])
def test_actions_are_repeated_as_often_as_said(play, probability):
    steps, length = 2000, 5
    given = np.arange(1, steps + 1, dtype=np.int32)  # all different
    _, executed = play(given, spaces.Discrete(FAR), length, sticky_actions=probability)
    last = np.concatenate([[0], executed[:-1]])
    repeated = executed == last
    assert np.array_equal(executed, np.where(repeated, last, given))  # the one executed last sticks, not the one given last
    first = np.arange(steps) % length == 0
    assert not repeated[first].any()  # nothing to repeat when an episode begins
    number = (~first).sum()
    assert abs(repeated[~first].mean() - probability) < 4 * math.sqrt(probability * (1 - probability) / number)


@each_kind
def test_with_certainty_the_first_action_of_an_episode_is_its_only_one(play):
    _, executed = play(np.arange(12, dtype=np.int32), spaces.Discrete(FAR), 4, sticky_actions=1.0)
    assert executed.tolist() == [0] * 4 + [4] * 4 + [8] * 4


def test_a_traced_probability():
    """One program for several: what ``vmap.env.sticky_actions=[...]`` does; 0 then repeats nothing."""

    def rate(probability):
        env = wrapped(echo(), sticky_actions=probability)

        def one(state, inputs):
            state, timestep = env.step(state, *inputs)
            return state, timestep.obs

        inputs = jax.random.split(jax.random.PRNGKey(1), 800), jnp.arange(800)
        executed = jax.lax.scan(one, env.reset(jax.random.PRNGKey(0))[0], inputs)[1]
        return jnp.mean(executed[1:] == executed[:-1])

    rates = np.asarray(jax.jit(jax.vmap(rate))(jnp.float32([0, 0.25, 1])))
    assert rates[0] == 0 and rates[2] == 1 and abs(rates[1] - 0.25) < 0.07


@each_kind
@pytest.mark.parametrize(
    ("space", "remote", "other"),
    [(spaces.Discrete(3, start=2), 2, 3), (BOX, np.float32([0.1, -1]), np.float32([0, 1]))],
    ids=["discrete", "box"],
)
def test_the_tv_changes_when_the_remote_is_used_and_only_then(play, space, remote, other):
    used = np.array([False, False, True, False, True, True, False])
    given = np.stack([remote if u else other for u in used])
    first, seen = play(given, space, noisy_tv=3)
    shown = np.concatenate([first["tv"][None], seen["tv"]])
    changed = (shown[1:] != shown[:-1]).any(axis=1)
    assert changed.tolist() == used.tolist()
    assert shown.dtype == np.float32 and shown.shape[1:] == (3,)
    assert np.array_equal(seen["obs"], given)


@each_kind
def test_the_numbers_are_uniform_and_every_episode_has_its_own(play):
    _, seen = play(np.zeros(1500, np.int32), spaces.Discrete(2), noisy_tv=4)
    numbers = np.sort(seen["tv"].ravel())
    assert 0 <= numbers[0] and numbers[-1] < 1
    assert np.abs(numbers - np.linspace(0, 1, len(numbers))).max() < 1.63 / math.sqrt(len(numbers))  # Kolmogorov-Smirnov, 1 %
    _, still = play(np.ones(6, np.int32), spaces.Discrete(2), length=2, noisy_tv=1)
    shown = still["tv"][:, 0]
    assert shown[0] == shown[1] and shown[2] == shown[3] and len(set(shown.tolist())) == 3


@each_kind
def test_the_remote_is_used_by_the_action_that_is_executed(play):
    """Sticky actions are outermost: a remote that sticks is used again, and one that is not executed is not used."""
    _, seen = play(np.array([0, 1, 1, 1, 1, 0, 0, 0], np.int32), spaces.Discrete(2), length=4, sticky_actions=1.0, noisy_tv=1)
    assert seen["obs"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len(set(seen["tv"][:4, 0].tolist())) == 4 and len(set(seen["tv"][4:, 0].tolist())) == 1


def test_the_spec_says_what_has_changed():
    plain = deep_sea(size=4).spec
    tv, sticky = wrapped(deep_sea(size=4), noisy_tv=2).spec, wrapped(deep_sea(size=4), sticky_actions=0.1).spec
    assert plain.deterministic and not tv.deterministic and not sticky.deterministic
    assert tv.observation == spaces.Dict({"obs": plain.observation, "tv": spaces.Box(0.0, 1.0, (2,), np.float32)})
    assert sticky._replace(deterministic=True) == plain == tv._replace(observation=plain.observation, deterministic=True)


def test_pictures_and_tallies_go_on_working():
    env = wrapped(deep_sea(size=4), sticky_actions=0.5, noisy_tv=2)
    state, _ = env.reset(jax.random.PRNGKey(0))
    assert np.array_equal(env.render(state), deep_sea(size=4).render(deep_sea(size=4).reset(None)[0]))
    source = jax_source(env, lanes=2)
    lanes, transitions = source.init(jax.random.PRNGKey(0)), []
    for t in range(4):
        lanes, transition = source.step(lanes, jax.random.PRNGKey(t), jnp.int32([0, 1]))
        transitions.append(transition)
    report = env.tally.report(env.tally.update(env.tally.init(), jax.tree.map(lambda *leaves: jnp.stack(leaves), *transitions)))
    assert report["episodes"] == 2 and int(report["bad_fraction"] * 2) == int(transitions[-1].info["bad_episode"].sum())


def test_a_dictionary_gains_an_entry():
    space = spaces.Dict({"here": spaces.Box(0, 1, (1,)), "there": spaces.Discrete(2)})
    tv_first = echo()._replace(spec=echo().spec._replace(observation=space), reset=lambda key: (jnp.int32(0), {"here": jnp.zeros(1), "there": 0}))
    env = wrapped(tv_first, noisy_tv=2)
    assert set(env.spec.observation.spaces) == set(env.reset(jax.random.PRNGKey(0))[1]) == {"here", "there", "tv"}
    with pytest.raises(Refusal, match="'tv' already"):
        wrapped(env, noisy_tv=2)


def test_a_world_without_a_remote_is_refused():
    with pytest.raises(Refusal, match="env.noisy_tv needs Discrete or Box actions.*env.noisy_tv=0"):
        host(Echo(spaces.MultiDiscrete([2, 2])), noisy_tv=1)


def test_host_worlds_are_repeated_by_their_seed_and_survive_copies():
    env = host(Echo(), sticky_actions=0.5, noisy_tv=2)

    def go_on(world, start):
        return [(int(obs["obs"]), obs["tv"].tolist()) for obs in (world.step(t % 3)[0] for t in range(start, start + 20))]

    env.reset(seed=5)
    once = go_on(env, 0)
    copies = copy.deepcopy(env), pickle.loads(pickle.dumps(env))
    goes_on = go_on(env, 20)
    assert all(go_on(world, 20) == goes_on for world in copies)
    env.reset(seed=5)
    assert go_on(env, 0) == once
    env.reset(seed=6)
    assert go_on(env, 0) != once


def test_an_action_array_may_be_used_again():
    env = StickyActions(Echo(BOX), 1.0)
    env.reset(seed=0)
    action = np.float32([0.5, 0.5])
    env.step(action)
    action[:] = -1
    assert env.step(action)[0].tolist() == [0.5, 0.5]


def test_in_a_vector_of_worlds():
    gymnasium.register("Echo-v0", Echo, max_episode_steps=3)
    try:
        vector = gymnasium.make_vec("Echo-v0", 2, "sync", wrappers=pickle.loads(pickle.dumps(host_wrappers(1.0, 2))))  # pickled as for a worker
        vector.reset(seed=[0, 1])
        seen = [vector.step(np.full(2, t))[0] for t in range(1, 3)]
        vector.close()
    finally:
        del gymnasium.registry["Echo-v0"]
    assert [obs["obs"].tolist() for obs in seen] == [[1, 1], [1, 1]] and seen[0]["tv"].shape == (2, 2)


# --- the trap ----------------------------------------------------------------------------------------------------------


def paid(exploration: dict, action: int, updates: int = 50) -> tuple[float, float]:
    """Mean raw bonus of the first and of the last rollout of an agent that always does ``action`` before a TV."""
    source = jax_source(wrapped(echo(spaces.Discrete(2)), noisy_tv=16), lanes=4)
    bonus = build(exploration, source.spec)

    def step(carry, key):
        lanes, state = carry
        step_key, observe_key = jax.random.split(key)
        lanes, transition = source.step(lanes, step_key, jnp.full(4, action))
        state, annotations = bonus.observe(state, observe_key, transition)
        return (lanes, state), transition._replace(annotations=annotations)

    def rollout(carry, key):
        scan_key, update_key = jax.random.split(key)
        (lanes, state), batch = jax.lax.scan(step, carry, jax.random.split(scan_key, 16))
        raw = bonus.score(state, batch)
        return (lanes, bonus.update(state, update_key, (batch, {}))[0]), jnp.mean(raw)

    def run(key):
        first = source.init(key), bonus.init(key)
        return jax.lax.scan(rollout, first, jax.random.split(key, updates))[1]

    raw = np.asarray(jax.jit(run)(jax.random.PRNGKey(0)))
    return float(raw[1]), float(raw[-1])


RND = {"_target_": "exploration.rnd.rnd", "hidden": (16,), "embedding": 8, "learning_rate": 3e-3, "epochs": 4, "minibatches": 1, "warmup": 0}
COUNTS = {"_target_": "exploration.counts.counts", "capacity": 8192}


def test_the_tv_holds_what_predicts_pixels_and_not_what_counts_states():
    held, free = paid(RND, action=0), paid(RND, action=1)
    assert held[1] > 0.1 * held[0] and free[1] < 1e-3 * free[0]
    assert paid(COUNTS | {"key": "observation"}, action=0) == (1.0, 1.0)  # every picture is new
    assert paid(COUNTS | {"key": "state"}, action=0)[1] < 0.02  # 1/sqrt(3200): the world has one state


def test_both_are_keys_of_every_world():
    made = experiment(compose(["env=gymnax", "env.noisy_tv=2.0", "vmap.env.sticky_actions=[0,0.25]"]))
    assert made.config["env"]["noisy_tv"] == 2 and [m.hyper for m in made.members[::8]] == [{"env.sticky_actions": 0}, {"env.sticky_actions": 0.25}]
    spec = made.make_runner({"env.sticky_actions": 0.5}).spec
    assert not spec.deterministic and set(spec.observation.spaces) == {"obs", "tv"}
    for wrong in ("env.sticky_actions=1.5", "env.noisy_tv=-1", "env.noisy_tv=0.5", "env.sticky_actions=true"):
        with pytest.raises(Refusal, match=wrong.split("=")[0] + "=.*must be"):
            experiment(compose([wrong]))
    with pytest.raises(Refusal, match="cannot differ inside one"):
        experiment(compose(["vmap.env.noisy_tv=[0,1]"]))


@pytest.mark.medium
def test_a_run_with_both():
    batch, total = batch_of([*TINY, "seeds=1", "env.noisy_tv=2", "vmap.env.sticky_actions=[0,1]"], "vmap")
    batch.start()
    batch.run(0, total, total)
    metrics = batch.take_metrics()
    assert all(m["episode/count"] > 0 and m["world/episodes"] > 0 for m in metrics)
