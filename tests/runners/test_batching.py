"""What the three batchings promise, and what the compiled loop promises."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from envs.builder import Refusal
from runners.base import Clock
from tests.runners.tiny import AGENTS, BONUSES, TINY, assert_equal, batch_of

pytestmark = pytest.mark.medium  # a few programs to compile


def run(overrides, batching):
    batch, total = batch_of(overrides, batching)
    batch.start()
    batch.run(0, total, total)
    return batch


def member(snapshot, i):
    return jax.tree.map(lambda x: x[i : i + 1], snapshot)


@pytest.mark.parametrize("bonus", ["counts", pytest.param("rnd", marks=pytest.mark.medium), pytest.param("e3b", marks=pytest.mark.medium)])
def test_map_equals_single_runs_bit_for_bit(bonus):
    together = run([*TINY, *BONUSES[bonus], "seeds=[3,5]"], "map").snapshot()
    for i, seed in enumerate([3, 5]):
        assert_equal(run([*TINY, *BONUSES[bonus], f"seeds=[{seed}]"], "vmap").snapshot(), member(together, i))


@pytest.mark.parametrize("batching", ["vmap", "shard"])
def test_vmap_and_shard_agree_with_single_runs(batching):
    """Within rounding, after two iterations; later the policies' choices may part."""
    overrides = [*AGENTS["ppo"], *BONUSES["counts"]]

    def two(seeds, batching):
        batch, total = batch_of([*overrides, f"seeds={seeds}"], batching)
        batch.start()
        batch.run(0, 2, total)
        return batch.snapshot()

    together, apart = two("[0,1]", batching), two("[0,1]", "map")
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-4, atol=1e-5)


def test_members_that_do_not_divide_among_the_devices_are_what_they_are_without_company():
    """Three members on two devices: the fourth place computes one of them again, and nobody sees it. An even number of other members changes no bit of them."""
    overrides = [*AGENTS["ppo"], *BONUSES["counts"]]
    three, total = batch_of([*overrides, "seeds=[0,1,2]"], "shard")
    four = run([*overrides, "seeds=[0,1,2,7]"], "shard")
    three.start()
    three.run(0, total // 2, total)
    half = three.snapshot()
    three.restore(half)
    three.run(total // 2, total // 2, total)
    assert_equal(three.snapshot(), jax.tree.map(lambda x: x[:3], four.snapshot()))
    assert three.sound().tolist() == [True] * 3 and len(three.policies()) == 3 and three.visits().shape[0] == 3
    keys = np.stack([jax.random.PRNGKey(i) for i in range(3)])
    assert len(three.evaluate(keys)) == 3 and len(three.take_metrics()) == 3
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), three.snapshot())
    assert shapes == jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), three.template())


@pytest.mark.parametrize("agent", ["ppo", pytest.param("replay", marks=pytest.mark.slow)])
def test_lanes_are_spread_over_the_devices(agent):
    """Within rounding what one device computes; every array with lanes is in parts, the learner is on both; a state comes back to where it was."""
    overrides = [*AGENTS[agent], *BONUSES["counts"], "seeds=2"]
    found = {}
    for batching in ("lanes", "vmap"):
        batch, total = batch_of(overrides, batching)
        batch.start()
        batch.run(0, 2, total)
        found[batching] = batch.snapshot()
        if batching == "lanes":
            spread = [x for x in jax.tree.leaves(batch._states[0]) if x.ndim > 1 and x.shape[1] == 4]
            assert len(spread) > 3 and all([s.data.shape for s in x.addressable_shards] == [(2, 2, *x.shape[2:])] * 2 for x in spread)
            assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(batch._states[0].agent) if x.shape[1:2] != (4,))
            assert len(batch.evaluate(np.stack([jax.random.PRNGKey(i) for i in range(2)]))) == 2
    for a, b in zip(jax.tree.leaves(found["lanes"]), jax.tree.leaves(found["vmap"]), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-4, atol=1e-5)


def test_lanes_that_do_not_divide_are_refused():
    with pytest.raises(Refusal, match=r"runner.lanes=3 do not divide among 2 devices"):
        batch_of([*(o for o in TINY if "lanes" not in o), "runner.lanes=3", "seeds=1"], "lanes")


@pytest.mark.parametrize(("members", "cores", "devices"), [(1, 2, 1), (2, 2, 2), (3, 2, 2), (5, 2, 2), (8, 6, 4), (5, 16, 5), (16, 16, 16), (9, 4, 3)])
def test_no_more_devices_than_make_it_faster(members, cores, devices, monkeypatch):
    from runners import devices as module

    monkeypatch.setattr(module, "cores", lambda: cores)
    monkeypatch.setattr(module, "on_cpu", lambda: True)
    assert module.resolve_batching("auto", members) == ("vmap" if devices == 1 else "shard", devices)
    monkeypatch.setattr(module, "on_cpu", lambda: False)
    assert module.resolve_batching("auto", members) == ("auto", 1) and module.resolve_batching("vmap", members) == ("vmap", 1)


def test_members_differ_by_seed_and_by_hyper_parameter():
    batch = run([*TINY, "seeds=2", "+vmap.exploration.scale=[0,1]"], "vmap")
    params = jax.tree.leaves(batch.snapshot()[0].agent.params)[0]
    assert params.shape[0] == 4
    assert len({p.tobytes() for p in params}) == 4


def test_a_traced_value_equals_the_same_value_written_in():
    traced = run([*TINY, "seeds=1", "+vmap.agent.learning_rate=[0.003]"], "vmap").snapshot()
    written = run([*TINY, "seeds=1", "agent.learning_rate=0.003"], "vmap").snapshot()
    for a, b in zip(jax.tree.leaves(traced[0].agent.params), jax.tree.leaves(written[0].agent.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_member_that_diverges_leaves_the_others_alone():
    batch = run([*TINY, "seeds=1", "+vmap.agent.learning_rate=[1e-3,1e30]"], "vmap")
    assert batch.sound().tolist() == [True, False]
    alone = run([*TINY, "seeds=1", "+vmap.agent.learning_rate=[1e-3]"], "vmap")
    for a, b in zip(jax.tree.leaves(batch.snapshot()[0].agent.params), jax.tree.leaves(alone.snapshot()[0].agent.params), strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-3, atol=1e-4)


def test_nothing_is_traced_after_the_plan(monkeypatch):
    """Segments of any length, first and later ones, run the program that was compiled."""
    from runners import on_policy

    traces = []
    original = on_policy.jax_source
    monkeypatch.setattr(on_policy, "jax_source", lambda *a, **k: traces.append(1) or original(*a, **k))
    batch, total = batch_of([*TINY, "seeds=2"], "vmap")
    batch.start()
    before = len(traces)
    for start, count in ((0, 1), (1, 3), (4, 2)):
        batch.run(start, count, total)
        batch.take_metrics()
    assert before > 0 and len(traces) == before


def test_metrics_of_a_segment_are_those_of_its_iterations():
    """Means weighted by episodes, the newest counts: however the segment is cut."""
    rows = []
    for cuts in ([8], [1, 3, 4]):
        batch, total = batch_of([*TINY, "seeds=2"], "vmap")
        batch.start()
        start = 0
        for count in cuts:
            batch.run(start, count, total)
            start += count
        rows.append(batch.take_metrics())
    assert rows[0] == rows[1]
    assert rows[0][0]["episode/count"] == 8 * 8 * 4 // 4  # iterations x rollout x lanes / episode length
    assert rows[0][0]["episode/length"] == 4.0


def test_clock_reaches_the_step_unbatched():
    """``lax.cond`` on the clock must stay a branch under vmap."""
    from runners.base import Runner
    from runners.batching import vectorised

    def make(hyper):
        def step(state, clock):
            state = jax.lax.cond(clock.iteration % 2 == 0, lambda s: s + 1.0, lambda s: s, state)
            return state, {"x": state}

        return Runner(lambda key: jax.numpy.float32(0), step, None, None, 1)

    _, segment, *_ = vectorised(make)
    states = jax.numpy.zeros(3)
    clock = Clock(jax.numpy.int32(0), jax.numpy.float32(0))
    steps = jax.make_jaxpr(jax.vmap(make({}).step, in_axes=(0, None)))(states, clock)
    assert "cond[" in str(steps)
