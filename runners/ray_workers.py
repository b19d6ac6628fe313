"""Workers of ``runners/explorers.py`` as actors of a Ray cluster: ``runner.cluster=local`` starts one here, ``auto`` or an address uses one that is there.

Ray forks when it starts a cluster, which hangs processes that run jax's threads. So a process of its own starts it, in a session of its own, where
Ctrl-C does not reach it, and ends it when this one is gone. An actor is asked for one core. The machines of a cluster need this
checkout and its environment, as for ``hydra/launcher=ray``.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import socket
import subprocess
import sys
from typing import Any

import cloudpickle

from envs.builder import Failure, Refusal
from runners.explorers import Crew, Job, Lost, Recipe, answered

PATIENCE = 30.0  # seconds until a worker has found a core
LOCK = ".venv/bin/python -m pip install -c requirements.lock -r requirements-ray.lock"
KEEPER = """
import sys, ray
found = ray.init("local", num_cpus=int(sys.argv[1]), include_dashboard=False, log_to_driver=False)
print("ADDRESS", found.address_info["gcs_address"], flush=True)
sys.stdin.read()
ray.shutdown()
"""  # ends at the end of its input


class Roller:
    """A worker: its world is made for its first job."""

    def __init__(self, recipe: bytes):
        self.recipe, self.world = cloudpickle.loads(recipe), None

    def answer(self, job: Job) -> tuple[bool, Any]:
        self.world, answer = answered(self.world, self.recipe, job)
        return answer

    def process(self) -> int:
        return os.getpid()


def end(keeper: subprocess.Popen | None) -> None:
    if keeper:
        keeper.stdin.close()
        keeper.stdout.close()
        keeper.wait(60)


def installed() -> None:
    """Raises Refusal where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise Refusal(f"runner.cluster needs the package 'ray', which is not installed; add it with: {LOCK}")


def ray_workers(recipe: Recipe, cluster: str, number: int | None, cores: int) -> tuple[Crew, int]:
    """(the crew, the number of workers: as many as asked for, else as the cluster has cores). ``cores``: of a cluster that is started here.
    Raises Failure where no cluster answers."""
    if cluster == "local":  # it listens to nobody but this run; ray looks at these when it is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    keeper = None
    try:
        if cluster == "local":
            keeper = subprocess.Popen(
                [sys.executable, "-c", KEEPER, str(number or cores)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
            )  # fmt: skip
            lines = iter(keeper.stdout.readline, "")
            address = next((line.split()[1] for line in lines if line.startswith("ADDRESS ")), "")
        host, _, port = cluster.rpartition(":")
        if host and port.isdecimal() and "/" not in host:
            socket.create_connection((host, int(port)), 5).close()  # ray itself waits for minutes
        ray.init(address if keeper else cluster, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:  # ray raises what it meets
        end(keeper)
        said = str(error).strip().splitlines()
        raise Failure(f"runner.cluster={cluster}: no Ray cluster answers ({type(error).__name__}: {said[0] if said else ''})") from None
    actor, pickled = ray.remote(num_cpus=1, max_restarts=0)(Roller), cloudpickle.dumps(recipe)

    def start():
        made = actor.remote(pickled)
        return {"actor": made, "up": made.process.remote(), "answer": None}

    def there(worker):  # a cluster that has lost a machine, or that others use, may have no core for it
        if ray.wait([worker["up"]], timeout=PATIENCE)[0]:
            return True
        ray.kill(worker["actor"])
        return False

    def give(worker, job):
        worker["answer"] = worker["actor"].answer.remote(job)

    def ready(workers):
        done = set(ray.wait([worker["answer"] for worker in workers], num_returns=1)[0])
        return [place for place, worker in enumerate(workers) if worker["answer"] in done]

    def take(worker):
        try:
            return ray.get(worker["answer"])
        except ray.exceptions.RayActorError:
            raise Lost from None

    def close(workers):
        for worker in workers:
            ray.kill(worker["actor"])
        ray.shutdown()
        end(keeper)

    return Crew(start, there, give, ready, take, lambda worker: None, close), number or int(ray.cluster_resources().get("CPU", 1))
