"""CQL: its gap by hand, its price's direction, SAC where its weight is 0, and values below SAC's where the data have no actions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.base import RewardStream, Sample, Signal
from agents.conservative import conservative
from agents.cql import cql
from agents.critics import critics as make_critics
from agents.sac import sac
from envs.base import Spec
from envs.builder import Refusal
from tests.laws.data import quick

SPEC = Spec(spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Box(np.float32([-2.0, 0.0]), np.float32([2.0, 1.0])), "plane")
B, KEY = 16, jax.random.PRNGKey(0)


def sample(number=B, key=KEY, **changed):
    obs, next_obs, action = jax.random.normal(key, (3, number, 3))
    action = jnp.tanh(action[:, :2]) * jnp.asarray([0.4, 0.1]) + jnp.asarray([0.0, 0.5])  # the middle fifth of the box
    return Sample(obs, action, next_obs, jnp.zeros(number, bool), jnp.ones(number))._replace(**changed)


def signal(number=B, reward=1.0, discount=0.9):
    return Signal((RewardStream(jnp.full(number, reward), jnp.full(number, discount), 1.0, True),))


def tiny(builder=cql, **arguments):
    return builder(SPEC, **{"hidden": (8,), "learning_rate": 1e-2, **arguments})


def learnt(agent, given=None, told=None):
    state = quick(agent.init)(KEY)
    return state, *quick(lambda state: agent.learn(state, KEY, (given or sample(), told or signal())))(state)


def distance(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def wary(samples=2, threshold=5.0, **changed):
    judges = make_critics(SPEC, 2, (8,), "relu", "auto")
    settings = {"version": 3, "weight": 2.0, "rate": 1e-2, "actor_rate": 1e-4, "entropy_backup": False} | changed
    return judges, conservative(SPEC, judges, samples=samples, threshold=threshold, **settings)


def drawn(obs, key):
    """N(0, 1) squashed by tanh, in units of half the box, as a policy would."""
    raw = jax.random.normal(key, (obs.shape[0], 2))
    log_prob = jnp.sum(-0.5 * jnp.square(raw) - 0.5 * jnp.log(2 * jnp.pi) - jnp.log(1 - jnp.square(jnp.tanh(raw))), axis=-1)
    return jnp.tanh(raw) * jnp.asarray([2.0, 0.5]) + jnp.asarray([0.0, 0.5]), log_prob


def test_importance_weights_make_the_sum_an_integral():
    """A critic that is 0 everywhere: mean over the actions of exp(0 - log p) is the volume of the box, 4 in units of half of it."""
    judges, made = wary(samples=2000)
    params = jax.tree.map(jnp.zeros_like, judges.init(KEY))
    others = quick(lambda: made.others(drawn, sample(), KEY))()
    assert others.action.shape == (6000, B, 2) and others.log_prob.shape == (6000, B)
    for kind in range(3):
        np.testing.assert_allclose(np.exp(-others.log_prob[2000 * kind :][:2000]).mean(), 4.0, rtol=0.1)
    gaps = made.gaps(params, sample(), others, jnp.zeros((2, B)))
    np.testing.assert_allclose(gaps, 2.0 * np.log(6000 * 4.0), rtol=0.02)


def test_version_2_has_the_data_in_its_sum_and_no_densities():
    judges, made = wary(samples=1, version=2)
    params, given = judges.init(KEY), sample()
    others = made.others(drawn, given, KEY)
    values = judges.values(params, given.obs, given.action)
    elsewhere = [judges.values(params, given.obs, action) for action in others.action]
    wanted = 2.0 * (np.log(sum(np.exp(x) for x in (*elsewhere, values))) - values)
    np.testing.assert_allclose(made.gaps(params, given, others, values), wanted, rtol=1e-4)


def test_after_the_end_there_is_no_successor():
    """Actions for s' come from s where the MDP ended."""
    _, made = wary(samples=1)

    def tells(obs, key):
        return jnp.zeros((B, 2)), obs[:, 0]

    ended = jnp.arange(B) % 2 == 0
    given = sample(terminated=ended)
    found = made.others(tells, given, KEY).log_prob
    np.testing.assert_array_equal(found[1], given.obs[:, 0])
    np.testing.assert_array_equal(found[2], jnp.where(ended, given.obs[:, 0], given.next_obs[:, 0]))
    np.testing.assert_allclose(found[0], -2 * np.log(2.0), rtol=1e-6)


@pytest.mark.medium
def test_the_price_goes_where_the_gap_asks():
    """First Adam step: log price rises by the rate where the gap is above the threshold, and falls where it is below."""
    for threshold, direction in ((0.0, 1.0), (100.0, -1.0)):
        state, new, found = learnt(tiny(lagrange_thresh=threshold))
        assert float(new.price.params - state.price.params) == pytest.approx(direction * 1e-2, rel=1e-3)
        assert 0.0 < float(found.metrics["policy/gap"]) < 100.0
    _, new, found = learnt(tiny(lagrange_thresh=None))
    assert new.price == () and float(found.metrics["policy/price"]) == 1.0


@pytest.mark.medium
def test_without_weight_it_is_sac():
    plain = learnt(tiny(sac))
    made = {"min_q_weight": 0.0, "lagrange_thresh": None, "entropy_backup": True, "actor_learning_rate": 1e-2, "samples": 1}
    free, costly = learnt(tiny(**made)), learnt(tiny(**made | {"min_q_weight": 1.0}))
    for part in ("actor", "critic", "alpha"):
        assert distance(getattr(free[1], part).params, getattr(plain[1], part).params) < 1e-6
    assert distance(costly[1].critic.params, plain[1].critic.params) > 1e-3
    assert float(free[2].metrics["loss/critic"]) == pytest.approx(float(plain[2].metrics["loss/critic"]), rel=1e-6)
    assert float(learnt(tiny(**made | {"entropy_backup": False}))[2].metrics["loss/critic"]) != pytest.approx(float(plain[2].metrics["loss/critic"]), rel=1e-3)


def test_the_policy_has_a_rate_of_its_own():
    state, new, _ = learnt(tiny(actor_learning_rate=1e-3))
    assert distance(new.actor.params, state.actor.params) == pytest.approx(1e-3, rel=1e-2)
    assert distance(new.critic.params, state.critic.params) == pytest.approx(1e-2, rel=1e-2)


def test_discrete_actions_are_refused():
    with pytest.raises(Refusal, match="agent=dqn"):
        cql(SPEC._replace(action=spaces.Discrete(3)))


@pytest.mark.medium
def test_actions_that_the_data_do_not_have_are_worth_less_than_to_sac():
    """Same batches, 500 updates, in which the reward is 1 everywhere; then far actions, and those of the data."""

    @functools.partial(jax.jit, static_argnums=0)
    def trained(builder):
        agent = tiny(builder, hidden=(32,), learning_rate=3e-3, **({"lagrange_thresh": None, "min_q_weight": 1.0, "samples": 4} if builder is cql else {}))

        def once(n, state):
            key = jax.random.fold_in(KEY, n)
            return agent.learn(state, key, (sample(64, key), signal(64, discount=0.5)))[0]

        return jax.lax.fori_loop(0, 500, once, agent.init(KEY)).critic.params

    judges = make_critics(SPEC, 2, (32,), "relu", "auto")
    given, far = sample(256, jax.random.PRNGKey(9)), jax.random.choice(KEY, jnp.asarray([[-2.0, 0.0], [2.0, 1.0], [-2.0, 1.0], [2.0, 0.0]]), (256,))
    inside, outside = ({b: float(judges.values(trained(b), given.obs, a).mean()) for b in (sac, cql)} for a in (given.action, far))
    assert outside[cql] < outside[sac] - 0.5, (inside, outside)
    assert inside[cql] - outside[cql] > inside[sac] - outside[sac] + 0.5
