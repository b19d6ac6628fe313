"""Made-up data that fits a space or a spec, and comparisons of pytrees whose errors say in words what differs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import PyTree, Spec, Transition

WIDE = 1e6  # bounds further apart say nothing about the numbers: CartPole's velocities lie within 3.4e38


def draw(space: spaces.Space, lead: tuple[int, ...], rng: np.random.Generator) -> PyTree:
    """Random elements of ``space`` with leading axes ``lead``; numbers without bounds, or with next to none, are normal."""
    if isinstance(space, spaces.Dict):
        return {name: draw(inner, lead, rng) for name, inner in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.start, space.start + space.n, lead).astype(np.int32)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(space.start, space.start + space.nvec, (*lead, *space.shape)).astype(space.dtype)
    shape = (*lead, *space.shape)
    if np.issubdtype(space.dtype, np.integer):
        return rng.integers(np.int64(space.low), np.int64(space.high) + 1, shape).astype(space.dtype)
    low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
    bounded = high - low < WIDE
    inside = rng.uniform(np.where(bounded, low, 0.0), np.where(bounded, high, 1.0), shape)
    return np.where(bounded, inside, np.clip(rng.normal(size=shape), low, high)).astype(space.dtype)


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


def plain(tree: PyTree) -> PyTree:
    """The same values as numpy arrays, on which small operations need no compiling."""
    return jax.tree.map(np.asarray, tree)


def stacked(*trees: PyTree) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)


def member(tree: PyTree, index: int) -> PyTree:
    return jax.tree.map(lambda x: x[index], tree)


# --- programs ----------------------------------------------------------------------------------------------------------


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


class Traced:
    """``quick(function)``, and the kinds of inputs that it was traced with: ``programs`` has one entry as long as one program serves all calls.

    What is traced again with inputs as before, because jax's caches were cleared meanwhile, is the same program and adds nothing.
    """

    def __init__(self, function: Callable[..., Any]):
        self.programs: list[Any] = []
        self._call = quick(lambda *inputs: self._noted(inputs) or function(*inputs))

    def _noted(self, inputs: PyTree) -> None:
        if kinds(inputs) not in self.programs:
            self.programs.append(kinds(inputs))

    def __call__(self, *inputs: Any) -> Any:
        return self._call(*inputs)


# --- comparisons -------------------------------------------------------------------------------------------------------


def require(condition: Any, reason: str) -> None:
    """Raise AssertionError with ``reason`` unless the condition holds; unlike ``assert`` it is not left out under ``python -O``."""
    if not condition:
        raise AssertionError(reason)


def kinds(tree: PyTree) -> Any:
    """Structure, and shape, dtype and weakness of every leaf; a scan or a checkpoint that changes one of them fails."""
    return jax.tree.structure(tree), [(jnp.shape(x), jnp.result_type(x), getattr(x, "weak_type", False)) for x in jax.tree.leaves(tree)]


def changed_kind(before: PyTree, after: PyTree) -> str | None:
    """The first leaf whose shape or dtype is not what it was, in words; None when all are the same."""
    if kinds(before) == kinds(after):
        return None
    if jax.tree.structure(before) != jax.tree.structure(after):
        return f"its structure changes from {jax.tree.structure(before)} to {jax.tree.structure(after)}"
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(before)]
    odd = next((n, b, a) for n, b, a in zip(names, kinds(before)[1], kinds(after)[1], strict=True) if a != b)
    return f"{odd[0] or 'it'} changes from {_kind(*odd[1])} to {_kind(*odd[2])}"


def _kind(shape: tuple[int, ...], dtype: Any, weak: bool) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]{' (weakly typed)' if weak else ''}"


def named(tree: PyTree) -> list[tuple[str, np.ndarray]]:
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _paired(a: PyTree, b: PyTree, because: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Leaves of two trees of the same structure and shapes; AssertionError when they are not."""
    require(jax.tree.structure(a) == jax.tree.structure(b), f"{because}{jax.tree.structure(a)} is not {jax.tree.structure(b)}")
    pairs = [(name.lstrip("."), x, y) for (name, x), (_, y) in zip(named(a), named(b), strict=True)]
    for name, x, y in pairs:
        require(x.shape == y.shape, f"{because}{name} has shape {x.shape} and not {y.shape}")
    return pairs


def _tell(because: str, name: str, x: np.ndarray, y: np.ndarray, odd: np.ndarray) -> str:
    at = tuple(int(i) for i in np.argwhere(odd)[0])
    where = f"{name or 'value'}{list(at) if at else ''}"
    return f"{because}{where} is {x[at]} and not {y[at]} ({np.sum(odd)} of {odd.size} numbers differ)"


def assert_equal(a: PyTree, b: PyTree, because: str = "") -> None:
    """Bit for bit, NaN equal to NaN. ``because`` opens the error's text."""
    for name, x, y in _paired(a, b, because):
        odd = ~np.equal(x, y) & ~((x != x) & (y != y))
        require(not odd.any(), _tell(because, name, x, y, odd) if odd.any() else "")


def assert_close(a: PyTree, b: PyTree, rtol: float = 1e-4, atol: float = 1e-5, strays: float = 1e-3, because: str = "") -> None:
    """Within rounding; whole numbers and flags exactly. ``because`` opens the error's text.

    One in a thousand numbers of a leaf may be off by more: Adam divides a gradient by its size, and where that is next to nothing
    rounding decides on the direction of a whole step.
    """
    for name, x, y in _paired(a, b, because):
        floating = np.issubdtype(x.dtype, np.floating)
        odd = ~np.isclose(x, y, rtol, atol, equal_nan=True) if floating else ~np.equal(x, y)
        if odd.any() and np.mean(odd) > (strays if floating else 0.0):
            raise AssertionError(_tell(because, name, x, y, odd))


def assert_finite(tree: PyTree, because: str = "") -> None:
    for name, x in named(tree):
        bad = ~np.isfinite(x)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise AssertionError(f"{because}{name.lstrip('.')}{list(at) if at else ''} is {x[at]} ({bad.sum()} of {bad.size} numbers are not finite)")
