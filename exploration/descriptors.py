"""What novelty is measured in: the world's own descriptor, or the code of pictures that an autoencoder has learnt (TAXONS)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Key, PyTree, Spec
from envs.builder import Refusal
from exploration.autoencoder import autoencoder
from exploration.grid_archive import descriptor_box


class Pictures(NamedTuple):
    """What a descriptor wants to see of an episode."""

    frames: int  # evenly spaced, the last one at the end
    pixels: int


class Describer(NamedTuple):
    width: int  # of a code
    pictures: Pictures | None
    init: Callable[[Key], PyTree]  # key -> model
    describe: Callable[[PyTree, jax.Array, PyTree], tuple[jax.Array, jax.Array]]  # (model, descriptor [N, d], outcome [N]) -> (code [N, width], surprise [N])
    train: Callable[[PyTree, Key, PyTree, jax.Array], PyTree] | None  # (model, key, outcome [N], known bool[N]) -> model; None: it never changes
    told: Callable[[PyTree], dict]  # model -> metrics


def ground_truth(spec: Spec) -> Describer:
    """The world's own."""

    def describe(model, descriptor, outcome):
        return descriptor, jnp.zeros(descriptor.shape[0], jnp.float32)

    return Describer(descriptor_box(spec).shape[0], None, lambda key: (), describe, None, lambda model: {})


def learnt(frames: int, pixels: int, latent: int, learning_rate: float | jax.Array, epochs: int, train: bool) -> Describer:
    """Codes of pictures. ``train=False``: those of a network as it was drawn (the ablation NT). Raises Refusal for sides that are no multiple of 16."""
    if pixels not in (16, 32, 64):
        raise Refusal(f"exploration.pixels={pixels} must be 16, 32 or 64: four convolutions halve the picture, and worlds draw 64 pixels")
    network = autoencoder(frames, pixels, latent, learning_rate, epochs)

    def told(model):
        return {"trainings": model.trained, "autoencoder_error": model.error}

    return Describer(
        frames * latent,
        Pictures(frames, pixels),
        network.init,
        lambda model, d, pictures: network.describe(model, pictures),
        network.train if train else None,
        told,
    )
