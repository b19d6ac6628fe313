"""The network of a policy without values: a torso whose output is also the agent's encoding, and a head whose first outputs are small."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
from gymnasium import spaces

from agents.networks import Torso, orthogonal


class Actor(nn.Module):
    """obs [B, ...] -> f32[B, size]."""

    space: spaces.Space
    hidden: Sequence[int]
    act: str
    encoder: str
    size: int

    def setup(self):
        self.torso = Torso(self.space, self.hidden, self.act, self.encoder)
        self.head = nn.Dense(self.size, kernel_init=orthogonal(0.1))

    def __call__(self, obs):
        return self.head(self.torso(obs))

    def encode(self, obs):
        return self.torso(obs)
