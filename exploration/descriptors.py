"""What novelty is measured in: the world's own descriptor, the code of pictures that an autoencoder has learnt (TAXONS), or the signature of a path."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from envs.base import Key, PyTree, Spec
from envs.builder import Refusal
from exploration.autoencoder import autoencoder
from exploration.grid_archive import descriptor_box
from exploration.watching import pictures, signature, size_of

MOST = 4096  # numbers of a signature


class Describer(NamedTuple):
    width: int  # of a code
    watch: Callable | None  # (Environment, limit) -> Watcher: what of an episode is kept as its outcome; None: nothing
    outcome: jax.ShapeDtypeStruct | None  # of one episode
    init: Callable[[Key], PyTree]  # key -> model
    describe: Callable[[PyTree, jax.Array, PyTree], tuple[jax.Array, jax.Array]]  # (model, descriptor [N, d], outcome [N]) -> (code [N, width], surprise [N])
    train: Callable[[PyTree, Key, PyTree, jax.Array], PyTree] | None  # (model, key, outcome [N], known bool[N]) -> model; None: it never changes
    told: Callable[[PyTree], dict]  # model -> metrics


def ground_truth(spec: Spec) -> Describer:
    """The world's own."""

    def describe(model, descriptor, outcome):
        return descriptor, jnp.zeros(descriptor.shape[0], jnp.float32)

    return Describer(descriptor_box(spec).shape[0], None, None, lambda key: (), describe, None, lambda model: {})


def learnt(frames: int, pixels: int, latent: int, learning_rate: float | jax.Array, epochs: int, train: bool) -> Describer:
    """Codes of pictures. ``train=False``: those of a network as it was drawn (the ablation NT). Raises Refusal for sides that are no multiple of 16."""
    if pixels not in (16, 32, 64):
        raise Refusal(f"exploration.pixels={pixels} must be 16, 32 or 64: four convolutions halve the picture, and worlds draw 64 pixels")
    network = autoencoder(frames, pixels, latent, learning_rate, epochs)

    def describe(model, descriptor, outcome):
        return network.describe(model, outcome)

    def told(model):
        return {"trainings": model.trained, "autoencoder_error": model.error}

    outcome = jax.ShapeDtypeStruct((frames, pixels, pixels, 3), jnp.uint8)
    return Describer(frames * latent, pictures(frames, pixels), outcome, network.init, describe, network.train if train else None, told)


def of_path(spec: Spec, order: int, time: bool) -> Describer:
    """Signatures of the path of observations. Raises Refusal where they have more than ``MOST`` numbers, or observations are no Box."""
    if not isinstance(spec.observation, spaces.Box):
        raise Refusal(f"exploration.descriptor=signature needs observations that are a Box; those of {spec.name!r} are {type(spec.observation).__name__}")
    width = size_of(math.prod(spec.observation.shape) + time, order)
    if width > MOST:
        raise Refusal(f"exploration.order={order} makes a signature of {width:,} numbers; at most {MOST:,} are kept: give a lower order")

    def describe(model, descriptor, outcome):
        return outcome, jnp.zeros(outcome.shape[0], jnp.float32)

    outcome = jax.ShapeDtypeStruct((width,), jnp.float32)
    return Describer(width, signature(order, time), outcome, lambda key: (), describe, None, lambda model: {})
