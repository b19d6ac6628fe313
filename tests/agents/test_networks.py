"""Networks against flax's own."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.networks import MLP, BlockConv, Torso

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


@pytest.mark.parametrize("start", [0, 3])
def test_a_row_of_the_first_layer_is_the_product_with_the_one_hot_vector(start):
    """Torso on Discrete: outputs equal those of the written out vector, gradients within rounding; parameters have the same names and shapes."""
    space = spaces.Discrete(7, start=start)
    obs = jnp.array([[0, 6], [2, 2]]) + start
    rows, written = Torso(space, (5, 4)), MLP((5, 4))
    params = rows.init(jax.random.key(0), obs)
    inner = {"params": params["params"]["MLP_0"]}
    onehot = jax.nn.one_hot(obs - start, 7)
    np.testing.assert_array_equal(rows.apply(params, obs), written.apply(inner, onehot))
    there = jax.grad(lambda p: jnp.sum(rows.apply(p, obs) ** 2))(params)["params"]["MLP_0"]
    here = jax.grad(lambda p: jnp.sum(written.apply(p, onehot) ** 2))(inner)["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), there, here)
    assert np.all(there["Dense_0"]["kernel"][1] == 0) and np.any(there["Dense_0"]["kernel"][2] != 0)
