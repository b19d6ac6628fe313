"""BYOL-Explore in one step (after Guo et al. 2022, arXiv 2206.08332): the error of predicting a slow copy's embedding of the next observation.

    p = normalised h(f(s), a),   t = normalised f_slow(s'),    b = loss = ||p - t||^2 = 2 - 2 cos(p, t)
    f_slow <- decay f_slow + (1 - decay) f      after each update

There is one loss and no inverse model: f, which turns observations into embeddings, learns from the prediction itself. Its target f_slow is
given no gradient and follows it slowly, which keeps both from collapsing.

Left out of the paper: the recurrent network over the history, prediction over several steps ahead in open loop, the sharing of the encoder
with the agent, and the clipping from below that pays only the largest errors. Ours: decay, widths and learning rate, and a predictor that
is dense and sees one observation. What is left is the principle: bootstrapped latent prediction as a bonus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from agents.networks import dummy
from envs.base import PyTree, Spec
from envs.builder import FRACTION, POSITIVE, Integer, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.dynamics import forward_model
from exploration.icm import cube
from exploration.laws.data import require
from exploration.laws.play import expect
from exploration.learning import ADAM, Embedder, fit, flatten_lead, float_space, to_floats
from exploration.normalizers import lead_ndim


class BYOLState(NamedTuple):
    params: PyTree  # {"encoder": f, "predictor": h}
    slow: PyTree  # of f_slow
    optimizer: PyTree  # Adam moments of params


def cosine_error(predicted: jax.Array, wanted: jax.Array) -> jax.Array:
    """f32[..., k] twice -> squared distance of the two scaled to length 1, f32[...]: 0 same direction, 2 at right angles, 4 opposite."""

    def unit(x):
        return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)

    return jnp.sum(jnp.square(unit(predicted) - unit(wanted)), axis=-1)


@options(
    hidden=Sizes(),
    embedding=Integer(1),
    decay=FRACTION,
    learning_rate=POSITIVE,
    minibatches=Integer(1),
    epochs=Integer(1),
)
def byol_explore(
    spec: Spec,
    *,
    hidden: Sequence[int] = (128,),
    embedding: int = 64,
    decay: float = 0.99,
    learning_rate: float = 1e-3,
    minibatches: int = 4,
    epochs: int = 1,
) -> Bonus:
    """Error of one step of bootstrapped latent prediction.

    Args:
      hidden: widths of the dense layers of encoder and predictor.
      embedding: number of features.
      decay: share of itself that the slow encoder keeps at each update.
      learning_rate, minibatches, epochs: Adam over every batch.
    """
    space = float_space(spec.observation)
    network, forward = Embedder(space, tuple(hidden), embedding), forward_model(spec, hidden, embedding, "byol_explore")

    def encode(params, obs):
        return network.apply(params, to_floats(spec.observation, obs))

    def init(key):
        encoder_key, forward_key = jax.random.split(key)
        params = {"encoder": network.init(encoder_key, dummy(space)), "predictor": forward.init(forward_key)}
        return BYOLState(params, params["encoder"], ADAM.init(params))

    def error(params, slow, obs, next_obs, action):
        predicted = forward.predict(params["predictor"], encode(params["encoder"], obs), action)
        return cosine_error(predicted, jax.lax.stop_gradient(encode(slow, next_obs)))

    def score(state, transition):
        return jax.lax.stop_gradient(error(state.params, state.slow, transition.obs, transition.next_obs, transition.action))

    def update(state, key, inputs):
        batch, _ = inputs
        data = flatten_lead((batch.obs, batch.next_obs, batch.action), lead_ndim(spec.observation, batch.next_obs))

        def loss(params, data, key):
            mean = jnp.mean(error(params, state.slow, *data))
            return mean, {"prediction_loss": mean}

        params, optimizer, metrics = fit(
            key, state.params, state.optimizer, data, loss, learning_rate=learning_rate, minibatches=minibatches, epochs=epochs
        )
        slow = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.slow, params["encoder"])
        features = jax.lax.stop_gradient(encode(slow, batch.next_obs)).reshape(-1, embedding)
        metrics["feature_deviation"] = jnp.mean(jnp.std(features, axis=0))  # 0: collapsed
        return BYOLState(params, slow, optimizer), metrics

    info = BonusInfo(needs=("obs", "next_obs", "action"), scored="batch")
    return bonus(init=init, score=score, update=update, info=info)


# --- known answers -----------------------------------------------------------------------------------------------------


def _directions() -> str:
    predicted, wanted = jnp.asarray([[2.0, 0.0]] * 4), jnp.asarray([[5.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [3.0, 4.0]])
    same, *rest = cosine_error(predicted, wanted)
    require(float(same) < 1e-10, f"the same direction pays {float(same):.3g}")
    return expect(jnp.stack(rest), [2.0, 4.0, 0.8], rtol=1e-5)


def _what_can_be_predicted_pays_nothing() -> str:
    spec, steps = cube()
    made = byol_explore(spec, hidden=(32,), embedding=8, minibatches=1, learning_rate=3e-3)
    first = made.init(jax.random.PRNGKey(0))
    learn = jax.jit(lambda state: jax.lax.scan(lambda s, n: made.update(s, jax.random.PRNGKey(n), (steps, {})), state, jnp.arange(600)))
    after, metrics = learn(first)
    other = steps._replace(next_obs=steps.obs)  # nothing moves, whatever the action
    before, learnt, odd = (float(jnp.mean(made.score(s, t))) for s, t in ((first, steps), (after, steps), (after, other)))
    told = f"{before:.3g} at first, then {learnt:.3g}; steps that do not move {odd:.3g}; features deviate by {float(metrics['feature_deviation'][-1]):.3g}"
    require(learnt < 0.02 * before and odd > 10 * learnt and float(metrics["feature_deviation"][-1]) > 0.1, told)
    return told


KNOWN_ANSWERS = (
    ("(2,0) predicted for (5,0), (0,3), (-1,0), (3,4): 0, 2, 4, 0.8", _directions),
    ("after 600 updates a deterministic world pays below 2 % of what it did, other outcomes 10 times as much, and the features have not collapsed",
     _what_can_be_predicted_pays_nothing),
)
