"""What must be decided before jax is imported: devices, flags, caches. Only runs on host worlds import jax here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import zlib
from pathlib import Path

from envs.builder import Refusal

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "jax"


def on_cpu() -> bool:
    """Whether jax will run on the CPU (asked for, or no accelerator's plug-in is there)."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted:
        return wanted.split(",")[0] == "cpu"
    return not installed("jax-cuda", "jax-rocm", "libtpu", "jax-metal")


def installed(*beginnings: str) -> bool:
    """Whether a distribution whose name begins so is installed."""
    return any((d.metadata["Name"] or "").lower().startswith(beginnings) for d in importlib.metadata.distributions())


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """A name for this machine's kind of processor: compiled programs are not shared between kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        text = "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
    except OSError:
        text = platform.processor()
    return f"{platform.machine()}-{zlib.crc32(text.encode()):08x}"


def resolve_batching(batching: str, members: int) -> tuple[str, int]:
    """(batching, CPU devices): ``auto`` shards over the cores of a CPU; on accelerators, whose number only jax knows, it stays ``auto``."""
    if batching not in ("auto", "shard", "lanes") or not on_cpu():
        return batching, 1
    if batching == "lanes":
        return batching, cores()
    count = -(-members // -(-members // cores()))  # no more devices than make it faster
    return ("vmap" if count == 1 and batching == "auto" else "shard"), count


def prepare(devices: int, threads: int | None = None, inline: bool = False) -> None:
    """Set the environment for jax: CPU devices, the persistent compilation cache, and a cure for a hang. Refuses a GPU that jax cannot use.

    ``inline``: for worlds on the host. A CPU computes in the thread that asks, one operation after the other: handing an acting program to
    other threads, as XLA does by default, takes several times as long as the program.

    jaxlib 0.10 on a CPU with two cores never returns from some vmapped loops unless its concurrency-optimised scheduler is off.
    """
    asked = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    if asked in ("cuda", "gpu") and not installed("jax-cuda"):
        add = "add it with: FARLANDS_LOCK=requirements-cuda.lock scripts/farlands list (Linux, Python 3.12)"
        raise Refusal(f"JAX_PLATFORMS={asked} asks for an NVIDIA GPU, but jax's CUDA plug-in is not installed; {add}; or set JAX_PLATFORMS=cpu")
    flags = os.environ.get("XLA_FLAGS", "")
    if on_cpu():
        if devices > 1 and "xla_force_host_platform_device_count" not in flags:
            flags += f" --xla_force_host_platform_device_count={devices}"
        version = tuple(int(x) for x in importlib.metadata.version("jaxlib").split(".")[:2])
        if (inline or version >= (0, 10)) and "xla_cpu_enable_concurrency_optimized_scheduler" not in flags:
            flags += " --xla_cpu_enable_concurrency_optimized_scheduler=false"
        os.environ["XLA_FLAGS"] = flags.strip()
    if threads:
        os.environ.setdefault("NPROC", str(threads))  # how many threads XLA's CPU client may have
    # orthogonal initial weights come from LAPACK, whose waiting threads burn seconds on few cores
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / processor()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # a cached CPU program is reported, at error level, as built for another machine, for features that no machine has
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if inline and on_cpu():
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)  # there is no environment variable for it
