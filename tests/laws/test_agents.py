"""What every agent keeps to, walked over the table of cases.

One compiled program, ``life``, collects a rollout with an agent and learns from it; rewards, weights and episode ends are inputs,
so the laws compare results of the same program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.base import Agent, RewardStream, Rollout, Signal
from envs.base import PyTree, Spec, Transition
from envs.builder import build
from tests.laws.cases import AGENTS, ONE, AgentCase
from tests.laws.data import Traced, assert_close, assert_equal, assert_finite, draw, kinds, member, quick, stacked, transitions

STEPS, LANES, GAE_LAMBDA = 4, 3, 0.95
KEY = jax.random.PRNGKey(5)


class Data(NamedTuple):
    """Everything of a rollout that an agent does not make itself."""

    steps: Transition  # [T, N]
    last_obs: PyTree  # [N]; to act on after the last step
    last_first: jax.Array  # bool[N]
    streams: tuple[RewardStream, ...]
    progress: jax.Array


class Life(NamedTuple):
    memory: PyTree  # [N]; after the rollout
    actions: jax.Array  # [T, N]
    extras: PyTree  # [T, N]
    greedy: jax.Array  # [N]
    state: PyTree  # after learning
    aux: dict[str, jax.Array]
    greedy_again: jax.Array | None = None  # [N]; with another key
    forgetful: jax.Array | None = None  # [N]; greedy, at the first step of an episode, after another one
    latent: jax.Array | None = None
    successor: PyTree = None  # [T, N]; extras of acting on the true successors
    last: PyTree = None  # [N]; extras of acting on last_obs
    after: PyTree = None  # [T, N]; (actions, extras) that the new policy gives to the same observations and keys


def life(agent: Agent, brief: bool = False):
    """(state, key, data) -> Life. ``brief`` leaves out what acts again: quicker to compile."""

    def play(state, key, steps):
        def one(memory, inputs):
            key, obs, first = inputs
            memory, action, extras = agent.act(state, key, (memory, obs, first, "explore"))
            return memory, (memory, action, extras)

        start = agent.start(state, LANES)
        return start, *jax.lax.scan(one, start, (jax.random.split(key, STEPS), steps.obs, steps.first))

    def run(state, key, data: Data) -> Life:
        steps = data.steps
        start, memory, (memories, actions, extras) = play(state, key, steps)

        def look(inputs):
            memory, obs = inputs
            return agent.act(state, key, (memory, obs, jnp.zeros(LANES, bool), "greedy"))[2]

        def greedy(memory, key, first):
            return agent.act(state, key, (memory, member(steps.obs, 0), first, "greedy"))[1]

        begin = jnp.ones(LANES, bool)
        rollout = Rollout(steps._replace(action=actions), extras, start, memory, data.last_obs, data.last_first)
        learnt, found = agent.learn(state, key, (rollout, Signal(data.streams, data.progress)))
        made = Life(memory, actions, extras, greedy(start, key, begin), learnt, found.metrics)
        if brief:
            return made
        return made._replace(
            greedy_again=greedy(start, jax.random.fold_in(key, 1), begin),
            forgetful=greedy(jax.tree.map(lambda x: x * -3 + 1, memory), key, begin),
            latent=agent.encode(state, data.last_obs) if agent.encode else None,
            successor=jax.lax.map(look, (memories, steps.next_obs)),
            last=agent.act(state, key, (memory, data.last_obs, data.last_first, "greedy"))[2],
            after=play(learnt, key, steps)[2][1:],
        )

    return run


def spec_of(case: AgentCase, **changed: Any) -> Spec:
    return Spec(case.observation, case.action, "laws", lanes=LANES, streams=case.streams)._replace(**changed)


def data_of(case: AgentCase, seed: int = 0, streams: tuple[str, ...] | None = None) -> Data:
    """Random observations and rewards; the extrinsic stream ends with the episode, the other does not."""
    rng = np.random.default_rng(seed)
    steps = transitions(spec_of(case), STEPS, seed)
    intrinsic = jnp.asarray(rng.uniform(0.0, 1.0, (STEPS, LANES)), jnp.float32)
    both = (stream(steps.reward, 0.9, 1.0, True), stream(intrinsic, 0.7, 0.5, False))
    return Data(steps, draw(case.observation, (LANES,), rng), steps.done[-1], both[: len(streams or case.streams)], jnp.float32(0.25))


def stream(reward, discount, weight, episodic) -> RewardStream:
    return RewardStream(reward, jnp.float32(discount), jnp.float32(weight), jnp.asarray(episodic))


def changed(data: Data, index: int, **values: Any) -> Data:
    """``data`` with some fields of a stream replaced."""
    streams = list(data.streams)
    streams[index] = streams[index]._replace(**values)
    return data._replace(streams=tuple(streams))


def ending(data: Data, terminated: Any, truncated: Any) -> Data:
    """``data`` with other episode ends; all else as it is."""
    flags = (jnp.broadcast_to(jnp.asarray(x), (STEPS, LANES)) for x in (terminated, truncated))
    return data._replace(steps=data.steps._replace(**dict(zip(("terminated", "truncated"), flags, strict=True))))


class Lived(NamedTuple):
    case: AgentCase
    agent: Agent
    run: Any  # the compiled ``life``
    start: PyTree
    data: Data
    out: Life

    def learn(self, data: Data) -> Life:
        return self.run(self.start, KEY, data)


def born(case: AgentCase) -> Lived:
    agent = build(case.entry, spec_of(case))
    run = Traced(life(agent))
    start, data = agent.init(jax.random.PRNGKey(0)), data_of(case)
    return Lived(case, agent, run, start, data, run(start, KEY, data))


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.medium) if "pixels" in n else n for n in AGENTS])
def lived(request) -> Lived:
    return born(AGENTS[request.param])


@pytest.fixture
def learner(lived) -> Lived:
    if not lived.case.learns:
        pytest.skip("does not learn")
    return lived


@pytest.fixture
def two_streams(lived) -> Lived:
    if len(lived.case.streams) < 2:
        pytest.skip("has one stream")
    return lived


# --- types, shapes, spaces ---------------------------------------------------------------------------------------------


def test_state_and_memory_keep_their_structure_and_dtypes(lived):
    assert kinds(lived.out.state) == kinds(lived.start)
    assert kinds(lived.out.memory) == kinds(lived.agent.start(lived.start, LANES))
    assert not any(weak for _, _, weak in kinds((lived.start, lived.out.memory))[1])


def test_a_state_of_any_age_runs_the_same_program(lived):
    lived.run(lived.run(lived.out.state, KEY, lived.data).state, KEY, lived.data)
    assert len(lived.run.programs) == 1


def test_actions_lie_in_the_space(lived):
    space = lived.case.action
    assert lived.out.actions.shape == (STEPS, LANES, *space.shape)
    assert lived.out.actions.dtype == (jnp.int32 if not space.shape else jnp.float32)
    for actions in (lived.out.actions.reshape(-1, *space.shape), lived.out.greedy):
        for action in np.asarray(actions):
            assert space.contains(np.int64(action) if not space.shape else action)


def test_extras_have_a_row_per_step_and_metrics_are_numbers(lived):
    assert all(x.shape[:2] == (STEPS, LANES) for x in jax.tree.leaves(lived.out.extras))
    for name, value in lived.out.aux.items():
        assert isinstance(name, str) and value.shape == () and value.dtype == jnp.float32, name


def test_a_latent_is_a_vector_per_lane(learner):
    assert learner.out.latent.ndim == 2 and learner.out.latent.shape[0] == LANES
    assert_finite(learner.out.latent)


# --- acting ------------------------------------------------------------------------------------------------------------


def test_greedy_is_deterministic_and_exploring_is_not(learner):
    assert_equal(learner.out.greedy, learner.out.greedy_again)
    other = learner.run(learner.start, jax.random.PRNGKey(6), learner.data)
    assert not np.array_equal(other.actions, learner.out.actions)
    assert_equal(other.greedy, learner.out.greedy)


def test_the_first_step_of_an_episode_forgets_the_last_one(learner):
    assert_equal(learner.out.forgetful, learner.out.greedy)


def test_lanes_act_for_themselves(learner):
    order = np.array([2, 0, 1])
    permuted = jax.tree.map(lambda x: x[:, order], learner.data.steps)
    assert_close(learner.learn(learner.data._replace(steps=permuted)).greedy, learner.out.greedy[order])


# --- learning ----------------------------------------------------------------------------------------------------------


def test_learning_changes_the_policy(learner):
    assert largest_change(learner.out, (learner.out.actions, learner.out.extras)) > 1e-6


def test_the_signal_reaches_the_learner(learner):
    """Other rewards, or another weight, of the last stream make another policy in the first update."""
    data = learner.data
    rewarded = learner.learn(changed(data, -1, reward=-data.streams[-1].reward[::-1]))
    assert largest_change(learner.out, rewarded.after) > 1e-6
    if len(data.streams) > 1:
        without, scaled = (learner.learn(changed(data, -1, weight=jnp.float32(w))) for w in (0.0, 1.0))
        assert largest_change(scaled, without.after) > 1e-6


def test_without_weight_a_stream_leaves_the_policy_alone(two_streams):
    """... whatever it pays, and as if it were not there at all."""
    if two_streams.case.entry.get("epochs") != 1:
        pytest.skip("later gradients see the values that earlier ones made")
    data = changed(two_streams.data, 1, weight=jnp.float32(0.0))
    paid, unpaid = (two_streams.learn(changed(data, 1, reward=data.streams[1].reward * factor)) for factor in (100.0, 0.0))
    assert_close(paid.after[0], unpaid.after[0])
    assert_close(paid.after[1]["log_prob"], unpaid.after[1]["log_prob"])
    alone = born(two_streams.case._replace(streams=ONE))
    assert_equal(alone.data.streams[0], data.streams[0])
    start = jax.tree.map(lambda one, two: two[..., : one.shape[-1]] if one.shape else two, alone.start, two_streams.start)  # the same first head
    single = alone.run(start, KEY, alone.data)
    assert_close(unpaid.after[0], single.after[0])
    assert_close(unpaid.after[1]["log_prob"], single.after[1]["log_prob"])


def largest_change(out: Life, after: PyTree) -> float:
    """How far apart the two policies' actions and log probabilities lie."""
    pairs = [(out.after[0], after[0]), (out.after[1]["log_prob"], after[1]["log_prob"])]
    return max(float(jnp.max(jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)))) for a, b in pairs)


HARSH = {
    "no rewards": lambda out, data: [jnp.zeros_like(s.reward) for s in data.streams],
    "no advantage": lambda out, data: [out.extras["value"][..., min(k, out.extras["value"].shape[-1] - 1)] for k in range(len(data.streams))],
    "huge rewards": lambda out, data: [1e6 * s.reward for s in data.streams],
    "always one": lambda out, data: [jnp.ones_like(s.reward) for s in data.streams],
}


@pytest.mark.parametrize("kind", HARSH)
@pytest.mark.parametrize("ends", ["all terminated", "all truncated", "none ended"])
def test_learning_stays_finite(learner, kind, ends):
    """Also where every advantage is zero, which normalising divides by its deviation."""
    data = ending(learner.data, ends == "all terminated", ends == "all truncated")
    for k, reward in enumerate(HARSH[kind](learner.out, data)):
        data = changed(data, k, reward=reward, weight=jnp.float32(k == 0 or kind != "no advantage"))
    out = learner.learn(data)
    assert_finite((out.state, out.aux, out.after))


# --- targets -----------------------------------------------------------------------------------------------------------


def targets(out: Life, data: Data, mix: str) -> np.ndarray:
    """Value targets [T, N, heads] from the definition, in numpy: truncation bootstraps, termination does not, and a stream that is
    not episodic sees no ends at all."""
    streams = [RewardStream(np.asarray(s.reward, np.float64), float(s.discount), float(s.weight), bool(s.episodic)) for s in data.streams]
    if mix != "heads":
        reward = sum(s.weight * s.reward for s in streams)
        streams = [streams[0]._replace(reward=np.clip(reward, -1, 1) if mix == "sum_then_clip" else reward)]
    value, successor, last = (np.asarray(x["value"], np.float64) for x in (out.extras, out.successor, out.last))
    terminated, truncated = np.asarray(data.steps.terminated), np.asarray(data.steps.truncated)
    found = np.zeros_like(value)
    for k, s in enumerate(streams):
        for lane in range(LANES):
            advantage = 0.0
            for t in reversed(range(STEPS)):
                following = value[t + 1, lane, k] if t + 1 < STEPS else last[lane, k]
                if s.episodic and terminated[t, lane]:
                    following, advantage = 0.0, 0.0
                elif s.episodic and truncated[t, lane]:
                    following, advantage = successor[t, lane, k], 0.0
                delta = s.reward[t, lane] + s.discount * following - value[t, lane, k]
                advantage = delta + s.discount * GAE_LAMBDA * advantage
                found[t, lane, k] = advantage + value[t, lane, k]
    return found


def value_loss(out: Life, data: Data, mix: str) -> float:
    return 0.5 * float(np.mean(np.sum(np.square(np.asarray(out.extras["value"]) - targets(out, data, mix)), axis=-1)))


def test_targets_know_truncation_from_termination(learner):
    """The value loss of the one gradient step is that of targets computed by hand, whichever way the last step ends."""
    if learner.case.entry.get("epochs") != 1:
        pytest.skip("the reported loss is a mean over several steps, of normalised rewards")
    mix, steps = learner.case.entry.get("mix", "heads"), learner.data.steps
    at = np.zeros((STEPS, LANES), bool)
    at[-1, 2] = True
    losses = {}
    for name, terminated, truncated in (("goes on", ~at & at, ~at & at), ("terminated", at, ~at & at), ("truncated", ~at & at, at), ("both", at, at)):
        data = ending(learner.data, steps.terminated | terminated, steps.truncated | truncated)
        losses[name] = float(learner.learn(data).aux["loss/value"])
        assert losses[name] == pytest.approx(value_loss(learner.out, data, mix), rel=1e-4), name
    assert losses["both"] == pytest.approx(losses["terminated"], rel=1e-5)
    apart = [losses[name] for name in ("goes on", "terminated", "truncated")]
    assert min(abs(a - b) for i, a in enumerate(apart) for b in apart[:i]) > 1e-5


def test_a_truncated_target_has_the_successors_value_and_a_terminated_one_has_not(learner):
    """One reward of 0, so that the difference of the two targets is discount * V(successor) and nothing else."""
    if learner.case.entry.get("epochs") != 1:
        pytest.skip("as above")
    mix, at = learner.case.entry.get("mix", "heads"), np.zeros((STEPS, LANES), bool)
    at[-1, 0] = True
    cut, over = (ending(learner.data, *flags) for flags in ((at & ~at, at), (at, at & ~at)))
    difference = (targets(learner.out, cut, mix) - targets(learner.out, over, mix))[-1, 0, 0]
    bootstrap = float(learner.data.streams[0].discount) * float(learner.out.successor["value"][-1, 0, 0])
    assert difference == pytest.approx(bootstrap, rel=1e-5) and abs(bootstrap) > 1e-3


# --- programs ----------------------------------------------------------------------------------------------------------


def test_a_state_that_was_saved_goes_on_identically(lived):
    saved = jax.tree.map(np.asarray, lived.out.state)
    again, wanted = (lived.run(state, KEY, lived.data) for state in (jax.tree.map(np.copy, saved), lived.out.state))
    assert_equal(again, wanted)
    assert len(lived.run.programs) == 1


def test_jit_equals_no_jit(lived):
    plain = life(lived.agent, brief=True)(lived.start, KEY, lived.data)
    assert_close(plain, lived.out._replace(**left_out(plain)))


def test_members_side_by_side_equal_single_ones(lived):
    agent = build(lived.case.entry, spec_of(lived.case, axis="members"))
    keys = jax.random.split(jax.random.PRNGKey(1), 2)
    starts, data = [lived.start, lived.out.state], [lived.data, data_of(lived.case, seed=3)]
    together = quick(jax.vmap(life(agent, brief=True), axis_name="members"))(stacked(*starts), keys, stacked(*data))
    for n in range(2):
        alone = lived.run(starts[n], keys[n], data[n])
        assert_close(member(together, n), alone._replace(**left_out(together)))


def left_out(out: Life) -> dict[str, None]:
    return {name: None for name, value in out._asdict().items() if value is None}
