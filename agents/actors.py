"""The network of a policy without values: a torso whose output is also the agent's encoding, and a head whose first outputs are small."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
from gymnasium import spaces

from agents.networks import Projection, Torso, orthogonal


class Actor(nn.Module):
    """obs [B, ...] -> f32[B, size]. With ``latent`` it is given features f32[B, n] of a shared encoder, and projects them to so many numbers first."""

    space: spaces.Space
    hidden: Sequence[int]
    act: str
    encoder: str
    size: int
    latent: int | None = None

    def setup(self):
        self.torso = Torso(self.space, self.hidden, self.act, self.encoder if self.latent is None else "mlp")
        self.projection = Projection(self.latent) if self.latent is not None else None
        self.head = nn.Dense(self.size, kernel_init=orthogonal(0.1))

    def __call__(self, obs):
        return self.head(self.encode(obs))

    def encode(self, obs):
        return self.torso(obs if self.projection is None else self.projection(obs))
