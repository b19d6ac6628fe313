"""The laws compile hundreds of tiny programs and run each a few times: they are compiled quickly rather than well. See also ``data.quick``."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
