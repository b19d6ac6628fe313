"""Emulators and nothing else: ``bare_emulators.py GAME PROCESSES STEPS``. Every process calls ``act`` in a loop, with repeated random actions, and
resets where a game is over; STEPS are of one process, four frames each. What Go-Explore's first phase cannot be faster than."""

from __future__ import annotations

import multiprocessing
import sys
import time

import numpy as np
from timing import Stopwatch, tell

from envs.atari import emulator


def work(game: str, steps: int, seed: int, barrier, seconds) -> None:
    world = emulator(game, 4, 108_000, False, False)
    actions = np.repeat(np.random.default_rng(seed).integers(0, 18, steps // 20 + 1), 20).tolist()
    world.reset()
    barrier.wait()
    begin = time.perf_counter()
    for action in actions[:steps]:
        if world.step(action)[1]:
            world.reset()
    seconds.put(time.perf_counter() - begin)


def main(game: str, processes: int, steps: int) -> None:
    barrier, seconds = multiprocessing.Barrier(processes + 1), multiprocessing.Queue()
    workers = [multiprocessing.Process(target=work, args=(game, steps, n, barrier, seconds)) for n in range(processes)]
    for worker in workers:
        worker.start()
    barrier.wait()
    watch = Stopwatch()
    slowest = max(seconds.get() for _ in workers)
    for worker in workers:
        worker.join()
    tell({"steps": steps * processes, **watch.read(), "seconds": slowest, "compile_seconds": 0.0})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
