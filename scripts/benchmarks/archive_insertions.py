"""What a step costs that is inserted into an archive of so many cells: ``archive_insertions.py CELLS``. Batches of 100 rollouts of 100 steps between
random known cells, choosing included; nanoseconds per step are seconds / steps."""

from __future__ import annotations

import sys

from timing import Stopwatch, tell

from runners import devices

devices.prepare(1)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from gymnasium import spaces  # noqa: E402

from envs.base import Lanes, Spec, Transition  # noqa: E402
from exploration.base import Explored  # noqa: E402
from exploration.go_explore import go_explore, power_of_two  # noqa: E402

LANES, STEPS, BATCHES = 100, 100, 30


def main(cells: int) -> None:
    states = spaces.Discrete(cells)
    archive = go_explore(
        Spec(states, spaces.Discrete(4), "made up", info={"state_id": states}, num_states=cells, deterministic=True), capacity=power_of_two(cells + 20_000)
    )
    empty = jnp.zeros(LANES, jnp.int32)
    starts = Lanes(empty, empty, empty > 0, empty.astype(jnp.float32), empty, ())
    state = jax.jit(lambda: archive.init(jax.random.PRNGKey(0), (starts, jnp.zeros(STEPS, jnp.int32))))()

    def batch(state, key):
        state, chosen = archive.select(state, key, LANES)
        ids, no = jax.random.randint(key, (STEPS, LANES), 0, cells), jnp.zeros((STEPS, LANES), bool)
        length = chosen.lanes.episode_length[None] + jnp.arange(1, STEPS + 1, dtype=jnp.int32)[:, None]
        reached = Lanes(ids, ids, no, jnp.zeros(ids.shape), length, ())
        steps = Transition(ids, ids % 4, jnp.zeros(ids.shape), ids, no, no, no, {"state_id": ids})
        return archive.insert(state, key, Explored(chosen.cells, chosen.lanes.note, reached, steps, ~no))[0]

    program = jax.jit(batch, donate_argnums=0)
    key = jax.random.PRNGKey(1)
    filling = max(20, 3 * cells // (LANES * STEPS))
    for n in range(filling):
        state = program(state, jax.random.fold_in(key, n))
    jax.block_until_ready(state)
    watch = Stopwatch()
    for n in range(BATCHES):
        state = program(state, jax.random.fold_in(key, filling + n))
    jax.block_until_ready(state)
    tell({"steps": BATCHES * LANES * STEPS, **watch.read(), "compile_seconds": 0.0})


if __name__ == "__main__":
    main(int(sys.argv[1]))
