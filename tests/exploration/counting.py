"""How well bonuses count: a random walk on a grid, and each bonus beside 1/sqrt of the exact number of visits.

    python -m tests.exploration.counting [--seeds 5] [row ...]

prints mean and standard deviation over seeds, of all rows of ``ROWS`` or of those named. R is the correlation of the bonus with 1/sqrt(N)
over the states visited, RMSE the root of the mean squared difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Spec
from exploration.base import Bonus
from exploration.cfn import cfn
from exploration.laws.play import reaching
from exploration.pseudo_counts import pseudo_counts
from exploration.rnd import rnd
from exploration.simhash import simhash

SIDE, STEPS, EPISODE, CHUNK = 20, 20_000, 150, 400


class Walk(NamedTuple):
    """One walk: the states arrived in i32[T], and how often each of the side^2 states was f64[states]."""

    states: np.ndarray
    visits: np.ndarray


def random_walk(seed: int, side: int = SIDE, steps: int = STEPS, episode: int | None = EPISODE) -> Walk:
    """Uniform moves from the corner (0, 0), against the walls in place; with ``episode`` back to the corner after so many steps."""
    moves = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])[np.random.default_rng(seed).integers(4, size=steps)]
    at, states = np.zeros(2, int), np.zeros(steps, np.int32)
    for t, move in enumerate(moves):
        at = np.clip(at + move, 0, side - 1)
        states[t] = at[0] * side + at[1]
        at = np.zeros(2, int) if episode and (t + 1) % episode == 0 else at
    return Walk(states, np.bincount(states, minlength=side**2).astype(float))


def numbered(side: int = SIDE) -> tuple[Spec, jax.Array]:
    """(a world whose observations are the numbers of its states, all of them): networks see them one-hot."""
    return Spec(spaces.Discrete(side**2), spaces.Discrete(4), "grid"), jnp.arange(side**2, dtype=jnp.int32)


def coordinates(side: int = SIDE) -> tuple[Spec, jax.Array]:
    """(a world whose observations are row and column divided by the side, all of them): states beside each other look alike."""
    row, column = np.divmod(np.arange(side**2), side)
    shown = np.stack([row, column], axis=-1).astype(np.float32) / side
    return Spec(spaces.Box(0.0, 1.0, (2,), np.float32), spaces.Discrete(4), "coordinates"), jnp.asarray(shown)


def pictures(side: int = 42, per_cell: int = 1) -> tuple[Spec, jax.Array]:
    """(a world that shows the agent's cell lit in a grey picture, all its pictures): uint8[states, pixels, pixels, 1]."""
    shown = np.zeros((side**2, side * per_cell, side * per_cell, 1), np.uint8)
    for s in range(side**2):
        row, column = (per_cell * x for x in divmod(s, side))
        shown[s, row : row + per_cell, column : column + per_cell] = 255
    return Spec(spaces.Box(0, 255, shown.shape[1:], np.uint8), spaces.Discrete(4), "pictures"), jnp.asarray(shown)


def counted(bonus: Bonus, shown: jax.Array, walk: Walk, seed: int, chunk: int = CHUNK) -> np.ndarray:
    """The bonus of every state f32[states] after the walk, of which it learnt in batches of ``chunk`` steps. For scored="batch"."""

    @jax.jit
    def learn(state, key, states):
        def one(state, inputs):
            key, arrived = inputs
            return bonus.observe(state, key, reaching(shown[arrived][None]))[0], None

        observe_key, update_key = jax.random.split(key)
        state, _ = jax.lax.scan(one, state, (jax.random.split(observe_key, chunk), states))
        return bonus.update(state, update_key, (reaching(shown[states]), {}))

    key, state = jax.random.PRNGKey(seed), bonus.init(jax.random.PRNGKey(seed + 1000))
    for n, states in enumerate(walk.states.reshape(-1, chunk)):
        state, _ = learn(state, jax.random.fold_in(key, n), states)
    score = jax.jit(lambda state, obs: bonus.score(state, reaching(obs)))
    return np.concatenate([np.asarray(score(state, shown[i : i + 512])) for i in range(0, len(shown), 512)])


def agreement(paid: np.ndarray, walk: Walk) -> tuple[float, float]:
    """(R, RMSE) of the bonus beside 1/sqrt(N), over the states visited."""
    seen = walk.visits > 0
    wanted = 1 / np.sqrt(walk.visits[seen])
    return float(np.corrcoef(paid[seen], wanted)[0, 1]), float(np.sqrt(np.mean((paid[seen] - wanted) ** 2)))


def perfect(walk: Walk, seed: int, coins: int = 20) -> np.ndarray:
    """What CFN would pay if its regression were exact: the root mean square of the mean coins of each state."""
    visits = np.maximum(walk.visits, 1).astype(int)[:, None]
    means = 2 * np.random.default_rng(seed).binomial(visits, 0.5, (len(visits), coins)) / visits - 1
    return np.sqrt(np.mean(means**2, axis=1))


def of(make: Callable[[Spec], Bonus], world: Callable = numbered, root: bool = False) -> Callable[[Walk, int], np.ndarray]:
    def row(walk: Walk, seed: int) -> np.ndarray:
        spec, shown = world()
        paid = counted(make(spec), shown, walk, seed)
        return np.sqrt(paid) if root else paid

    return row


def small_cfn(spec: Spec, **options) -> Bonus:
    return cfn(spec, **{"hidden": (64, 64), "capacity": 2**15, "updates_per_batch": 100, **options})


def small_rnd(spec: Spec) -> Bonus:
    return rnd(spec, hidden=(64, 64), minibatches=1, epochs=100)


class Row(NamedTuple):
    """A line of the table: a walk, and what every state is paid after it."""

    pays: Callable[[Walk, int], np.ndarray]
    side: int = SIDE
    episode: int | None = EPISODE

    def agreement(self, seed: int) -> tuple[float, float]:
        walk = random_walk(seed, self.side, episode=self.episode)
        return agreement(self.pays(walk, seed), walk)


def simhash_fresh(spec: Spec) -> Bonus:
    return simhash(spec, scored="batch")


def pseudo_fresh(**options) -> Callable[[Spec], Bonus]:
    return lambda spec: pseudo_counts(spec, scored="batch", **options)


ROWS: dict[str, Row] = {
    "perfect regression": Row(perfect),
    "perfect regression, 100 coins": Row(lambda walk, seed: perfect(walk, seed, coins=100)),
    "perfect regression, one long episode": Row(perfect, episode=None),
    "cfn": Row(of(small_cfn)),
    "cfn, no priorities": Row(of(lambda spec: small_cfn(spec, prioritized=False))),
    "cfn, no prior": Row(of(lambda spec: small_cfn(spec, prior=False))),
    "cfn, neither": Row(of(lambda spec: small_cfn(spec, prior=False, prioritized=False))),
    "cfn, adam": Row(of(lambda spec: small_cfn(spec, optimizer="adam"))),
    "cfn, zero_init": Row(of(lambda spec: small_cfn(spec, zero_init=True))),
    "cfn, 100 coins": Row(of(lambda spec: small_cfn(spec, coins=100))),
    "rnd": Row(of(small_rnd)),
    "rnd, root": Row(of(small_rnd, root=True)),
    "coordinates: cfn": Row(of(small_cfn, coordinates)),
    "coordinates: rnd, root": Row(of(small_rnd, coordinates, root=True)),
    "coordinates: simhash": Row(of(simhash_fresh, coordinates)),
    "coordinates: pseudo_counts": Row(of(pseudo_fresh(), coordinates)),
    "coordinates: pseudo_counts, no neighbours": Row(of(pseudo_fresh(neighbours=0), coordinates)),
    "pictures: perfect regression": Row(perfect, 42),
    "pictures: cfn": Row(of(lambda spec: cfn(spec, capacity=2**15, batch_size=128), pictures), 42),
    "pictures: rnd, root": Row(of(lambda spec: rnd(spec, hidden=(), minibatches=3, epochs=10), pictures, root=True), 42),
    "pictures: simhash": Row(of(simhash_fresh, pictures), 42),
    "pictures: pseudo_counts": Row(of(pseudo_fresh(size=42, levels=2), pictures), 42),
    "pictures: pseudo_counts, no neighbours": Row(of(pseudo_fresh(size=42, levels=2, neighbours=0), pictures), 42),
    "pictures: pseudo_counts, size 21": Row(of(pseudo_fresh(), pictures), 42),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    for name in given.rows:
        found = np.array([ROWS[name].agreement(seed) for seed in range(given.seeds)])
        (r, rmse), (r_spread, rmse_spread) = found.mean(0), found.std(0)
        print(f"| {name} | {r:.3f} ± {r_spread:.3f} | {rmse:.3f} ± {rmse_spread:.3f} |", flush=True)


if __name__ == "__main__":
    main()
