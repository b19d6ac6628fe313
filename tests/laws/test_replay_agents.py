"""What every agent that learns from a replay keeps to, walked over the table of cases.

One compiled program, ``life``, acts and learns from one batch; rewards, weights and ends are inputs, so the laws compare results of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.base import Agent, Regulariser, RewardStream, Sample, Signal
from envs.base import PyTree, Spec
from envs.builder import build
from tests.laws.cases import REPLAY_AGENTS, AgentCase
from tests.laws.data import Traced, assert_close, assert_equal, assert_finite, draw, kinds, member, quick, stacked

B, KEY = 16, jax.random.PRNGKey(5)
GAIN = Regulariser(lambda obs, action: jnp.mean(jnp.sin(action.reshape(B, -1).astype(jnp.float32)), axis=-1), 0.5)  # for those who ask for it


class Data(NamedTuple):
    obs: PyTree  # [B]
    next_obs: PyTree
    action: jax.Array
    terminated: jax.Array
    weights: jax.Array
    first: jax.Array
    streams: tuple[RewardStream, ...]


class Life(NamedTuple):
    memory: PyTree  # [B lanes]; after a step
    action: jax.Array  # [B]
    extras: PyTree
    greedy: jax.Array  # [B]
    latent: jax.Array
    state: PyTree  # after learning
    metrics: dict[str, jax.Array]
    priorities: jax.Array | None


def life(agent: Agent):
    """(state, memory [B], key, data) -> Life."""

    def run(state, memory, key, data: Data) -> Life:
        after, action, extras = agent.act(state, key, (memory, data.obs, data.first, "explore"))
        greedy = agent.act(state, key, (memory, data.obs, data.first, "greedy"))[1]
        seen = agent.act(state, KEY, (agent.start(state, B), data.obs, data.first, "explore"))[2]
        sample = Sample(data.obs, data.action, data.next_obs, data.terminated, data.weights, seen)
        learnt, found = agent.learn(state, key, (sample, Signal(data.streams, 0.25, regulariser=GAIN)))
        return Life(after, action, extras, greedy, agent.encode(state, data.obs), learnt, found.metrics, found.priorities)

    return run


def spec_of(case: AgentCase, **changed: Any) -> Spec:
    return Spec(case.observation, case.action, "laws", lanes=B, streams=case.streams)._replace(**changed)


def data_of(case: AgentCase, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    streams = []
    for weight, discount in list(zip((1.0, 0.5), (0.9, 0.7), strict=True))[: len(case.streams)]:
        discounts = np.float32(discount) ** rng.integers(1, 4, B)
        streams.append(RewardStream(np.float32(0.3 * rng.normal(size=B)), np.float32(discounts), np.float32(weight), np.bool_(True)))
    flags = np.arange(B) % 4 == 0, np.arange(B) % 3 == 0
    weights = np.float32(rng.uniform(0.5, 1.0, B))
    made = Data(draw(case.observation, (B,), rng), draw(case.observation, (B,), rng), draw(case.action, (B,), rng), flags[0], weights, flags[1], tuple(streams))
    return jax.tree.map(jnp.asarray, made)


class Lived(NamedTuple):
    case: AgentCase
    agent: Agent
    run: Any  # the compiled ``life``
    start: PyTree
    memory: PyTree
    data: Data
    out: Life

    def learn(self, **changed: Any) -> Life:
        return self.run(self.start, self.memory, KEY, self.data._replace(**changed))


SLOW = {"dqn/pixels", "rainbow", "sac/codes", "sac/augmented", "sac/sum_then_clip", "redq", "droq", "td3/sum", "max_info_redq"} | {
    "epsilon_max_info",
    "drq",
    "drq_v2",
    "max_info_drq",
    "max_info_drq_v2",
    "td3/max_info",
    "sac/latent",
    "cql",
    "cql/fixed",
    "bcq",
    "bcq/augmented",
}  # to compile


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.medium) if n in SLOW else n for n in REPLAY_AGENTS])
def lived(request) -> Lived:
    case = REPLAY_AGENTS[request.param]
    agent = build(case.entry, spec_of(case))
    run = Traced(life(agent))
    start, data = quick(agent.init)(jax.random.PRNGKey(0)), data_of(case)
    memory = agent.start(start, B)
    return Lived(case, agent, run, start, memory, data, run(start, memory, KEY, data))


def trained(tree: PyTree) -> list[np.ndarray]:
    """Leaves that are not counters."""
    return [np.asarray(x) for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


def change(a: PyTree, b: PyTree) -> float:
    return max(float(np.max(np.abs(x - y))) for x, y in zip(trained(a), trained(b), strict=True) if x.size)


# --- types, shapes, spaces ---------------------------------------------------------------------------------------------


def test_it_says_what_it_learns_from(lived):
    assert lived.agent.learns_from == "replay"


def test_state_and_memory_keep_their_structure_and_dtypes(lived):
    assert kinds(lived.out.state) == kinds(lived.start)
    assert kinds(lived.out.memory) == kinds(lived.memory)
    assert not any(weak for _, _, weak in kinds((lived.start, lived.memory))[1])


def test_a_state_of_any_age_runs_the_same_program(lived):
    lived.run(lived.out.state, lived.out.memory, KEY, lived.data)
    assert len(lived.run.programs) == 1


def test_actions_lie_in_the_space(lived):
    space = lived.case.action
    assert lived.out.action.dtype == (jnp.int32 if not space.shape else jnp.float32)
    for actions in (lived.out.action, lived.out.greedy):
        assert actions.shape == (B, *space.shape)
        assert all(space.contains(np.int64(action) if not space.shape else action) for action in np.asarray(actions))


def test_extras_latents_and_priorities_have_a_row_per_sample_and_metrics_are_numbers(lived):
    assert all(x.shape[0] == B for x in jax.tree.leaves(lived.out.extras))
    assert lived.out.latent.ndim == 2 and lived.out.latent.shape[0] == B
    if lived.out.priorities is not None:
        assert lived.out.priorities.shape == (B,) and lived.out.priorities.dtype == jnp.float32
        assert float(jnp.min(lived.out.priorities)) >= 0.0
    for name, value in lived.out.metrics.items():
        assert isinstance(name, str) and jnp.shape(value) == () and jnp.result_type(value) == jnp.float32, name


# --- acting ------------------------------------------------------------------------------------------------------------


def test_greedy_is_deterministic_and_exploring_is_not(lived):
    other = lived.run(lived.start, lived.memory, jax.random.PRNGKey(6), lived.data)
    assert_equal(other.greedy, lived.out.greedy)
    assert not np.array_equal(other.action, lived.out.action)


def test_the_first_step_of_an_episode_forgets_the_last_one(lived):
    spoilt = jax.tree.map(lambda x: (x + 1) % 3, lived.memory)
    out = lived.run(lived.start, spoilt, KEY, lived.data)
    first = np.asarray(lived.data.first)
    assert_equal(out.greedy[first], lived.out.greedy[first])
    assert_equal(out.action[first], lived.out.action[first])


def test_lanes_act_for_themselves(lived):
    """Another memory in lane 1 leaves the other lanes alone; greedy actions go where the observations go."""
    spoilt = jax.tree.map(lambda x: x.at[1].set((x[1] + 1) % 3), lived.memory)
    others = np.arange(B) != 1
    assert_equal(lived.run(lived.start, spoilt, KEY, lived.data).action[others], lived.out.action[others])
    order = np.roll(np.arange(B), 3)
    moved = lived.learn(obs=jax.tree.map(lambda x: x[order], lived.data.obs))
    assert_equal(moved.greedy, lived.out.greedy[order])


# --- learning ----------------------------------------------------------------------------------------------------------


def test_without_weights_nothing_is_learnt(lived):
    assert_equal(trained(lived.learn(weights=jnp.zeros(B)).state), trained(lived.start))
    assert change(lived.out.state, lived.start) > 1e-6


def test_samples_without_weight_might_be_anything(lived):
    even, data = np.arange(B) % 2 == 0, lived.data
    weights = jnp.where(even, data.weights, 0.0)
    spoilt = {"action": jnp.where(even, data.action.T, jnp.roll(data.action, 1, axis=0).T).T, "terminated": data.terminated ^ ~even}
    spoilt["streams"] = tuple(s._replace(reward=jnp.where(even, s.reward, 7.0)) for s in data.streams)
    assert_close(lived.learn(weights=weights, **spoilt).state, lived.learn(weights=weights).state)


def test_the_signal_reaches_the_learner(lived):
    """Other rewards, or another weight, of the last stream make another first gradient. (The weight of a bonus in the losses comes with its gradients.)"""
    if not lived.case.rewarded:
        pytest.skip("learns from actions alone")
    last = lived.data.streams[-1]
    weighed = () if len(lived.data.streams) > 1 and "information" in " ".join(lived.out.metrics) else (last._replace(weight=jnp.float32(2.0)),)
    for changed in (last._replace(reward=-last.reward), *weighed):
        out = lived.learn(streams=(*lived.data.streams[:-1], changed))
        assert change(out.state, lived.out.state) > 1e-6


def test_truncation_bootstraps_and_termination_does_not(lived):
    """Only ``terminated`` decides: where it holds, neither the successor nor the discount matters."""
    if not lived.case.rewarded:
        pytest.skip("learns from actions alone")
    data, always = lived.data, jnp.ones(B, bool)
    other = {"next_obs": jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), data.next_obs)}
    other["streams"] = tuple(s._replace(discount=0.5 * s.discount) for s in data.streams)
    assert_close(lived.learn(terminated=always, **other).state, lived.learn(terminated=always).state)
    for field, value in other.items():
        assert change(lived.learn(terminated=~always, **{field: value}).state, lived.learn(terminated=~always).state) > 1e-6, field


@pytest.mark.parametrize("size", [0.0, 1e6])
@pytest.mark.parametrize("terminated", [True, False])
def test_learning_stays_finite(lived, size, terminated):
    streams = tuple(s._replace(reward=size * s.reward) for s in lived.data.streams)
    out = lived.learn(streams=streams, terminated=jnp.full(B, terminated))
    assert_finite((out.state, out.metrics, out.priorities))


def test_learning_lowers_the_error_on_a_batch(lived):
    """Of one batch whose targets are its rewards, after a hundred updates."""
    data = lived.data._replace(terminated=jnp.ones(B, bool))

    def once(i, carry):
        state, _ = carry
        out = life(lived.agent)(state, lived.memory, jax.random.fold_in(KEY, i), data)
        return out.state, out.priorities

    before = lived.learn(terminated=data.terminated)
    if before.priorities is None:
        pytest.skip("tells no errors")
    _, after = quick(lambda state: jax.lax.fori_loop(0, 100, once, (state, before.priorities)))(lived.start)
    assert float(jnp.mean(after)) < 0.8 * float(jnp.mean(before.priorities))


# --- programs ----------------------------------------------------------------------------------------------------------


def test_jit_equals_no_jit(lived):
    assert_close(life(lived.agent)(lived.start, lived.memory, KEY, lived.data), lived.out)


def test_members_side_by_side_equal_single_ones(lived):
    agent = build(lived.case.entry, spec_of(lived.case, axis="members"))
    keys = jax.random.split(jax.random.PRNGKey(1), 2)
    starts, memories, data = [lived.start, lived.out.state], [lived.memory, lived.out.memory], [lived.data, data_of(lived.case, seed=3)]
    together = quick(jax.vmap(life(agent), axis_name="members"))(stacked(*starts), stacked(*memories), keys, stacked(*data))
    for n in range(2):
        assert_close(member(together, n), lived.run(starts[n], memories[n], keys[n], data[n]))
