"""What every test starts from: this checkout first on the path, two CPU devices, a compilation cache of its own, strict dtypes."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runners import devices  # noqa: E402

assert "jax" not in sys.modules, "jax reads its environment once, when it is imported"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "tests" / devices.processor()))
devices.prepare(2)

import jax  # noqa: E402
import optax  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")  # mixing dtypes by accident is an error here, not a slow or wide program later


def _foreign(function):
    """``function`` of another library, under JAX's default rules."""

    def called(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return called


optax.tree.bias_correction = _foreign(optax.tree.bias_correction)  # Adam's 1 - decay**count, float and int32


def pytest_configure(config):
    # two workers may read and write one entry of the cache at once; the reader then compiles for itself
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache:UserWarning")
