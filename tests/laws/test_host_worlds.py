"""What every world on the host promises, walked over ``cases.HOST_WORLDS``."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from gymnasium import spaces

from envs import snapshot
from envs.builder import build
from envs.wrappers import wrapped
from runners.checks import parted
from runners.host_batch import random_actions
from tests.laws.cases import HOST_WORLDS

LANES, STEPS = 2, 25


class Seen:
    """A world of the table, and what some random steps gave."""

    def __init__(self, name: str):
        own, wrappers = parted("env", HOST_WORLDS[name])
        self.env = wrapped(build(own), **wrappers)
        self.lanes = self.env.open(LANES)
        self.first = self.lanes.reset([3, 4])
        self.steps = self.go_on()

    def go_on(self):
        rng = np.random.default_rng(0)
        return [self.lanes.step(random_actions(self.env.spec.action, rng, LANES)) for _ in range(STEPS)]


@pytest.fixture(scope="module", params=HOST_WORLDS)
def seen(request):
    if HOST_WORLDS[request.param].get("pixels") is not None:
        request.getfixturevalue("draws")
    if request.param == "textworld":
        pytest.importorskip("textworld", reason="textworld is not installed (requirements-textworld.lock)")
    made = Seen(request.param)
    yield made
    made.lanes.close()


def contained(space: spaces.Space, values) -> bool:
    if isinstance(space, spaces.Dict):
        return all(contained(inner, values[name]) for name, inner in space.spaces.items())
    values = np.asarray(values)
    return all(space.contains(value[()] if isinstance(space, spaces.Discrete) else np.asarray(value)) for value in values)


def test_observations_and_info_are_in_their_spaces(seen):
    spec = seen.env.spec
    for obs in (seen.first, *(o for made, following in seen.steps for o in (made.obs, following))):
        decoded = jax.tree.map(np.asarray, seen.env.decode(obs))
        assert contained(spec.observation, decoded)
    for made, _ in seen.steps:
        assert set(made.info) >= set(spec.info)
        for name, space in spec.info.items():
            assert contained(space, np.asarray(made.info[name], space.dtype)), name


def test_shapes_and_dtypes_do_not_change(seen):
    kinds = {jax.tree.structure(made): [(x.shape, x.dtype) for x in jax.tree.leaves(made)] for made, _ in seen.steps}
    assert len(kinds) == 1
    made = seen.steps[0][0]
    assert (made.reward.dtype, made.terminated.dtype, made.truncated.dtype) == (np.float32, bool, bool)
    assert made.reward.shape == made.terminated.shape == (LANES,)


def test_successors_and_what_follows_differ_only_where_episodes_end(seen):
    for made, following in seen.steps:
        done = made.terminated | made.truncated
        for successor, after in zip(jax.tree.leaves(made.obs), jax.tree.leaves(following), strict=True):
            np.testing.assert_array_equal(successor[~done], after[~done])


def test_the_same_seeds_give_the_same(seen):
    again = seen.env.open(LANES)
    assert snapshot.same(again.reset([3, 4]), seen.first)
    again.close()


def test_snapshots_are_there_or_refused_and_exact(seen):
    if seen.env.unsaved:
        assert seen.lanes.save is None and isinstance(seen.env.unsaved, str)
        return
    saved = seen.lanes.save()
    first = seen.go_on()
    seen.lanes.load(saved)
    for (a, b), (c, d) in zip(first, seen.go_on(), strict=True):
        assert snapshot.same((list(a[:4]), b), (list(c[:4]), d))
