"""Made-up data that fits a space or a spec, and comparisons of pytrees."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import PyTree, Spec, Transition


def draw(space: spaces.Space, lead: tuple[int, ...], rng: np.random.Generator) -> PyTree:
    """Random elements of ``space`` with leading axes ``lead``; unbounded numbers are normal."""
    if isinstance(space, spaces.Dict):
        return {name: draw(inner, lead, rng) for name, inner in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.start, space.start + space.n, lead).astype(np.int32)
    shape = (*lead, *space.shape)
    if np.issubdtype(space.dtype, np.integer):
        return rng.integers(np.int64(space.low), np.int64(space.high) + 1, shape).astype(space.dtype)
    if space.is_bounded():
        return rng.uniform(space.low, space.high, shape).astype(space.dtype)
    return np.clip(rng.normal(size=shape), space.low, space.high).astype(space.dtype)


def transitions(spec: Spec, steps: int, seed: int) -> Transition:
    """A rollout [steps, lanes]: lane 0 terminates at step 1, lane 1 is cut at step 2, and the last step ends nothing."""
    rng, lead = np.random.default_rng(seed), (steps, spec.lanes)
    terminated, truncated = np.zeros(lead, bool), np.zeros(lead, bool)
    terminated[1, 0] = truncated[2, 1 % spec.lanes] = True
    first = np.concatenate([np.ones_like(terminated[:1]), (terminated | truncated)[:-1]])
    fresh, next_obs = draw(spec.observation, lead, rng), draw(spec.observation, lead, rng)

    def follow(start, reached):
        """Where no episode begins, the observation is the one reached by the step before."""
        before = np.concatenate([start[:1], reached[:-1]])
        return np.where(first.reshape(*lead, *[1] * (start.ndim - 2)), start, before)

    obs = jax.tree.map(follow, fresh, next_obs)
    info = {name: draw(space, lead, rng) for name, space in spec.info.items()}
    reward = rng.normal(size=lead).astype(np.float32)
    made = Transition(obs, draw(spec.action, lead, rng), reward, next_obs, terminated, truncated, first, info)
    return jax.tree.map(jnp.asarray, made)


def garbage(tree: PyTree) -> PyTree:
    """Other values of the same shapes and dtypes."""

    def spoil(x):
        if x.dtype == bool:
            return ~x
        return x * -37.0 + 11.0 if jnp.issubdtype(x.dtype, jnp.floating) else (x + jnp.asarray(1, x.dtype)) * jnp.asarray(3, x.dtype)

    return jax.tree.map(spoil, tree)


def flat(tree: PyTree) -> PyTree:
    """[T, N, ...] -> [T * N, ...], as a replay batch."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def quick(function: Any) -> Any:
    """``jax.jit`` that compiles three times faster, to slower programs: without the CPU's fusion emitters, where XLA knows that option."""
    return jax.jit(function, compiler_options=_compiler_options())


@functools.cache
def _compiler_options() -> dict[str, Any] | None:
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options


def stacked(*trees: PyTree) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def member(tree: PyTree, index: int) -> PyTree:
    return jax.tree.map(lambda x: x[index], tree)


def kinds(tree: PyTree) -> Any:
    """Structure, and shape, dtype and weakness of every leaf; a scan or a checkpoint that changes one of them fails."""
    return jax.tree.structure(tree), [(jnp.shape(x), jnp.result_type(x), getattr(x, "weak_type", False)) for x in jax.tree.leaves(tree)]


def named(tree: PyTree) -> list[tuple[str, np.ndarray]]:
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def assert_equal(a: PyTree, b: PyTree) -> None:
    """Bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (name, x), (_, y) in zip(named(a), named(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


def assert_close(a: PyTree, b: PyTree, rtol: float = 1e-4, atol: float = 1e-5, strays: float = 1e-3) -> None:
    """Within rounding; whole numbers and flags exactly.

    One in a thousand numbers of a leaf may be off by more: Adam divides a gradient by its size, and where that is next to nothing
    rounding decides on the direction of a whole step.
    """
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (name, x), (_, y) in zip(named(a), named(b), strict=True):
        if not np.issubdtype(x.dtype, np.floating):
            np.testing.assert_array_equal(x, y, err_msg=name)
        elif x.shape != y.shape or np.mean(~np.isclose(x, y, rtol, atol)) > strays:
            np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=name)


def assert_finite(tree: PyTree) -> None:
    for name, x in named(tree):
        assert np.all(np.isfinite(x)), name
