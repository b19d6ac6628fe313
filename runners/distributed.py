"""One run in several processes, on one machine or on several: who takes part, and how they talk. What each computes is in ``runners/spread.py``.

Every process is started with the same command line. They meet through ``jax.distributed`` (its coordinator, its detection of clusters, a GPU for each
process under Slurm), tell each other where process 0 listens, and leave it again: members never need each other, so what is left to say are messages
between process 0 and the others, over connections that end with the process at their other end. (A process that stays in ``jax.distributed`` is aborted by
it, without a word of ours, when another one dies.)
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any, NamedTuple

from envs.builder import Failure, Integer, Optional, Refusal, Text

MOST = 4096  # processes
SETTINGS = {
    "distributed.coordinator": Optional(Text("HOST:PORT at process 0, as node1:7000")),
    "distributed.processes": Optional(Integer(1, MOST)),
    "distributed.process": Optional(Integer(0, MOST - 1)),
    "distributed.timeout": Integer(1, 86_400),
}
ALONE = "distributed.processes=1 runs this process alone"
EXAMPLE = "distributed.coordinator=node1:7000 distributed.processes=2 distributed.process=0, and distributed.process=1 in the other"
PLACE = "farlands/process_0"  # where process 0 says how it is reached
LAST_WORDS = 5.0  # seconds that the others have to end before process 0 does


class Place(NamedTuple):
    """Which process this is, of how many; ``coordinator`` is None where jax finds it (Slurm, Open MPI)."""

    process: int
    processes: int
    coordinator: str | None


def without() -> dict[str, Any]:
    """The ``distributed`` entry of a run in one process."""
    return {"coordinator": None, "processes": None, "process": None, "timeout": 300}


def asked(config: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Place | None:
    """This process among those of its run; None where it is alone. Settings come first, then the environment. Raises Refusal.

    Needs no jax, and ``config`` may be unchecked."""
    given = config.get("distributed") or {}
    for name, legal in SETTINGS.items():
        value = given.get(name.partition(".")[2], without()[name.partition(".")[2]]) if isinstance(given, Mapping) else given
        if not legal.accepts(value):
            raise Refusal(f"{name}={value!r} is not legal: it must be {legal.describe()}")
    found = of_environment(environment)
    if given.get("processes") == 1 or found is None and not any(given.get(name) is not None for name in ("coordinator", "processes", "process")):
        return None
    place = {name: value if given.get(name) is None else given[name] for name, value in (found or Place(None, None, None))._asdict().items()}
    missing = [name for name in ("processes", "process", *(["coordinator"] if found is None else [])) if place[name] is None]
    if missing:
        raise Refusal(f"distributed.{missing[0]} has no value; a process of a run in several is told its place as {EXAMPLE}; {ALONE}")
    if place["process"] >= place["processes"]:
        raise Refusal(f"distributed.process={place['process']} is not below distributed.processes={place['processes']}: processes count from 0")
    if place["coordinator"] is not None and not place["coordinator"].rpartition(":")[2].isdigit():
        raise Refusal(f"distributed.coordinator={place['coordinator']} names no port; write HOST:PORT, as node1:7000")
    return Place(**place)


def of_environment(environment: Mapping[str, str]) -> Place | None:
    """What launchers tell their processes: jax's own variables, submitit on one machine, Slurm (a step of several tasks), Open MPI."""

    def read(processes: str, process: str, coordinator: str | None) -> Place | None:
        try:
            found = Place(int(environment[process]), int(environment[processes]), coordinator)
        except (KeyError, ValueError):
            return None
        return found if found.processes > 1 else None

    port = 20_000 + int(environment.get("SUBMITIT_LOCAL_JOB_ID", "0")) % 10_000 if environment.get("SUBMITIT_LOCAL_JOB_ID", "0").isdigit() else 20_000
    return (
        read("JAX_NUM_PROCESSES", "JAX_PROCESS_ID", environment.get("JAX_COORDINATOR_ADDRESS"))
        or read("SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_GLOBALID", f"localhost:{port}")
        or read("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", None)
        or read("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", None)
    )


class Ended(Exception):
    """Process 0 ended the run otherwise than by finishing it. ``code``: the exit code; the text says why."""

    def __init__(self, code: int, line: str):
        super().__init__(line)
        self.code = code


class Group:
    """The processes of a run. Process 0 has a connection to each of the others, in their order; these have one, to process 0."""

    def __init__(self, process: int, processes: int, links: list[Connection], hosts: list[str]):
        self.process, self.processes, self.links, self.hosts = process, processes, links, hosts

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind, error, trace) -> None:
        """Process 0 tells the others that, and how, the run has ended; another one that fails tells process 0."""
        if self.process == 0:
            last = ("end", (exit_code(error), str(error) or type(error).__name__))
        else:
            last = None if error is None or isinstance(error, Ended) else ("failed", f"{str(error).splitlines()[0] if str(error) else type(error).__name__}")
        for link in self.links:
            try:
                if last:
                    link.send(last)
                end = time.monotonic() + LAST_WORDS
                while self.process == 0 and link.poll(max(0.0, end - time.monotonic())):
                    link.recv_bytes()  # a connection that is closed with an answer unread loses our last message
            except (OSError, EOFError):
                pass  # it is gone
            link.close()

    def tell(self, messages: list[Any]) -> None:
        """Process 0: one message for each of the others."""
        for number, (link, message) in enumerate(zip(self.links, messages, strict=True), 1):
            try:
                link.send(message)
            except OSError:
                raise self._gone(number) from None

    def hear(self) -> list[Any]:
        """Process 0: what each of the others answers, in their order. Raises Failure where one has failed, or is gone."""
        answers = []
        for number, link in enumerate(self.links, 1):
            try:
                kind, answer = link.recv()
            except (EOFError, OSError):
                raise self._gone(number) from None
            if kind == "failed":
                raise Failure(f"process {number} of {self.processes} on {self.hosts[number]}: {answer}")
            answers.append(answer)
        return answers

    def answer(self, content: Any) -> None:
        """Another process: what process 0 waits for."""
        try:
            self.links[0].send(("answer", content))
        except OSError:
            raise self._gone(0) from None

    def listen(self) -> tuple[str, tuple]:
        """Another process: the next (command, arguments). Raises Ended once the run has ended otherwise than by finishing."""
        try:
            command, arguments = self.links[0].recv()
        except (EOFError, OSError):
            raise self._gone(0) from None
        if command == "end" and arguments[0]:
            raise Ended(*arguments)
        return command, arguments

    def _gone(self, number: int) -> Failure:
        return Failure(f"process {number} of {self.processes} on {self.hosts[number]} is gone (killed, or its machine is)")


def exit_code(error: BaseException | None) -> int:
    """With which code the command ends after ``error`` (runners/cli.py)."""
    if error is None:
        return 0
    number = getattr(error, "number", None)  # of the signal that stopped a run
    return 128 + number if number else 130 if isinstance(error, KeyboardInterrupt) else 2 if isinstance(error, Refusal) else 1


def join(place: Place, config: Mapping[str, Any]) -> Group:
    """Meet the other processes of the run; must come before jax computes anything. Blocks until all are there, and ends this process where they are not
    within ``distributed.timeout`` seconds. Raises Failure where they cannot be (a port in use, jax at work already)."""
    import jax
    from jax._src import distributed as meeting  # its table of keys and values has no public name

    timeout = (without() | dict(config.get("distributed") or {}))["timeout"]
    said = f"process {place.process} of {place.processes}"
    print(f"{said}: waiting for the others at {place.coordinator or 'the address that the cluster tells'}", file=sys.stderr, flush=True)
    jax.config.update("jax_enable_preemption_service", False)  # the loop has its own handlers of signals
    hint = f"start all {place.processes} processes with the same command line; {ALONE}"

    def give_up() -> None:
        print(f"farlands: {said} did not meet the others within {timeout} s; {hint}", file=sys.stderr, flush=True)
        os._exit(1)  # jax would abort the process, with a stack of its own

    patience = threading.Timer(timeout, give_up)
    patience.start()
    try:
        jax.distributed.initialize(place.coordinator, place.processes, place.process, initialization_timeout=timeout + 60)
        try:
            return connected(place, meeting.global_state.client, timeout)
        finally:
            jax.distributed.shutdown()
    except (RuntimeError, ValueError, OSError, EOFError, AuthenticationError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        where = f" at {place.coordinator}" if place.coordinator else ""
        raise Failure(f"{said} cannot meet the others{where} ({reason}): is its port free? {hint}") from None
    finally:
        patience.cancel()


def connected(place: Place, board: Any, timeout: int) -> Group:
    """Connections between process 0 and all others; ``board`` is jax's table of keys and values, which all of them see."""
    if place.process:
        told = json.loads(board.blocking_key_value_get(PLACE, timeout * 1000))
        key = bytes.fromhex(told["key"])
        link = kept_alive(socket.create_connection((told["host"], told["port"]), timeout))
        answer_challenge(link, key)
        deliver_challenge(link, key)
        link.send((place.process, socket.gethostname()))
        return Group(place.process, place.processes, [link], [told["name"]])
    key, links = secrets.token_bytes(32), {}
    host = place.coordinator.rpartition(":")[0] if place.coordinator else socket.gethostname()
    with socket.create_server(("localhost" if host in ("localhost", "127.0.0.1") else "", 0), backlog=MOST) as server:
        server.settimeout(timeout)
        board.key_value_set(PLACE, json.dumps({"host": host, "port": server.getsockname()[1], "key": key.hex(), "name": socket.gethostname()}))
        while len(links) < place.processes - 1:
            link = kept_alive(server.accept()[0])
            try:
                deliver_challenge(link, key)
                answer_challenge(link, key)
                process, name = link.recv()
            except (AuthenticationError, OSError, EOFError):
                link.close()  # somebody else
                continue
            links[process] = link, name
    others = [links[process] for process in range(1, place.processes)]
    return Group(0, place.processes, [link for link, _ in others], [socket.gethostname(), *(name for _, name in others)])


def kept_alive(connection: socket.socket) -> Connection:
    """A connection with TCP's keep-alive, for machines that vanish; a process that ends, however, closes it at once."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 50_000)):
        if hasattr(socket, option):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return Connection(connection.detach())


def refuse_unequal(group: Group, config: Mapping[str, Any]) -> None:
    """Process 0 refuses to go on where another one has other settings, or another version of jaxlib."""
    from runners.rundir import decisive, differences, versions

    mine = {"config": decisive(config), "jaxlib": versions()["jaxlib"]}
    if group.process:
        group.answer(mine)
        return
    for number, theirs in enumerate(group.hear(), 1):
        differing = differences(mine["config"], theirs["config"]) or differences({"jaxlib": mine["jaxlib"]}, {"jaxlib": theirs["jaxlib"]})
        if differing:
            key, here, there = differing[0]
            where = f"process 0 has {key}={here!r}, process {number} on {group.hosts[number]} has {there!r}"
            raise Refusal(f"{where}: the processes of a run need the same command line; {ALONE}")


def leave_signals_to_process_0(say: Callable[[str], None]) -> None:
    """Another process goes on after a signal, which launchers send to all: process 0 saves, and ends it. A second one ends it at once."""
    heard = []

    def hear(number, frame) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)
        say(f"{signal.Signals(number).name}: process 0 decides when the run ends (again to end this process at once, and the run with it)")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, hear)
