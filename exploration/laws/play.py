"""Steps played to a bonus by hand: what known answers, and tests of a bonus's numbers, are made with.

The world is a line of numbered states. A bonus is told where each lane arrives, step after step, and then what it pays for that::

    bonus = counts(line(lanes=1))
    state, paid = play(bonus, arrivals([[3], [3], [3]]))        # paid: 1, 1/sqrt(2), 1/sqrt(3)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import PyTree, Spec, Transition
from exploration.base import Bonus

STATES = 6


def line(lanes: int = 1, num_states: int | None = STATES) -> Spec:
    """A world of six states, of which it tells the number in ``info``. Observations are two numbers that differ for every state."""
    observation = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    return Spec(observation, spaces.Discrete(2), "line", lanes=lanes, num_states=num_states, info={"state_id": spaces.Discrete(STATES)})


def arrivals(states) -> Transition:
    """Steps that end in the given states, i32 of any shape ([T, N] for ``play``); no episode begins or ends, and the world pays 0."""
    ids = jnp.asarray(states, jnp.int32)
    obs = jnp.stack([ids, -ids], axis=-1).astype(jnp.float32) / 2
    no = jnp.zeros(ids.shape, bool)
    return Transition(obs, jnp.zeros_like(ids), no.astype(jnp.float32), obs, no, no, no, {"state_id": ids})


def reaching(next_obs: PyTree) -> Transition:
    """Steps that end in the given observations, f32[B, ...]; no episode begins or ends, and the world pays 0."""
    no = jnp.zeros(jax.tree.leaves(next_obs)[0].shape[0], bool)
    return Transition(next_obs, no.astype(jnp.int32), no.astype(jnp.float32), next_obs, no, no, no, {})


def play(bonus: Bonus, steps: Transition, state: PyTree = None) -> tuple[PyTree, np.ndarray]:
    """Observe ``steps`` [T, N] one after the other, then score them all -> (state, bonus paid for each f32[T, N]).

    ``state``: where the bonus stands before; None starts it.
    """

    def one(state, step):
        state, notes = bonus.observe(state, jax.random.PRNGKey(1), step)
        return state, step._replace(annotations=notes)

    @jax.jit
    def run(state, steps):
        state, steps = jax.lax.scan(one, state, steps)
        return state, bonus.value(state, bonus.score(state, steps))

    state, paid = run(bonus.init(jax.random.PRNGKey(0)) if state is None else state, steps)
    return state, np.asarray(paid)


def expect(found, wanted, rtol: float = 1e-4) -> str:
    """The numbers found, as text; AssertionError when they are not the wanted ones."""
    shown = ", ".join(f"{x:.4g}" for x in np.ravel(found))
    if np.shape(found) != np.shape(wanted) or not np.allclose(found, wanted, rtol=rtol, atol=0.0):
        raise AssertionError(f"it gives {shown}, and should give {', '.join(f'{x:.4g}' for x in np.ravel(wanted))}")
    return shown
