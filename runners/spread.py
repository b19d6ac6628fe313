"""The members of one run over several processes: each has a ``Batch`` (or ``HostBatch``) of its share, process 0 drives all of them.

``Spread`` has the functions of ``Batch``, for all members, so loop, checkpoints and commands know nothing of processes: it gives every process the same
command, and puts together what they answer. Members are cut into consecutive shares; a snapshot holds them in their order, whoever computed them, so another
number of processes goes on from it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from envs.builder import Refusal
from runners.base import HostExplorer, HostRunner, HostSearch, Runner
from runners.batching import Batch
from runners.compose import COMMAND
from runners.distributed import Group
from runners.host_batch import HostBatch

APART = f"without distributed=..., or its seeds on several machines as runs of their own: {COMMAND} train -m seeds=[0],[1] hydra/launcher=submitit_slurm"


def shares(members: int, processes: int) -> list[slice]:
    """Which members each process computes: consecutive ones, as many as in any other process or one more."""
    ends = [members * (process + 1) // processes for process in range(processes)]
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def refuse_unspreadable(runner: Runner | HostRunner | HostExplorer, members: int, processes: int) -> None:
    """Refuse what one process has to do, and more processes than there are members."""
    if isinstance(runner, (HostExplorer, HostSearch)) or isinstance(runner, Runner) and runner.full is not None:
        raise Refusal(f"distributed.processes={processes}: an archive grows in one process; run it {APART}")
    if members < processes:
        raise Refusal(f"distributed.processes={processes}: every process needs a member, and there are {members}; set seeds={processes}, or fewer processes")


class Spread:
    """All members of a run, computed by the processes of ``group``; made in process 0. ``batch``: its own share of them."""

    def __init__(self, batch: Batch | HostBatch, group: Group, members: int):
        self.members, self.grown = members, {}
        self.say: Callable[[str], None] = lambda line: None
        self._batch, self._group, self._shares = batch, group, shares(members, group.processes)

    def _every(self, command: str, *common: Any, parts: list[Any] | None = None) -> list[Any]:
        """What every process answers to a command of ``COMMANDS``; ``parts`` are an argument of its own for each."""
        arguments = [common] * len(self._shares) if parts is None else [(*common, part) for part in parts]
        self._group.tell([(command, given) for given in arguments[1:]])
        return [COMMANDS[command](self._batch, *arguments[0]), *self._group.hear()]

    def plan(self) -> dict[str, int]:
        """The bytes of process 0's share."""
        return self._batch.plan()

    def compile(self) -> None:
        self._every("compile")

    def start(self) -> None:
        self._every("start")

    def run(self, start: int, count: int, total: int) -> None:
        self._sound = self._every("run", start, count, total)

    def sound(self) -> np.ndarray:
        return np.concatenate(self._sound)

    def take_metrics(self) -> list[dict[str, Any]]:
        return sum(self._every("take_metrics"), [])

    def evaluate(self, keys: Any) -> list[dict[str, Any]]:
        return sum(self._every("evaluate", parts=[np.asarray(keys)[share] for share in self._shares]), [])

    def policies(self) -> list[dict[str, Any]]:
        structure, found = jax.tree.structure(self._batch.policies()[0]), sum(self._every("policies"), [])
        return [jax.tree.unflatten(structure, leaves) for leaves in found]

    def visits(self) -> np.ndarray | None:
        found = self._every("visits")
        return None if found[0] is None else np.concatenate(found)

    def snapshot(self) -> Any:
        leaves = [np.concatenate(parts) for parts in zip(*self._every("snapshot"), strict=True)]
        return jax.tree.unflatten(jax.tree.structure(self.template()), leaves)

    def restore(self, snapshot: Any, host: bytes | None = None, iteration: int = 0) -> None:
        """Connections know no structure of ours: arrays go as leaves, worlds as the snapshots of each lane."""
        leaves, worlds = [np.asarray(leaf) for leaf in jax.tree.leaves(snapshot)], pickle.loads(host) if host else None
        lanes = len(worlds or ()) // self.members
        parts = [([leaf[own] for leaf in leaves], worlds and pickle.dumps(worlds[own.start * lanes : own.stop * lanes])) for own in self._shares]
        self._every("restore", iteration, parts=parts)

    def template(self) -> Any:
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct((self.members, *s.shape[1:]), s.dtype), self._batch.template())

    def profile(self, iteration: int, total: int) -> tuple[dict[str, float], str]:
        """Of process 0."""
        seconds, what = self._batch.profile(iteration, total)
        return seconds, f"{what}, in process 0 of {self._group.processes}"

    def carried(self, hosts: list[tuple[bytes | None, int]]) -> None:
        """Worlds are part of the states, or, on the host, not carried over from other runs."""

    def prepare_for(self, grown: dict[str, int]) -> None:
        """Nothing grows here."""

    def host_snapshot(self) -> bytes | None:
        """The worlds on the host of all members, as one process would save them."""
        found = self._every("host_snapshot")
        return None if found[0] is None else pickle.dumps(sum((pickle.loads(worlds) for worlds in found), []))

    def close(self) -> None:
        self._batch.close()


def ran(batch: Batch | HostBatch, start: int, count: int, total: int) -> np.ndarray:
    batch.run(start, count, total)
    return batch.sound()


def restored(batch: Batch | HostBatch, iteration: int, part: tuple[list[np.ndarray], bytes | None]) -> None:
    leaves, worlds = part
    batch.restore(jax.tree.unflatten(jax.tree.structure(batch.template()), leaves), worlds, iteration)


COMMANDS: dict[str, Callable[..., Any]] = {
    "compile": lambda batch: batch.compile(),
    "start": lambda batch: batch.start(),
    "run": ran,
    "take_metrics": lambda batch: batch.take_metrics(),
    "evaluate": lambda batch, keys: batch.evaluate(keys),
    "policies": lambda batch: [jax.tree.leaves(policy) for policy in batch.policies()],
    "visits": lambda batch: batch.visits(),
    "snapshot": lambda batch: jax.tree.leaves(batch.snapshot()),
    "host_snapshot": lambda batch: batch.host_snapshot(),
    "restore": restored,
}


def follow(batch: Batch | HostBatch, group: Group) -> None:
    """Another process than 0: do what process 0 says until the run has ended. Raises ``distributed.Ended`` where it did not finish."""
    while True:
        command, arguments = group.listen()
        if command == "end":
            return
        group.answer(COMMANDS[command](batch, *arguments))
