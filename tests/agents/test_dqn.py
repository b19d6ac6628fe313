"""The parts of DQN against numbers computed by hand, its first update against numpy, and tiny worlds whose values are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.base import Agent, RewardStream, Sample, Signal
from agents.bootstrapped_dqn import bootstrapped_dqn
from agents.dqn import dqn
from agents.epsilon_greedy import Held, durations, epsilon_at, extended
from agents.noisy import NoisyDense
from agents.q_networks import QNetwork
from agents.rainbow import rainbow
from agents.return_heads import categorical_head, mean_head, project
from envs import finite_mdp, oracle
from envs.base import Spec
from envs.builder import Refusal
from envs.deep_sea import deep_sea
from envs.tabular_mdps import chain
from exploration.base import none
from exploration.intrinsic import intrinsic
from runners.base import Clock
from runners.batching import AXIS
from runners.off_policy import off_policy
from tests.laws.data import assert_close, assert_equal, quick

KEY, STATES, B = jax.random.PRNGKey(0), 5, 6
SPEC = Spec(spaces.Box(0.0, 1.0, (STATES,), np.float32), spaces.Discrete(3, start=2), lanes=4)
LINEAR = {"hidden": (), "learning_rate": 0.1}  # of one-hot observations: a table


def made(**options) -> Agent:
    """DQN with compiled functions."""
    agent = dqn(SPEC, **options)
    return agent._replace(
        init=quick(agent.init),
        act=lambda state, key, inputs: quick(lambda s, k, i: agent.act(s, k, (*i, inputs[3])))(state, key, inputs[:3]),
        learn=quick(agent.learn),
    )


# --- returns -----------------------------------------------------------------------------------------------------------


def slow_projection(values, probabilities, support):
    """Atom by atom, as in algorithm 1 of arXiv 1707.06887."""
    gap, found = support[1] - support[0], np.zeros((len(values), len(support)))
    for b in range(len(values)):
        for value, p in zip(values[b], probabilities[b], strict=True):
            place = (np.clip(value, support[0], support[-1]) - support[0]) / gap
            low, high = int(np.floor(place)), int(np.ceil(place))
            found[b, low] += p * (1.0 if low == high else high - place)
            found[b, high] += 0.0 if low == high else p * (place - low)
    return found


def test_the_projection_of_c51():
    rng = np.random.default_rng(0)
    support = np.linspace(-2.0, 2.0, 9)
    values = np.concatenate([rng.uniform(-2, 2, (4, 9)), rng.uniform(-6, 6, (4, 9)), support[None], 0.5 + support[None]])
    probabilities = rng.dirichlet(np.ones(9), len(values))
    found = np.asarray(project(jnp.asarray(values), jnp.asarray(probabilities), jnp.asarray(support)))
    np.testing.assert_allclose(found, slow_projection(values, probabilities, support), atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(found[:4] @ support, (values * probabilities).sum(-1)[:4], atol=1e-6)
    assert np.abs(found[4:8] @ support - (values * probabilities).sum(-1)[4:8]).max() > 0.1  # limited to the support


def test_targets_and_errors_of_c51():
    """One sure value: logits all on atom 2 (value 0) make r + discount 0; the loss against itself is the entropy."""
    head = categorical_head(5, -2.0, 2.0)
    sure = jnp.array([[-40.0, -40.0, 0.0, -40.0, -40.0]] * 2)
    target = head.target(sure, jnp.array([0.25, 9.0]), jnp.array([0.9, 0.9]))
    np.testing.assert_allclose(target, [[0, 0, 0.75, 0.25, 0], [0, 0, 0, 0, 1]], atol=1e-6)
    loss, priority = head.error(jnp.zeros((2, 5)), target)
    np.testing.assert_allclose(loss, [np.log(5)] * 2, rtol=1e-6)
    np.testing.assert_allclose(priority, np.sqrt(loss), rtol=1e-6)
    np.testing.assert_allclose(head.mean(jnp.array([[0.0, 0.0, 0.0, np.log(3.0), 0.0]])), [(-2 - 1 + 0 + 3 + 2) / 7], rtol=1e-5)


def test_huber_and_squares():
    outputs, target = jnp.array([[0.0], [0.0], [2.0]]), jnp.array([[0.5], [3.0], [0.0]])
    for huber, wanted in ((True, [0.125, 2.5, 1.5]), (False, [0.125, 4.5, 2.0])):
        loss, priority = mean_head(huber).error(outputs, target)
        np.testing.assert_allclose(loss, wanted)
        np.testing.assert_allclose(priority, [0.5, 3.0, 2.0])


# --- networks ----------------------------------------------------------------------------------------------------------


def test_noise_has_the_variance_it_should_and_none_without_a_key():
    layer, x = NoisyDense(3, 0.5), jnp.array([1.0, -2.0, 0.5, 3.0])
    params = layer.init(KEY, x)
    quiet = layer.apply(params, x)
    inside = params["params"]
    np.testing.assert_allclose(quiet, x @ inside["kernel"] + inside["bias"], rtol=1e-6)
    np.testing.assert_array_equal(inside["kernel_sigma"], 0.25)  # 0.5 / sqrt(4)
    assert float(jnp.max(jnp.abs(inside["kernel"]))) <= 0.5
    many = jax.vmap(lambda key: layer.apply(params, x, rngs={"noise": key}))(jax.random.split(KEY, 40_000))
    c, sigma = np.sqrt(2 / np.pi), 0.25
    wanted = c * (c * sigma**2 * float(jnp.sum(x**2)) + sigma**2)
    np.testing.assert_allclose(jnp.mean(many, 0), quiet, atol=0.02)
    np.testing.assert_allclose(jnp.var(many, 0), wanted, rtol=0.05)


def test_duelling_values_average_to_the_baseline():
    network = QNetwork(SPEC.observation, (8,), "relu", "auto", 3, 2, dueling=True, noisy=False, sigma=0.5)
    obs = jax.random.normal(KEY, (4, STATES))
    params = network.init(KEY, obs)
    values, latent = network.apply(params, obs), network.apply(params, obs, method="latent")
    last = params["params"]["baseline"]
    np.testing.assert_allclose(jnp.mean(values, axis=-2), latent @ last["kernel"] + last["bias"], atol=1e-6)
    moved = params["params"]["values"]["bias"] + jnp.tile(jnp.array([1.0, -2.0]), 3)  # the same for all actions: no change
    shifted = {"params": {**params["params"], "values": {**params["params"]["values"], "bias": moved}}}
    np.testing.assert_allclose(network.apply(shifted, obs), values, atol=1e-6)


def test_an_initial_value_is_that_of_every_action():
    table = made(**LINEAR, initial_value=7.0)
    plain = made(**LINEAR)
    for agent, wanted in ((table, 7.0), (plain, 0.0)):
        state = agent.init(KEY)
        silent = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
        sample, signal = batch(terminated=jnp.ones(B, bool), reward=jnp.zeros(B))
        _, learnt = agent.learn(silent, KEY, (sample, signal))
        assert float(learnt.metrics["value/mean"]) == wanted


# --- exploration -------------------------------------------------------------------------------------------------------


def test_epsilon_falls_with_updates():
    found = [float(epsilon_at(jnp.int32(n), 1.0, 0.1, 100.0)) for n in (0, 50, 100, 1000)]
    np.testing.assert_allclose(found, [1.0, 0.55, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose([float(epsilon_at(jnp.int32(n), 1.0, 0.1, 0.0)) for n in (0, 1)], [1.0, 0.1], rtol=1e-6)


def test_so_many_actions_are_random():
    agent = made(**LINEAR, epsilon_start=0.6, epsilon_end=0.6)
    state, obs, first = agent.init(KEY), jnp.tile(jnp.eye(STATES)[:1], (4000, 1)), jnp.zeros(4000, bool)
    _, greedy, _ = agent.act(state, KEY, ((), obs, first, "greedy"))
    _, action, _ = agent.act(state, KEY, (agent.start(state, 4000), obs, first, "explore"))
    assert len(np.unique(greedy)) == 1
    np.testing.assert_allclose(np.mean(np.asarray(action) != np.asarray(greedy)), 0.6 * 2 / 3, atol=0.03)
    assert set(np.unique(action)) == {2, 3, 4}


def test_durations_have_a_heavy_tail():
    drawn = np.asarray(durations(KEY, 200_000, 2.0, 50))
    wanted = np.arange(1, 51) ** -2.0
    wanted /= wanted.sum()
    assert drawn.min() == 1 and drawn.max() <= 50
    np.testing.assert_allclose(np.bincount(drawn, minlength=51)[1:], 200_000 * wanted, atol=5 * np.sqrt(200_000 * wanted.max() / 4))
    np.testing.assert_allclose(drawn.mean(), (wanted * np.arange(1, 51)).sum(), rtol=0.03)
    assert (np.asarray(durations(KEY, 100, 2.0, 1)) == 1).all()


def test_a_held_action_goes_on_and_ends_with_its_time_or_the_episode():
    held = Held(jnp.array([1, 2, 2, 0]), jnp.array([3, 1, 5, 0]))
    greedy, first = jnp.array([0, 0, 0, 2]), jnp.array([False, False, True, False])
    after, action = extended(held, KEY, greedy, first, 0.0, 3, 2.0, 10)
    assert action.tolist() == [1, 2, 0, 2] and after.left.tolist() == [2, 0, 0, 0]
    again, action = extended(after, KEY, greedy, jnp.zeros(4, bool), 0.0, 3, 2.0, 10)
    assert action.tolist() == [1, 0, 0, 2] and again.left.tolist() == [1, 0, 0, 0]
    lengths = [int(extended(Held(jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32)), k, greedy[:1], first[:1], 1.0, 3, 2.0, 10)[0].left[0]) for k in KEYS]
    assert min(lengths) == 0 and max(lengths) > 0  # what is left after the first step


KEYS = jax.random.split(KEY, 20)


# --- the update --------------------------------------------------------------------------------------------------------


def batch(terminated=None, reward=None, discount=None, weights=None, extras=(), weight=1.0):
    """(Sample, Signal) of six samples of a table's cells."""
    rng = np.random.default_rng(1)
    at, then = np.array([0, 1, 2, 3, 4, 0]), np.array([1, 2, 3, 4, 0, 2])
    reward = jnp.asarray(rng.normal(size=B), jnp.float32) if reward is None else reward
    discount = jnp.asarray([0.9, 0.81, 0.729, 0.9, 0.9, 0.81], jnp.float32) if discount is None else discount
    terminated = jnp.asarray([False, False, True, False, False, False]) if terminated is None else terminated
    sample = Sample(jnp.eye(STATES)[at], jnp.array([2, 3, 4, 2, 3, 4]), jnp.eye(STATES)[then], terminated, jnp.ones(B) if weights is None else weights, extras)
    return sample, Signal((RewardStream(reward, discount, jnp.float32(weight), True),))


def table(params) -> np.ndarray:
    """Q [states, actions] of a linear agent."""
    inside = params["params"]["values"]
    return np.asarray(inside["kernel"] + inside["bias"])


@pytest.mark.parametrize("double", [True, False])
def test_targets_by_hand(double):
    """|TD error| against numpy: n-step discounts as given, 0 at the end; the online network chooses where ``double``."""
    agent = made(**LINEAR, double=double)
    state = agent.init(KEY)._replace(target=agent.init(jax.random.PRNGKey(9)).params)
    sample, signal = batch(weight=2.0)
    online, target = table(state.params), table(state.target)
    then, taken = np.asarray(sample.next_obs).argmax(-1), np.asarray(sample.action) - 2
    chosen = (online if double else target)[then].argmax(-1)
    stream = signal.streams[0]
    wanted = 2.0 * np.asarray(stream.reward) + np.where(sample.terminated, 0.0, stream.discount) * target[then, chosen]
    _, learnt = agent.learn(state, KEY, (sample, signal))
    np.testing.assert_allclose(learnt.priorities, np.abs(online[np.asarray(sample.obs).argmax(-1), taken] - wanted), rtol=1e-5, atol=1e-6)
    assert (online[then].argmax(-1) != target[then].argmax(-1)).any()


def test_weights_scale_the_loss_and_zeros_leave_out():
    agent, weights = made(**LINEAR), jnp.array([1.0, 0.5, 0.0, 0.0, 0.25, 1.0])
    state = agent.init(KEY)
    _, learnt = agent.learn(state, KEY, batch(weights=weights))
    wanted = np.sum(0.5 * np.asarray(learnt.priorities) ** 2 * np.asarray(weights)) / 4
    np.testing.assert_allclose(learnt.metrics["loss/total"], wanted, rtol=1e-5)
    some = jax.tree.map(lambda x: x[np.array([0, 1, 4, 5])], batch(weights=weights)[0])
    stream = batch()[1].streams[0]
    fewer = Signal((stream._replace(reward=stream.reward[np.array([0, 1, 4, 5])], discount=stream.discount[np.array([0, 1, 4, 5])]),))
    assert_close(agent.learn(state, KEY, (some, fewer))[0].params, agent.learn(state, KEY, batch(weights=weights))[0].params)


def test_sum_then_clip_clips():
    """Rewards of 3 + 1 are worth 1 to it, and 4 to ``sum``."""
    ends = jnp.ones(B, bool)
    for mix, wanted in (("sum", 4.0), ("sum_then_clip", 1.0)):
        agent = made(**LINEAR, mix=mix)
        state = agent.init(KEY)
        silent = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
        sample, signal = batch(terminated=ends, reward=jnp.full(B, 3.0))
        signal = Signal((*signal.streams, RewardStream(jnp.full(B, 2.0), 0.5, 0.5, True)))
        np.testing.assert_allclose(agent.learn(silent, KEY, (sample, signal))[1].priorities, wanted)


def test_the_target_is_copied_when_it_is_due_or_follows():
    copied, following = made(**LINEAR, target_period=3, target_rate=None), made(**LINEAR, target_rate=0.25)
    state = start = copied.init(KEY)
    for n in range(1, 5):
        state, _ = copied.learn(state, KEY, batch())
        assert int(state.updates) == n
        if n < 3:
            assert_equal(state.target, start.params)
        if n == 3:
            assert_equal(state.target, state.params)
            kept = state.params
    assert_equal(state.target, kept)
    after, _ = following.learn(start, KEY, batch())
    assert_close(after.target, jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, start.params, after.params))


def test_a_masked_head_learns_nothing_and_priors_never_do():
    agent = made(hidden=(4,), heads=3, prior_scale=2.0)
    state = agent.init(KEY)
    assert state.params["params"]["values"]["kernel"].shape == (3, 4, 3)
    mask = jnp.zeros((B, 3), bool).at[:, 0].set(True).at[2, 2].set(True)
    after, _ = agent.learn(state, KEY, batch(extras={"mask": mask}))
    moved = jax.tree.map(lambda new, old: jnp.max(jnp.abs(new - old).reshape(3, -1), axis=1), after.params, state.params)
    largest = np.max(np.stack(jax.tree.leaves(moved)), axis=0)
    assert largest[0] > 1e-5 and largest[2] > 1e-5 and largest[1] == 0.0
    assert_equal(after.prior, state.prior)
    other = state._replace(prior=jax.tree.map(lambda x: 2 * x, state.prior))
    errors = [agent.learn(s, KEY, batch(extras={"mask": mask}))[1].priorities for s in (state, other)]
    assert np.abs(errors[0] - errors[1]).max() > 1e-3


def test_one_head_is_followed_per_episode():
    """Three tables, of which each prefers another action; the mean prefers the first."""
    agent = made(**LINEAR, heads=3, epsilon_start=0.0, epsilon_end=0.0)
    state, lanes = agent.init(KEY), 64
    values = jnp.stack([jnp.array([3.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0]), jnp.array([0.0, 0.0, 1.0])])
    inside = {"kernel": jnp.zeros((3, STATES, 3)), "bias": values}
    state = state._replace(params={"params": {"values": inside}})
    obs = jnp.zeros((lanes, STATES))
    memory, action, extras = agent.act(state, KEY, (agent.start(state, lanes), obs, jnp.ones(lanes, bool), "explore"))
    np.testing.assert_array_equal(action, memory.head + 2)
    assert set(np.unique(memory.head)) == {0, 1, 2} and extras["mask"].shape == (lanes, 3) and bool(extras["mask"].all())
    again, action, _ = agent.act(state, KEYS[1], (memory, obs, jnp.zeros(lanes, bool), "explore"))
    np.testing.assert_array_equal(again.head, memory.head)
    half = jnp.arange(lanes) < lanes // 2
    other, _, _ = agent.act(state, KEYS[2], (memory, obs, half, "explore"))
    assert (other.head != memory.head)[: lanes // 2].any() and (other.head == memory.head)[lanes // 2 :].all()
    assert (agent.act(state, KEY, (memory, obs, half, "greedy"))[1] == 2).all()


def test_masks_are_drawn_with_their_probability():
    agent = made(**LINEAR, heads=10, mask_probability=0.3)
    state = agent.init(KEY)
    mask = agent.act(state, KEY, (agent.start(state, 500), jnp.zeros((500, STATES)), jnp.ones(500, bool), "explore"))[2]["mask"]
    np.testing.assert_allclose(mask.mean(), 0.3, atol=0.03)


def test_noise_is_for_exploring_only_and_every_lane_has_its_own():
    agent = made(hidden=(), noisy=True, noisy_sigma=20.0, epsilon_start=0.0, epsilon_end=0.0)
    state, obs, first = agent.init(KEY), jnp.tile(jnp.eye(STATES)[:1], (50, 1)), jnp.zeros(50, bool)
    mu = state.params["params"]["values"]
    best = int(jnp.argmax(mu["kernel"][0] + mu["bias"])) + 2
    assert (agent.act(state, KEY, ((), obs, first, "greedy"))[1] == best).all()
    assert len(np.unique(agent.act(state, KEY, (agent.start(state, 50), obs, first, "explore"))[1])) == 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"target_period": 5}, "target_rate"),
        ({"target_rate": None}, "target_period=null"),
        ({"distributional": "c51", "prior_scale": 1.0}, "prior_scale=null"),
        ({"distributional": "c51", "initial_value": 1.0}, "initial_value=null"),
        ({"distributional": "c51", "v_min": 2.0, "v_max": 2.0}, "v_max"),
    ],
)
def test_switches_that_exclude_each_other(arguments, named):
    with pytest.raises(Refusal, match=named):
        dqn(SPEC, **arguments)


def test_continuous_actions_are_for_another_agent():
    with pytest.raises(Refusal, match="agent=sac"):
        dqn(SPEC._replace(action=spaces.Box(-1.0, 1.0, (2,))))


@pytest.mark.medium
def test_hyper_parameters_may_be_traced():
    """All real numbers at once, two members side by side: each as if it were alone."""
    names = ("learning_rate", "target_rate", "noisy_sigma", "prior_scale", "mask_probability", "epsilon_start", "epsilon_end", "epsilon_updates")
    names += ("initial_value", "duration_exponent", "optimizer_eps", "max_grad_norm")
    values = jnp.stack([jnp.linspace(0.1, 0.9, len(names)), jnp.full(len(names), 1.5).at[2:7].set(0.5)])
    values = values.at[0, 9].set(1.2)

    def lived(row):
        agent = dqn(SPEC, hidden=(4,), noisy=True, heads=2, z_greedy=True, **dict(zip(names, row, strict=True)))
        state = agent.init(KEY)
        memory, action, extras = agent.act(state, KEY, (agent.start(state, B), batch()[0].obs, jnp.ones(B, bool), "explore"))
        return agent.learn(state, KEY, batch(extras=extras)), memory, action

    both = quick(jax.vmap(lived))(values)
    one = quick(lived)
    for n in range(2):
        assert_close(jax.tree.map(lambda x: x[n], both), one(values[n]))  # noqa: B023


# --- tiny worlds -------------------------------------------------------------------------------------------------------


def values_after(iterations, discount=0.9, **options):
    """Q [states, actions] that an agent with random actions learns of a chain, and the best."""
    mdp = chain(states=4)
    world = finite_mdp.world(mdp, continuing=True)
    make = lambda spec: dqn(spec, epsilon_end=1.0, **options)  # noqa: E731
    runner = off_policy(world, make, lambda spec: intrinsic(spec, none(spec)), lanes=8, batch_size=128, discount=discount, learning_starts=500)
    state = jax.jit(runner.init)(KEY)
    state = jax.jit(lambda s: jax.lax.fori_loop(0, iterations, lambda i, x: runner.step(x, Clock(i, jnp.float32(0.0)))[0], s))(state)
    sample = Sample(jnp.repeat(jnp.eye(4), 2, 0), jnp.tile(jnp.arange(2), 4), jnp.zeros((8, 4)), jnp.ones(8, bool), jnp.ones(8))
    signal = Signal((RewardStream(jnp.full(8, -100.0), jnp.zeros(8), 1.0, True),))  # its error is then the value + 100
    found = runner.agent.learn(state.agent, KEY, (sample, signal))[1].priorities - 100.0
    return np.asarray(found).reshape(4, 2), oracle.discounted(mdp, discount)[0]


@pytest.mark.medium
@pytest.mark.parametrize("options", [{"hidden": (), "learning_rate": 3e-3}, {"hidden": (32,), "dueling": True, "learning_rate": 1e-3}])
def test_values_are_those_of_the_oracle(options):
    """A constant learning rate leaves some noise. Measured: see docs/methods/dqn.md."""
    found, wanted = values_after(6000, target_rate=0.02, **options)
    assert np.abs(found - wanted).max() < 0.05 * wanted.max(), (found, wanted)


def returns(make, size, episodes, **settings):
    """Last training returns of three seeds on DeepSea."""
    settings = {"lanes": 1, "batch_size": 128, "capacity": 10_000, "learning_starts": 128, "random_steps": 0} | settings
    runner = off_policy(deep_sea(size=size), make, lambda spec: intrinsic(spec, none(spec)), axis=AXIS, **settings)
    iterations = episodes * size // settings["lanes"]

    def run(key):
        state = runner.init(key)
        state = jax.lax.fori_loop(0, iterations, lambda i, s: runner.step(s, Clock(i, i.astype(jnp.float32) / iterations))[0], state)
        found = runner.evaluate(state, key)["evaluation/return"]
        return found.total / found.weight

    return np.asarray(jax.jit(jax.vmap(run, axis_name=AXIS))(jnp.stack([jax.random.PRNGKey(seed) for seed in range(3)])))


@pytest.mark.medium
def test_dqn_and_rainbow_find_the_treasure_of_a_shallow_sea():
    assert (returns(lambda spec: dqn(spec, hidden=(32,), epsilon_updates=500.0), 4, 500, lanes=4) > 0.9).all()
    options = {"v_min": -1.0, "v_max": 1.0, "atoms": 21, "learning_rate": 1e-3, "target_period": 50, "hidden": (32,)}
    assert (returns(lambda spec: rainbow(spec, **options), 4, 500, lanes=4, prioritized=True, n_step=3) > 0.9).all()


@pytest.mark.slow
def test_only_bootstrapped_dqn_finds_the_treasure_of_a_deeper_one():
    """Of size 10 DQN finds it too, for some seeds."""
    assert (returns(bootstrapped_dqn, 14, 400) > 0.9).all()
    assert (returns(dqn, 14, 400) < 0.1).all()
