"""What the programs of this folder share: a stopwatch, compiling apart from running, and the one line they end with."""

from __future__ import annotations

import json
import time


class Stopwatch:
    """Wall and CPU seconds (of all threads) since it was made."""

    def __init__(self):
        self.wall, self.cpu = time.monotonic(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"seconds": time.monotonic() - self.wall, "cpu_seconds": time.process_time() - self.cpu}


def compile_ahead(function, *args):
    """(compiled program, seconds to trace and compile it)."""
    import jax

    watch = Stopwatch()
    program = jax.jit(function).lower(*args).compile()
    return program, watch.read()["seconds"]


def timed(program, *args):
    """(result, seconds of the call)."""
    import jax

    watch = Stopwatch()
    result = jax.block_until_ready(program(*args))
    return result, watch.read()


def tell(found) -> None:
    """The last line of standard output, which ``scripts/benchmark.py`` reads."""
    print(json.dumps(found), flush=True)
