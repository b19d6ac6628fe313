"""What every test starts from: this checkout first on the path, two CPU devices, a compilation cache of its own."""

import gc
import importlib.metadata
import itertools
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runners import devices  # noqa: E402

assert "jax" not in sys.modules, "jax reads its environment once, when it is imported"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "tests" / devices.processor()))
if importlib.metadata.version("jaxlib").startswith("0.9."):  # XLA ends a process for a flag that it does not know
    # most of the suite's time is XLA's compiler: without optimisations it needs half of it
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
devices.prepare(2)


@pytest.fixture(scope="session")
def draws():
    """Skips what needs MuJoCo's pictures where there are none."""
    from envs.builder import Refusal
    from envs.dm_control import check_drawing, imported

    try:
        imported()
        check_drawing()
    except Refusal as error:
        pytest.skip(str(error))


def pytest_configure(config):
    # two workers may read and write one entry of the cache at once; the reader then compiles for itself
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache:UserWarning")


MAPS = Path("/proc/self/maps")  # Linux allows a process 65,530 mappings; a program that jax has compiled and still knows takes three, and the next is a crash
EVERY, MOST = 25, 25_000  # tests between two looks, mappings
finished = itertools.count(1)


def pytest_runtest_logfinish():
    if next(finished) % EVERY == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST:
        import jax

        jax.clear_caches()
        gc.collect()


def long_ones() -> list[str]:
    """Beginnings of names of tests that only ``scripts/test --all`` runs."""
    lines = (ROOT / "tests" / "slow.txt").read_text().splitlines()
    return [line.partition("  #")[0] for line in lines if not line.startswith("#")]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    beginnings = tuple(long_ones())
    for item in items:
        if item.nodeid.startswith(beginnings):
            item.add_marker(pytest.mark.slow)
