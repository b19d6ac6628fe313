"""Soft actor-critic: its targets by hand, its temperatures' directions, and the switches of its descendants."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.base import Regulariser, RewardStream, Sample, Signal
from agents.critics import critics, least_of_some
from agents.sac import sac
from envs.base import Spec
from envs.builder import Refusal
from tests.laws.data import quick

SPEC = Spec(spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Box(-2.0, 2.0, (2,), np.float32), "plane")
B, KEY = 32, jax.random.PRNGKey(0)


def sample(**changed):
    obs, next_obs = jax.random.normal(KEY, (2, B, 3))
    made = Sample(obs, jnp.tanh(next_obs[:, :2]), next_obs, jnp.zeros(B, bool), jnp.ones(B))
    return made._replace(**changed)


def signal(reward=1.0, discount=0.9, **changed):
    return Signal((RewardStream(jnp.full(B, reward), jnp.full(B, discount), 1.0, True),), **changed)


def learnt(agent, given=None, told=None, key=KEY, state=None):
    state = quick(agent.init)(KEY) if state is None else state
    lesson = (sample() if given is None else given, signal() if told is None else told)
    return state, *quick(lambda state: agent.learn(state, key, lesson))(state)


def distance(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def tiny(**arguments):
    return sac(SPEC, **{"hidden": (8,), "learning_rate": 1e-2, **arguments})


def test_only_discrete_worlds_and_impossible_subsets_are_refused():
    with pytest.raises(Refusal, match="agent=dqn"):
        sac(SPEC._replace(action=spaces.Discrete(3)))
    with pytest.raises(Refusal, match="agent.subset=3"):
        tiny(subset=3)
    with pytest.raises(Refusal, match="max_info"):
        jax.eval_shape(tiny(max_info=True).learn, jax.eval_shape(tiny(max_info=True).init, KEY), KEY, (sample(), signal()))


def test_terminal_targets_are_the_reward():
    """Where the MDP ended y = reward_scale r whatever the critics say: the loss is that of a regression, and truncation is none of it."""
    agent = tiny(reward_scale=3.0)
    state, _, found = learnt(agent, sample(terminated=jnp.ones(B, bool)))
    values = critics(SPEC, 2, (8,), "relu", "auto").values(state.critic.params, sample().obs, sample().action)
    assert float(found.metrics["loss/critic"]) == pytest.approx(float(jnp.mean(jnp.sum(jnp.square(values - 3.0), axis=0))), rel=1e-5)
    assert float(learnt(agent)[2].metrics["loss/critic"]) != pytest.approx(float(found.metrics["loss/critic"]), rel=1e-3)


def test_temperatures_go_where_the_entropy_asks():
    """First Adam step: log alpha falls by the rate where the entropy is above its target, and rises where it is below."""
    for wanted, direction in ((-50.0, -1.0), (50.0, 1.0)):
        state, new, _ = learnt(tiny(target_entropy=wanted))
        assert float(new.alpha.params - state.alpha.params) == pytest.approx(direction * 1e-2, rel=1e-3)
    state, new, _ = learnt(tiny(learn_temperature=False))
    assert float(new.alpha.params) == float(state.alpha.params)


def test_entropy_is_in_units_of_half_the_box():
    """The same policy in a box twice as large has the same entropy."""
    half = SPEC._replace(action=spaces.Box(-1.0, 1.0, (2,), np.float32))
    found = [learnt(sac(spec, hidden=(8,)), sample(action=sample().action * 0))[2].metrics["policy/entropy"] for spec in (SPEC, half)]
    assert float(found[0]) == pytest.approx(float(found[1]), rel=1e-5)


def test_least_of_some_is_redqs():
    values = jnp.asarray([[1.0, 5.0], [2.0, 1.0], [3.0, 3.0]])
    np.testing.assert_array_equal(least_of_some(values, KEY, 3), [1.0, 1.0])
    drawn = jnp.stack([least_of_some(values, key, 2) for key in jax.random.split(KEY, 60)])
    kinds = {tuple(row) for row in np.asarray(drawn).tolist()}
    assert kinds == {(1.0, 1.0), (1.0, 3.0), (2.0, 1.0)}  # of pairs (0,1), (0,2), (1,2)


def test_the_actor_learns_once_in_policy_delay():
    agent = tiny(critics=3, policy_delay=2)
    state, first, _ = learnt(agent)
    _, second, _ = learnt(agent, state=first)
    assert distance(first.actor.params, state.actor.params) == 0.0 < distance(second.actor.params, first.actor.params)
    assert distance(first.critic.params, state.critic.params) > 0.0


def gain(strength):
    return Regulariser(lambda obs, action: strength * jnp.sum(action, axis=-1), 1.0)


@pytest.mark.medium
def test_without_weight_information_gain_is_plain_sac():
    """Weight 0 gives SAC's first update; a gain gives another, through the actions."""
    _, plain, _ = learnt(tiny())
    agent = tiny(max_info=True)
    _, zero, _ = learnt(agent, told=signal(regulariser=gain(1.0)._replace(weight=0.0)))
    _, full, _ = learnt(agent, told=signal(regulariser=gain(1.0)))
    for name in ("actor", "critic", "alpha"):
        assert distance(getattr(zero, name).params, getattr(plain, name).params) < 1e-6
    assert distance(full.actor.params, plain.actor.params) > 1e-4 < distance(full.critic.params, plain.critic.params)


def test_the_second_temperature_follows_the_moving_average():
    """More informative than the slow policy: it falls by the rate. Less: it rises."""
    agent = tiny(max_info=True)
    state = quick(agent.init)(KEY)
    shifted = jax.tree.map(lambda x: x, state.slow_actor)
    for sign in (1.0, -1.0):
        slow = jax.tree.map(lambda x, sign=sign: x, shifted)
        bias = slow["params"]["head"]["bias"].at[:2].add(-5.0 * sign)  # its actions, and so their gain, are far lower (or higher)
        slow["params"]["head"]["bias"] = bias
        begun = state._replace(slow_actor=slow)
        _, new, _ = learnt(agent, told=signal(regulariser=gain(1.0)), state=begun)
        assert float(new.gain.params - begun.gain.params) == pytest.approx(-sign * 1e-2, rel=1e-3)


def test_dropout_is_only_in_learning():
    made = critics(SPEC, 2, (8,), "relu", "auto", 0.5, True)
    params, given = made.init(KEY), sample()
    still = [made.values(params, given.obs, given.action) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert distance(made.values(params, given.obs, given.action, KEY), still[0]) > 1e-3


def constant(state, *values):
    """Slow critics that say the given values everywhere."""
    head = dict(state.target["params"]["Dense_1"], kernel=0.0 * state.target["params"]["Dense_1"]["kernel"], bias=jnp.asarray(values)[:, None])
    return state._replace(target={"params": state.target["params"] | {"Dense_1": head}})


def error(state, target):
    """The critics' loss for a target."""
    values = critics(SPEC, state.target["params"]["Dense_1"]["bias"].shape[0], (8,), "relu", "auto").values(state.critic.params, sample().obs, sample().action)
    return pytest.approx(float(jnp.mean(jnp.sum(jnp.square(values - target), axis=0))), rel=1e-4)


def test_targets_are_the_least_slow_critic_less_the_price_of_certainty():
    """With next to no temperature y = r + discount min_k Q'_k; with REDQ's subset of one it is any of them; with temperature 1 it is another."""
    agent = tiny(initial_temperature=1e-9)
    state = constant(agent.init(KEY), 5.0, 3.0)
    assert float(learnt(agent, state=state)[2].metrics["loss/critic"]) == error(state, 1.0 + 0.9 * 3.0)
    one = tiny(initial_temperature=1e-9, subset=1)
    losses = quick(jax.vmap(lambda key: one.learn(state, key, (sample(), signal()))[1].metrics["loss/critic"]))(jax.random.split(KEY, 8))
    assert {round(float(x), 2) for x in losses} == {round(error(state, 1.0 + 0.9 * q).expected, 2) for q in (5.0, 3.0)}
    warm = tiny()
    assert float(learnt(warm, state=constant(warm.init(KEY), 5.0, 3.0))[2].metrics["loss/critic"]) != error(state, 1.0 + 0.9 * 3.0)


def test_rewards_are_scaled_after_they_are_clipped():
    agent, over = tiny(mix="sum_then_clip", reward_scale=0.1), sample(terminated=jnp.ones(B, bool))
    state, _, found = learnt(agent, over, signal(reward=7.0))
    assert float(found.metrics["loss/critic"]) == error(state, 0.1)


def test_information_gain_is_no_reward_as_well():
    """With max_info the bonus's stream is left out; without, it is a reward like any other."""
    streams = signal().streams
    for max_info in (True, False):
        agent, changed = tiny(max_info=max_info), []
        for intrinsic in (0.0, 9.0):
            told = Signal((*streams, streams[0]._replace(reward=jnp.full(B, intrinsic))), regulariser=gain(1.0))
            changed.append(learnt(agent, told=told)[1].critic.params)
        assert (distance(*changed) > 1e-4) != max_info


def test_the_gain_acts_through_the_action():
    """A gain with the same values and no gradient gives the same critics and another actor."""
    agent, flat = tiny(max_info=True), gain(1.0)
    flat = flat._replace(value=lambda obs, action: gain(1.0).value(obs, jax.lax.stop_gradient(action)))
    bent, straight = (learnt(agent, told=signal(regulariser=r))[1] for r in (gain(1.0), flat))
    assert distance(bent.critic.params, straight.critic.params) < 1e-6 < 1e-4 < distance(bent.actor.params, straight.actor.params)
