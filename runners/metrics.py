"""Metrics inside compiled code: scalars that know how to be combined over iterations, and their way to the host."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Mean(NamedTuple):
    """A mean over a segment: sums of the values and of their weights. No weight, no value (null in metrics.jsonl)."""

    total: jax.Array
    weight: jax.Array


class Last(NamedTuple):
    """The newest value; null while it is not ``known``."""

    value: jax.Array
    known: jax.Array | bool = True


class Max(NamedTuple):
    """The largest value seen in the segment."""

    value: jax.Array


KINDS = (Mean, Last, Max)


def mean(values: jax.Array, where: jax.Array | None = None) -> Mean:
    """Mean of an array, or of its entries where a mask holds."""
    values = values.astype(jnp.float32)
    if where is None:
        return Mean(jnp.mean(values), jnp.float32(1.0))
    return Mean(jnp.sum(jnp.where(where, values, 0.0)), jnp.sum(where.astype(jnp.float32)))


def typed(metrics: dict[str, Any]) -> dict[str, Any]:
    """Plain scalars become ``Mean`` over the segment."""
    made = {name: value if isinstance(value, KINDS) else mean(jnp.asarray(value)) for name, value in metrics.items()}
    return jax.tree.map(jnp.asarray, made)


def is_metric(x: Any) -> bool:
    return isinstance(x, KINDS)


def empty(shapes: dict[str, Any]) -> dict[str, Any]:
    """The neutral element for metrics of the given shapes (from ``jax.eval_shape``), as new numpy arrays: asking jax for a
    hundred small arrays takes longer than a short segment."""

    def neutral(metric):
        if isinstance(metric, Max):
            return Max(np.full(metric.value.shape, -np.inf, metric.value.dtype))
        return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), metric)

    return {name: neutral(metric) for name, metric in shapes.items()}


def combine(so_far: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    def join(a, b):
        if isinstance(a, Mean):
            return Mean(a.total + b.total, a.weight + b.weight)
        return Max(jnp.maximum(a.value, b.value)) if isinstance(a, Max) else b

    return {name: join(so_far[name], new[name]) for name in so_far}


def to_host(metrics: dict[str, Any], member: int) -> dict[str, float | int | None]:
    """One member's metrics as Python numbers; None where there was nothing to average, or where it is not finite (JSON has
    no such numbers)."""

    def number(metric):
        if isinstance(metric, Mean):
            weight = float(metric.weight[member])
            value = float(metric.total[member]) / weight if weight else math.nan
        elif isinstance(metric, Last) and not metric.known[member]:
            return None
        else:
            value = np.asarray(metric.value)[member].item()
        return value if math.isfinite(value) else None

    return {name: number(metric) for name, metric in metrics.items()}
