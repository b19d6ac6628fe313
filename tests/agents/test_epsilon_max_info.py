"""Two learners: who acts, who learns from what."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.base import Agent, Learnt, RewardStream, Sample, Signal
from agents.epsilon_max_info import PARTS, epsilon_max_info
from agents.ppo import ppo
from envs.base import Spec
from envs.builder import Refusal

N = 4000
SPEC = Spec(spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(2), "choice", lanes=N, streams=("extrinsic", "intrinsic"))
KEY, OBS = jax.random.PRNGKey(0), jnp.zeros((N, 1))


def always(action: int) -> Agent:
    """Takes ``action``, and keeps the sum of the rewards it learnt from."""

    def act(state, key, inputs):
        return inputs[0], jnp.full(N, action), {"who": jnp.full(N, action)}

    def learn(state, key, inputs):
        sample, signal = inputs
        assert len(signal.streams) == 1
        return state + signal.streams[0].reward.sum(), Learnt({"who": jnp.float32(sample.extras["who"][0])}, jnp.full(N, float(action)))

    return Agent(lambda key: jnp.float32(0), lambda state, lanes: (), act, learn, learns_from="replay")


def made(**arguments):
    return epsilon_max_info(SPEC, task=always(0), explorer=always(1), **arguments)


def test_the_explorer_acts_as_often_as_epsilon_says_and_keeps_the_episode():
    agent = made(epsilon=0.5, fraction=0.8)
    state = agent.init(KEY)
    ones, zeros = jnp.ones(N, bool), jnp.zeros(N, bool)
    for progress, share in ((0.0, 0.5), (0.4, 0.25), (0.8, 0.0), (1.0, 0.0)):
        state = state._replace(done=jnp.int32(progress * PARTS))
        memory, action, _ = agent.act(state, KEY, (agent.start(state, N), OBS, ones, "explore"))
        assert float(jnp.mean(action)) == pytest.approx(share, abs=0.03)
        for i in range(3):
            memory, later, _ = agent.act(state, jax.random.fold_in(KEY, i), (memory, OBS, zeros, "explore"))
            np.testing.assert_array_equal(later, action)
    assert not agent.act(agent.init(KEY), KEY, (agent.start(state, N), OBS, ones, "greedy"))[1].any()


def test_held_choices_are_drawn_again_after_so_many_steps():
    agent, actions = made(epsilon=0.5, hold=3), []
    state = agent.init(KEY)
    memory = agent.start(state, N)
    for i in range(7):
        memory, action, _ = agent.act(state, jax.random.fold_in(KEY, i), (memory, OBS, jnp.full(N, i == 0), "explore"))
        actions.append(np.asarray(action))
    changed = [float(np.mean(actions[i] != actions[i - 1])) for i in range(1, 7)]
    assert [share > 0.4 for share in changed] == [False, False, True, False, False, True] and changed[0] == 0.0


def test_each_learns_from_its_own_stream():
    agent = made()
    extras = agent.act(agent.init(KEY), KEY, (agent.start(agent.init(KEY), N), OBS, jnp.ones(N, bool), "explore"))[2]
    streams = (RewardStream(jnp.full(N, 2.0), 0.9, 1.0, True), RewardStream(jnp.full(N, 5.0), 0.9, 1.0, True))
    sample = Sample(OBS, jnp.zeros(N, jnp.int32), OBS, jnp.zeros(N, bool), jnp.ones(N), extras)
    state, learnt = agent.learn(agent.init(KEY), KEY, (sample, Signal(streams, 0.25)))
    assert (float(state.task), float(state.explorer), int(state.done)) == (2.0 * N, 5.0 * N, PARTS // 4)
    assert (float(learnt.metrics["who"]), float(learnt.metrics["explorer/who"])) == (0.0, 1.0)
    assert float(learnt.metrics["policy/exploring"]) == pytest.approx(1 - 0.25 / 0.8333)
    assert not learnt.priorities.any()


def test_what_cannot_be_is_refused():
    with pytest.raises(Refusal, match="exploration=disagreement"):
        epsilon_max_info(SPEC._replace(streams=("extrinsic",)), task=always(0), explorer=always(1))
    with pytest.raises(Refusal, match="agent.explorer must learn from a replay"):
        epsilon_max_info(SPEC, task=always(0), explorer=ppo(SPEC))
