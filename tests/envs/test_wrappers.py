"""Sticky actions and the noisy TV: the same answers from the pure functions and from the Gymnasium wrappers."""

from __future__ import annotations

import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Environment, HostEnvironment, Spec, TimeStep, undisturbed
from envs.builder import Refusal, build
from envs.deep_sea import deep_sea
from envs.gymnasium import gymnasium as gymnasium_world
from envs.wrappers import with_action_noise, with_random_start, wrapped
from runners.compose import compose
from runners.experiment import experiment
from runners.source import jax_source
from tests.laws.data import quick
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


def host(space: spaces.Space = spaces.Discrete(FAR), length: int = FAR, **wrappers) -> HostEnvironment:  # noqa: B008
    if "Echo-v0" not in gymnasium.registry:
        gymnasium.register("Echo-v0", Echo)
    return wrapped(gymnasium_world(id="Echo-v0", arguments={"action": space, "length": length}), **wrappers)


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
    env = host(space, length, **wrappers)
    worlds = env.open(1)
    first, seen = worlds.reset([seed]), []
    for action in actions:
        made, _ = worlds.step(np.asarray(action)[None])
        seen.append(made.obs)
    worlds.close()
    return jax.tree.map(lambda leaf: leaf[0], first), jax.tree.map(lambda *leaves: np.stack(leaves)[:, 0], *seen)


each_kind = pytest.mark.parametrize("play", [play_jax, play_host])


def test_zero_changes_nothing():
    env = deep_sea(size=4)
    assert wrapped(env, sticky_actions=0, noisy_tv=0) is env and wrapped(env, sticky_actions=0.0) is env
    env = host()
    assert wrapped(env, sticky_actions=0.0, noisy_tv=0) is env


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


def test_action_noise_replaces_as_many_actions_as_said():
    env = with_action_noise(echo(), 0.4)
    keys = jax.random.split(jax.random.PRNGKey(0), 4000)
    state = env.reset(keys[0])[0]
    executed = jax.vmap(lambda key: env.step(state, key, jnp.int32(FAR + 1))[1].obs)(keys)
    assert abs(float(jnp.mean(executed != FAR + 1)) - 0.4) < 4 * math.sqrt(0.24 / 4000) and not env.spec.deterministic
    assert len(set(np.asarray(executed).tolist())) > 1000  # drawn one by one


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
        wrapped(echo(spaces.MultiDiscrete([2, 2])), noisy_tv=1)


@pytest.mark.parametrize("space", [spaces.Discrete(FAR), BOX], ids=["discrete", "box"])
def test_host_worlds_are_repeated_by_their_seed_and_survive_snapshots(space):
    env = host(space, 7, sticky_actions=0.5, noisy_tv=2)
    generator = np.random.default_rng(0)
    actions = generator.integers(0, 3, (40, 2)) if isinstance(space, spaces.Discrete) else generator.uniform(-1, 1, (40, 2, 2)).astype(np.float32)
    worlds = env.open(2)

    def go_on(worlds, start):
        return jax.tree.map(np.ndarray.tolist, [worlds.step(action)[0].obs for action in actions[start : start + 20]])

    worlds.reset([5, 9])
    once = go_on(worlds, 0)
    snapshots = worlds.save()
    goes_on = go_on(worlds, 20)
    other = env.open(2)
    other.reset([0, 0])
    other.load(snapshots)
    assert go_on(other, 20) == goes_on
    worlds.reset([5, 9])
    assert go_on(worlds, 0) == once
    worlds.reset([6, 9])
    assert go_on(worlds, 0) != once


def test_an_action_array_may_be_used_again():
    worlds = host(BOX, sticky_actions=1.0).open(1)
    worlds.reset([0])
    action = np.float32([[0.5, 0.5]])
    worlds.step(action)
    action[:] = -1
    assert worlds.step(action)[0].obs.tolist() == [[0.5, 0.5]]


def test_the_successor_and_the_start_after_it_have_a_tv_each():
    worlds = host(spaces.Discrete(2), 2, noisy_tv=2).open(1)
    start = worlds.reset([0])
    worlds.step(np.array([1]))
    made, following = worlds.step(np.array([1]))
    assert made.terminated[0] and np.array_equal(made.obs["tv"], start["tv"]) and not np.array_equal(following["tv"], start["tv"])


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


def test_random_starts_are_uniform_in_number_and_leave_an_end_alone():
    """``echo`` counts its steps: after up to 9 random ones it is at 0 to 9 alike; where its third step would end it, at 2 at most."""
    world, _ = quick(jax.vmap(with_random_start(echo(spaces.Discrete(3)), 9).reset))(jax.random.split(jax.random.PRNGKey(0), 5000))
    np.testing.assert_allclose(np.bincount(world, minlength=10) / 5000, 0.1, atol=0.02)
    short, _ = quick(jax.vmap(with_random_start(echo(spaces.Discrete(3), 3), 9).reset))(jax.random.split(jax.random.PRNGKey(0), 500))
    assert set(np.asarray(short).tolist()) == {0, 1, 2}


def test_a_demonstration_is_heeded_where_actions_stick():
    env = with_random_start(wrapped(echo(), sticky_actions=1.0), 5)
    calm = undisturbed(env)
    state, _ = calm.reset(jax.random.PRNGKey(0))
    assert state.world == 0  # before any random action
    for action in (3, 1, 2):
        state, seen = calm.step(state, jax.random.PRNGKey(0), jnp.int32(action))
        again, same = env.step(calm.heed(state), jax.random.PRNGKey(0), jnp.int32(action + 5))
        assert seen.obs == action and same.obs == again.action == action + 5
    assert env.step(state, jax.random.PRNGKey(0), jnp.int32(7))[1].obs == 2  # and without it they stick
