"""Combinators: what each pays, what each declares, and that nested ones compose."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec, Transition
from envs.builder import Refusal, build, check, ranges_of
from exploration import combinators as c
from exploration.base import BonusInfo, bonus, none
from exploration.counts import counts
from exploration.e3b import e3b
from exploration.intrinsic import intrinsic
from exploration.rnd import rnd

STATES, LANES = 6, 2


def world(lanes=LANES):
    observation = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    return Spec(observation, spaces.Discrete(2), lanes=lanes, num_states=STATES, info={"state_id": spaces.Discrete(STATES)})


def arrivals(ids, terminated=False, reward=0.0):
    ids = jnp.asarray(ids, jnp.int32)
    obs = jnp.stack([ids, -ids], axis=-1).astype(jnp.float32)
    no = jnp.zeros(ids.shape, bool)
    return Transition(obs, ids % 2, jnp.zeros(ids.shape) + jnp.asarray(reward, jnp.float32), obs, no | jnp.asarray(terminated), no, no, {"state_id": ids})


def world_reward():
    """A bonus that is whatever the world pays: easy to predict."""
    return bonus(score=lambda state, t: t.reward, info=BonusInfo(needs=("reward",)))


def learner():
    """A bonus that counts its updates and its calls of calibrate."""
    return bonus(
        init=lambda key: jnp.zeros(2, jnp.int32),
        score=lambda state, t: t.reward,
        update=lambda state, key, inputs: (state.at[0].add(1), {"loss": jnp.float32(3.0)}),
        calibrate=lambda state, raw: state.at[1].add(1),
        info=BonusInfo(needs=("reward",)),
    )


def paid(made, rewards, updates=0):
    """Value of rewards after a number of updates."""
    steps = arrivals(np.zeros(np.shape(rewards)), reward=rewards)
    state = made.init(jax.random.key(0))
    for n in range(updates):
        state, _ = made.update(state, jax.random.key(n), (steps, {}))
    return np.asarray(made.value(state, made.score(state, steps)))


def play(made, ids):
    """Observe ids [T, N], then score the rollout -> (state, bonuses [T, N])."""

    def step(state, transition):
        state, notes = made.observe(state, jax.random.key(1), transition)
        return state, transition._replace(annotations=notes)

    @jax.jit
    def run(steps):
        state, steps = jax.lax.scan(step, made.init(jax.random.key(0)), steps)
        return state, steps, made.value(state, made.score(state, steps))

    state, steps, bonuses = run(arrivals(ids))
    assert set(steps.annotations) == set(made.info.stores)
    return state, steps, np.asarray(bonuses)


def test_scale_and_clip():
    w, inner = world(), world_reward()
    np.testing.assert_allclose(paid(c.scale(w, bonus=inner, factor=2.5), [1.0, 2.0]), [2.5, 5.0])
    np.testing.assert_allclose(paid(c.clip(w, bonus=inner, low=0.5, high=1.5), [0.0, 1.0, 2.0]), [0.5, 1.0, 1.5])
    np.testing.assert_allclose(paid(c.clip(w, bonus=inner, high=1.5), [-9.0, 2.0]), [-9.0, 1.5])
    nested = c.clip(w, bonus=c.scale(w, bonus=inner, factor=2.0), high=3.0)
    np.testing.assert_allclose(paid(nested, [1.0, 2.0]), [2.0, 3.0])


def test_mask_terminal_spares_truncation():
    made = c.mask_terminal(world(), bonus=world_reward())
    transition = arrivals([0, 1], terminated=[True, False], reward=5.0)._replace(truncated=jnp.asarray([False, True]))
    np.testing.assert_allclose(made.value((), made.score((), transition)), [0.0, 5.0])
    assert made.info.needs == ("reward", "terminated")


def test_schedule_decays_with_updates():
    made = c.schedule(world(), bonus=learner(), decay=0.5, floor=0.2)
    for updates, factor in ((0, 1.0), (1, 0.6), (2, 0.4), (60, 0.2)):
        np.testing.assert_allclose(paid(made, [2.0], updates), [2.0 * factor], rtol=1e-6)
    state, metrics = made.update(made.init(jax.random.key(0)), jax.random.key(0), ())
    assert state.inner[0] == 1 and float(metrics["loss"]) == 3.0 and float(metrics["schedule"]) == 1.0


def test_normalize_divides_by_the_deviation_and_value_does_not_learn():
    rewards = jnp.ones((5, 1))
    sums = [1.0, 1.99, 2.9701, 3.940399, 4.90099501]
    made = c.normalize(world(1), bonus=learner())
    state = made.init(jax.random.key(0))
    np.testing.assert_allclose(made.value(state, rewards), rewards)  # no statistics yet
    state = made.calibrate(state, rewards)
    for _ in range(2):
        np.testing.assert_allclose(made.value(state, rewards), rewards / np.std(sums), rtol=1e-5)
    assert state.inner[1] == 1, "the inner bonus calibrates too"
    data = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (50, 1)), jnp.float32)
    made = c.normalize(world(1), bonus=learner(), by="std")
    state = made.calibrate(made.init(jax.random.key(0)), data)
    np.testing.assert_allclose(made.value(state, data), data / np.std(data), rtol=1e-4)
    centred = c.normalize(world(1), bonus=learner(), by="standard")
    state = centred.calibrate(centred.init(jax.random.key(0)), data)
    np.testing.assert_allclose(centred.value(state, data), (data - np.mean(data)) / np.std(data), rtol=1e-4, atol=1e-5)
    assert made.info.non_negative and not centred.info.non_negative
    published = c.normalize(world(1), bonus=learner(), by="variance")
    state = published.calibrate(published.init(jax.random.key(0)), data)
    np.testing.assert_allclose(published.value(state, data), (data - np.mean(data)) / np.var(data), rtol=1e-4, atol=1e-5)
    assert not published.info.non_negative
    inner = learner()
    assert c.normalize(world(1), bonus=inner, by="none") is inner


def test_the_forward_filter_refuses_a_replay_batch():
    made = c.normalize(world(1), bonus=learner())
    with pytest.raises(ValueError, match="time order"):
        made.calibrate(made.init(jax.random.key(0)), jnp.ones(5))


def test_chain_product_and_gate():
    w = world()
    double = c.scale(w, bonus=world_reward(), factor=2.0)
    np.testing.assert_allclose(paid(c.chain(w, bonuses=(world_reward(), double)), [3.0]), [9.0])
    np.testing.assert_allclose(paid(c.product(w, bonuses=(world_reward(), double)), [3.0]), [18.0])
    np.testing.assert_allclose(paid(c.gate(w, bonus=double, mask=world_reward(), above=2.0), [1.0, 2.0, 3.0]), [0.0, 0.0, 6.0])


def test_novelty_only_on_first_visits():
    """NovelD's gate: episodic counts are 1 on the first visit of an episode only."""
    made = c.gate(world(), bonus=c.scale(world(), bonus=counts(world()), factor=3.0), mask=counts(world(), per_episode=True), above=0.9)
    _, _, bonuses = play(made, [[0, 1], [0, 2], [3, 1]])
    assert ((bonuses > 0) == [[True, True], [False, True], [True, False]]).all()
    assert made.info.stores == ("bonus.count_bonus", "mask.count_bonus") and made.info.episodic


def test_parts_of_a_chain_keep_their_notes_apart():
    w, ids = world(), np.random.default_rng(0).integers(0, STATES, (20, LANES))
    parts = counts(w), e3b(w, embedding=4, hidden=()), c.scale(w, bonus=counts(w, key="observation"), factor=0.5)
    made = c.chain(w, bonuses=parts)
    state, steps, bonuses = play(made, ids)
    alone = [play(part, ids)[2] for part in (parts[0], parts[2])]
    e3b_part = np.asarray(steps.annotations["1.elliptical"])
    np.testing.assert_allclose(bonuses, alone[0] + alone[1] + e3b_part, rtol=1e-4)
    assert made.info.scored == "step" and made.info.episodic and made.info.non_negative
    assert made.features is None, "counts of hashed observations have none"
    assert set(made.info.learns_from) >= {"info.state_id", "next_obs", "action", "obs"} and made.info.needs == ()
    metrics = jax.eval_shape(made.update, state, jax.random.key(0), (steps, {}))[1]
    assert {"0.distinct_states", "1.inverse_loss", "2.dropped"} <= set(metrics)


def test_reset_reaches_every_part_in_its_lanes_only():
    made = c.chain(world(), bonuses=(counts(world(), per_episode=True), c.normalize(world(), bonus=e3b(world(), embedding=4, hidden=()))))
    state, _, _ = play(made, [[0, 1], [2, 3]])
    after = made.reset(state, jnp.asarray([True, False]))
    assert np.asarray(after[0].visits)[0].sum() == 0
    np.testing.assert_array_equal(after[0].visits[1], state[0].visits[1])
    np.testing.assert_allclose(after[1].inner.inverse[0], 10 * np.eye(4), rtol=1e-6)
    np.testing.assert_array_equal(after[1].inner.inverse[1], state[1].inner.inverse[1])


def test_every_updates_at_every_kth_call():
    made = c.every(world(), bonus=learner(), period=3)
    state, seen = made.init(jax.random.key(0)), []
    for n in range(7):
        state, metrics = made.update(state, jax.random.key(n), ())
        seen.append((int(state.inner[0]), float(metrics["updated"]), float(metrics["loss"])))
    assert seen == [(0, 0, 0), (0, 0, 0), (1, 1, 3), (1, 0, 0), (1, 0, 0), (2, 1, 3), (2, 0, 0)]


def test_every_holds_members_that_are_out_of_step_apart():
    made = c.every(world()._replace(axis="members"), bonus=learner(), period=2)
    states = jax.vmap(made.init)(jax.random.split(jax.random.key(0), 2))
    states = states._replace(own=jnp.asarray([0, 1], jnp.int32))
    after, _ = jax.vmap(made.update, in_axes=(0, 0, None), axis_name="members")(states, jax.random.split(jax.random.key(0), 2), ())
    assert after.inner[:, 0].tolist() == [0, 1] and after.own.tolist() == [1, 0]


def test_ensemble_is_the_mean_of_its_copies():
    w, ids = world(), np.random.default_rng(1).integers(0, STATES, (4, LANES))
    inner = c.mask_terminal(w, bonus=rnd(w, hidden=(), embedding=4, epochs=5, minibatches=2, learning_rate=1e-2))
    made = c.ensemble(w, bonus=inner, size=3)
    state, steps, bonuses = play(made, ids)
    copies = [jax.tree.map(lambda x, n=n: x[n], state) for n in range(3)]
    pay = jax.jit(lambda s: inner.value(s, inner.score(s, steps)))
    alone = np.stack([pay(s) for s in copies])
    np.testing.assert_allclose(bonuses, alone.mean(0), rtol=1e-4)
    assert np.all(alone.std(0) > 0), "seeded apart"

    @jax.jit
    def again(state):
        state, metrics = made.update(state, jax.random.key(0), (steps, {}))
        raw = made.score(state, steps)
        return made.value(made.calibrate(state, raw), raw), metrics

    later, metrics = again(state)
    assert metrics["predictor_loss"].shape == () and later.shape == bonuses.shape == (4, LANES)
    assert later.mean() < bonuses.mean()


def test_ensemble_carries_annotations_and_lanes():
    made = c.ensemble(world(), bonus=e3b(world(), embedding=4, hidden=(), encoder="random"), size=3)
    state, steps, bonuses = play(made, [[0, 1], [2, 3]])
    assert steps.annotations["elliptical"].shape == (2, LANES, 3)
    np.testing.assert_allclose(bonuses, np.asarray(steps.annotations["elliptical"]).mean(-1), rtol=1e-6)
    after = made.reset(state, jnp.asarray([True, False]))
    np.testing.assert_array_equal(after.inverse[:, 1], state.inverse[:, 1])
    assert not np.allclose(after.inverse[:, 0], state.inverse[:, 0])


def test_augment_needs_features():
    w = world()
    made = c.augment(w, bonus=counts(w))
    assert made.info.augments and made.info.features.shape == (STATES,)
    for without in (rnd(w), counts(w, key="observation"), c.chain(w, bonuses=(counts(w), rnd(w))), none(w)):
        with pytest.raises(Refusal, match="SOFE needs"):
            c.augment(w, bonus=without)


def test_features_pass_through_wrappers_and_join_in_chains():
    w = world()
    both = c.chain(w, bonuses=(c.normalize(w, bonus=counts(w)), e3b(w, embedding=4, hidden=())))
    made = c.augment(w, bonus=c.schedule(w, bonus=both))
    state = jax.jit(made.init)(jax.random.key(0))
    shown = made.features(state, jnp.zeros((LANES, 2)))
    assert shown.shape == (LANES, STATES + 10) == (LANES, *made.info.features.shape)
    np.testing.assert_allclose(shown[:, :STATES], 1.0)
    one = c.chain(w, bonuses=(c.augment(w, bonus=counts(w)), rnd(w)))  # the augmented part alone is shown
    assert one.info.augments and one.info.features.shape == (STATES,) and one.info.warmup == 512


def test_entries_nest():
    entry = {
        "_target_": "exploration.combinators.chain",
        "bonuses": [
            {"_target_": "exploration.combinators.scale", "factor": 2.0, "bonus": {"_target_": "exploration.counts.counts"}},
            {"_target_": "exploration.counts.counts", "key": "observation"},
        ],
    }
    _, _, bonuses = play(build(entry, world(1)), [[0], [0]])
    np.testing.assert_allclose(bonuses[:, 0], [3.0, 3.0 * np.sqrt(0.5)], rtol=1e-5)
    check(c.scale, {"bonus": entry, "factor": 0.5}, "exploration")
    with pytest.raises(Refusal, match="exploration.factor=-1"):
        check(c.scale, {"bonus": entry, "factor": -1}, "exploration")


def test_intrinsic_wraps_the_bonus_and_carries_the_stream():
    w = world(1)
    made = intrinsic(w, world_reward(), scale=0.5, discount=0.9, clip=1.0)
    assert (made.scale, made.discount, made.episodic) == (0.5, 0.9, False)
    rewards = jnp.asarray([[1.0], [0.0], [9.0]])
    sums = np.asarray([1.0, 0.9, 9.81])
    state = made.bonus.calibrate(made.bonus.init(jax.random.key(0)), rewards)
    np.testing.assert_allclose(made.bonus.value(state, rewards), np.minimum(rewards / sums.std(), 1.0), rtol=1e-5)
    plain = world_reward()
    assert intrinsic(w, plain, normalize="none").bonus is plain
    assert intrinsic(w, none(w)).bonus.info == none(w).info
    with pytest.raises(Refusal, match="exploration=counts needs info.state_id"):
        intrinsic(w._replace(info={}), counts(w), name="counts")


def test_settings_may_be_traced():
    def run(factor, decay, discount, limit):
        w = world(1)
        inner = c.schedule(w, bonus=c.scale(w, bonus=learner(), factor=factor), decay=decay, floor=decay)
        made = intrinsic(w, c.clip(w, bonus=inner, high=limit), discount=discount, clip=limit).bonus
        state = made.init(jax.random.key(0))
        state = made.calibrate(state, jnp.ones((5, 1)))
        state, _ = made.update(state, jax.random.key(0), ())
        return made.value(state, jnp.ones((5, 1)))

    settings = [jnp.asarray(x, jnp.float32) for x in ([1.0, 2.0], [0.9, 0.5], [0.99, 0.9], [5.0, 0.1])]
    together = jax.jit(jax.vmap(run))(*settings)
    for n in range(2):
        np.testing.assert_allclose(together[n], run(*(float(s[n]) for s in settings)), rtol=1e-5)


def test_no_builder_takes_an_option_of_the_stream():
    """``scale``, ``discount``, ``episodic``, ``normalize`` and ``clip`` of an entry are the stream's: a bonus would never see them."""
    stream = {n for n, p in inspect.signature(intrinsic).parameters.items() if p.kind is p.KEYWORD_ONLY}
    combining = [getattr(c, n) for n in ("scale", "clip", "mask_terminal", "schedule", "normalize", "every", "augment", "ensemble", "chain", "product", "gate")]
    for builder in (counts, rnd, e3b, *combining):
        assert not stream & set(ranges_of(builder)), builder.__name__
