"""The estimate printed before compiling, against known sizes and against what the compiler reports afterwards."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from envs.builder import Refusal
from runners import memory
from tests.runners.tiny import TINY, batch_of

KIB = 1024


def peak(function, *shapes):
    return memory.peak_bytes(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).jaxpr)


def test_known_peaks():
    n = (256,)  # 1 KiB
    assert peak(lambda x: x + 1.0, n) == KIB  # the result takes the argument's place
    assert peak(lambda x, y: x * y, n, n) == 2 * KIB
    assert peak(lambda x: jnp.sum(jnp.outer(x, x)), n) >= 257 * KIB  # the outer product is alive while it is summed
    stacked = peak(lambda x: jax.lax.scan(lambda c, _: (c, c), x, None, length=10)[1], n)
    assert 11 * KIB <= stacked <= 14 * KIB  # ten stacked rows and the carry


def test_inner_programs_count_with_their_own_peak():
    def inside(x):
        return jax.lax.fori_loop(0, 3, lambda i, c: jnp.sum(jnp.outer(c, c), axis=1), x)

    assert peak(inside, (256,)) >= 257 * KIB


def test_estimate_is_near_what_the_compiler_reports():
    tiny = [o for o in TINY if not o.startswith(("env.", "runner."))]
    batch, _ = batch_of([*tiny, "env.size=20", "runner.lanes=16", "runner.rollout=64", "seeds=2"], "vmap")
    estimate = memory.peak_bytes(batch._traced_segment.jaxpr.jaxpr)
    reported = batch._run.memory_analysis()
    actual = reported.temp_size_in_bytes + reported.argument_size_in_bytes
    assert 0.5 < estimate / actual < 3.0


def test_a_run_that_does_not_fit_names_the_setting():
    with pytest.raises(Refusal, match="runner.lanes"):
        memory.refuse_if_too_large(2**60, members=4)


def test_sizes_are_readable():
    assert [memory.readable(x) for x in (100, 2048, 5 * 2**20, 3 * 2**31)] == ["100 B", "2.0 KiB", "5.0 MiB", "6.0 GiB"]
