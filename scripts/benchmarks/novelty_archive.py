"""What a generation of novelty search costs beside an archive that holds so many: ``novelty_archive.py FILLED``. 100 policies, 200 children, descriptors of
two numbers, nothing tried: asking, novelty of all 300, the archive and the survivors. ``steps`` are generations."""

from __future__ import annotations

import sys

from timing import Stopwatch, tell

from runners import devices

devices.prepare(1)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from gymnasium import spaces  # noqa: E402

from envs.base import Spec  # noqa: E402
from exploration.base import Evaluation  # noqa: E402
from exploration.novelty_search import novelty_search  # noqa: E402

GENES, GENERATIONS = 48, 20


def main(filled: int) -> None:
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    spec = Spec(box, box, "made up", info={"descriptor": box}, genome=spaces.Box(-5.0, 5.0, (GENES,), np.float32))
    search = novelty_search(spec, capacity=filled + 5 * (GENERATIONS + 3))
    key = jax.random.PRNGKey(1)

    def full():
        state, places = search.init(jax.random.PRNGKey(0)), jax.random.uniform(key, (filled, 2), minval=-1.0, maxval=1.0)
        archive = state.archive._replace(code=state.archive.code.at[:filled].set(places), valid=state.archive.valid.at[:filled].set(True))
        return state._replace(archive=archive, size=jnp.int32(filled))

    def generation(state, key):
        ask_key, tell_key = jax.random.split(key)
        state, genomes, wanted = search.ask(state, ask_key, "offspring")
        zero = jnp.zeros(len(genomes))
        found = Evaluation(zero, jnp.tanh(genomes[:, :2]), wanted, wanted, zero.astype(jnp.int32))
        return search.tell(state, tell_key, ("offspring", genomes, found))[0]

    state, program = jax.jit(full)(), jax.jit(generation, donate_argnums=0)
    for n in range(2):
        state = program(state, jax.random.fold_in(key, n))
    jax.block_until_ready(state)
    watch = Stopwatch()
    for n in range(GENERATIONS):
        state = program(state, jax.random.fold_in(key, 2 + n))
    jax.block_until_ready(state)
    tell({"steps": GENERATIONS, **watch.read(), "compile_seconds": 0.0, "returned": int(state.size)})


if __name__ == "__main__":
    main(int(sys.argv[1]))
