"""Networks against flax's own."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.networks import BlockConv

pytestmark = pytest.mark.medium  # a few programs to compile


@pytest.mark.parametrize(("side", "channels", "kernel", "stride"), [(36, 3, 8, 4), (39, 1, 8, 4), (20, 5, 4, 2), (9, 4, 3, 1), (12, 2, 3, 2), (9, 2, 3, 2)])
def test_block_convolutions_are_convolutions(side, channels, kernel, stride):
    """Values and gradients, also where the last rows and columns are left out."""
    ours, theirs = BlockConv(6, kernel, stride), nn.Conv(6, (kernel, kernel), (stride, stride), padding="VALID")
    x = jax.random.normal(jax.random.PRNGKey(0), (3, side, side + 1, channels))
    params = ours.init(jax.random.PRNGKey(1), x)
    params = jax.tree.map(lambda p: p + 0.1, params)  # a bias that is not zero

    def both(net):
        return jax.value_and_grad(lambda p, x: jnp.sum(jnp.sin(net.apply(p, x))), argnums=(0, 1))(params, x)

    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), rtol=1e-4, atol=1e-4)
    for a, b in zip(jax.tree.leaves(both(ours)), jax.tree.leaves(both(theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
