"""Information gain about the world's dynamics (MaxInfoRL: Sukhija et al., arXiv 2412.12098): what a step would tell an ensemble of models.

    I(s, a) = mean over outputs j of log(1 + var_j / sigma_j^2),    members predict (s' - s, r) from (s, a)

var is the population variance of the members' means, sigma the noise of the world: a constant (``noise``), or predicted by the members (null).
Inputs and outputs are in units of their running means and deviations, and so is I. It reads no successor and has gradients with respect to
observation and action, so a learner may also use it for actions never taken (``Signal.regulariser``, ``agent=max_info_sac``).

``predicts=random`` is MaxRND, the paper's second bonus: members predict a fixed random embedding of (s, a), so what they disagree about is what was not
seen, whatever the world does. That the embedding is of both, and its size, is chosen here.

As published: activation, rate, one update per batch, all members on the same samples (``share=1``), moments that stop forgetting at 1e6
samples, deviations of at least 1e-3. Departures: Adam in place of AdamW without decay. Pixels are refused; the published code predicts features of
its own encoder, which ``input=latent`` comes close to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.networks import ACTIVATIONS, MLP, encoder_kind
from agents.normalizers import Moments, moments_update
from envs.base import PyTree, Spec, Transition
from envs.builder import FRACTION, POSITIVE, Choice, Integer, Optional, Refusal, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.encoders import action_floats, action_width
from exploration.ensembles import ensemble, own_losses, shares, spread
from exploration.laws.data import require
from exploration.laws.play import expect
from exploration.learning import ADAM, fit, flat_floats, flat_width, flatten_lead
from exploration.normalizers import lead_ndim, moments

FLOOR = 1e-3  # of deviations
SAMPLES = 1e6  # that moments count at most
NOISE = (1e-3, 1e2)  # range of a predicted sigma


class InformationGainState(NamedTuple):
    params: PyTree  # [members, ...]
    optimizer: PyTree  # Adam moments of params
    inputs: Moments  # f32[observation + action]
    outputs: Moments  # f32[what is predicted]
    embedding: PyTree  # of the random network; () where dynamics are predicted


def information(means: jax.Array, sigmas: jax.Array | float) -> jax.Array:
    """mean_j log(1 + var_j / sigma_j^2) f32[...] of members' means f32[members, ..., k]; the noise is the mean of their sigma^2."""
    noise = jnp.mean(jnp.square(jnp.broadcast_to(sigmas, means.shape)), axis=0)
    return jnp.mean(jnp.log1p(spread(means) / noise), axis=-1)


def standardized(seen: Moments, x: jax.Array) -> jax.Array:
    return (x - seen.mean) / jnp.maximum(jnp.sqrt(seen.var), FLOOR)


def seen_more(seen: Moments, x: jax.Array) -> Moments:
    new = moments_update(seen, x)
    return new._replace(count=jnp.minimum(new.count, SAMPLES))


@options(
    predicts=Choice(("dynamics", "random")),
    embedding=Integer(1),
    members=Integer(2),
    hidden=Sizes(),
    activation=Choice(tuple(ACTIVATIONS)),
    noise=Optional(POSITIVE),
    share=FRACTION,
    learning_rate=POSITIVE,
    minibatches=Integer(1),
    epochs=Integer(1),
)
def information_gain(
    spec: Spec,
    *,
    predicts: str = "dynamics",
    embedding: int = 64,
    members: int = 5,
    hidden: Sequence[int] = (256, 256),
    activation: str = "silu",
    noise: float | None = 1e-3,
    share: float = 1.0,
    learning_rate: float = 3e-4,
    minibatches: int = 1,
    epochs: int = 1,
) -> Bonus:
    """log(1 + disagreement / noise) of an ensemble of dynamics models.

    Args:
      predicts: "dynamics", or "random", a fixed random network of observation and action.
      embedding: outputs of that network.
      members: size of the ensemble.
      hidden, activation: of each member.
      noise: standard deviation of the world's noise, in units of each output's deviation; None: the members predict it.
      share: of the samples of a batch that each member learns from, drawn for each member apart.
      learning_rate, minibatches, epochs: Adam over every batch.

    Raises Refusal for pixels and for actions that are neither Discrete nor Box.
    """
    if not isinstance(spec.action, (spaces.Discrete, spaces.Box)):
        raise Refusal(f"information_gain predicts what Discrete or Box actions do, not {type(spec.action).__name__}; try exploration=rnd, which reads none")
    fixed = predicts == "random"
    if encoder_kind(spec.observation) == "cnn":
        raise Refusal("it predicts every number of an observation, and these are pixels; use exploration.input=latent or exploration=disagreement")
    inside = flat_width(spec.observation) + action_width(spec)
    outside = embedding if fixed else flat_width(spec.observation) + 1
    random = MLP(tuple(hidden), activation, embedding)
    network = MLP(tuple(hidden), activation, outside if noise is not None else 2 * outside)
    models = ensemble(lambda key: network.init(key, jnp.zeros((1, inside))), network.apply, members)

    def init(key):
        params = models.init(key)
        drawn = random.init(jax.random.fold_in(key, 1), jnp.zeros((1, inside))) if fixed else ()
        return InformationGainState(params, ADAM.init(params), moments(jnp.zeros(inside)), moments(jnp.zeros(outside)), drawn)

    def inputs_of(obs, action):
        return jnp.concatenate([flat_floats(spec.observation, obs), action_floats(spec, action)], axis=-1)

    def predictions(params, x):
        """(means, sigmas), both f32[members, ..., k] in units of the outputs' deviations."""
        if noise is not None:
            return models.predict(params, x), noise
        means, sigmas = jnp.split(models.predict(params, x), 2, axis=-1)
        return means, jnp.clip(jax.nn.softplus(sigmas), *NOISE)

    def score(state, transition):
        return information(*predictions(state.params, standardized(state.inputs, inputs_of(transition.obs, transition.action))))

    def loss(params, data, key):
        x, wanted, kept = data
        means, sigmas = predictions(params, x)
        errors = jnp.square(means - wanted)
        found = {"model_loss": jnp.mean(own_losses(jnp.mean(errors, axis=-1), kept))}
        if noise is None:
            errors = 0.5 * errors / jnp.square(sigmas) + jnp.log(sigmas)
            found["model_noise"] = jnp.mean(sigmas)
        return jnp.sum(own_losses(jnp.mean(errors, axis=-1), kept)), found

    def update(state, key, inputs):
        batch, _ = inputs
        lead = lead_ndim(spec.observation, batch.obs)
        obs, action = flatten_lead((batch.obs, batch.action), lead)
        x = inputs_of(obs, action)
        state = state._replace(inputs=seen_more(state.inputs, x))
        x = standardized(state.inputs, x)
        if fixed:
            wanted = random.apply(state.embedding, x)
        else:
            next_obs, reward = flatten_lead((batch.next_obs, batch.reward), lead)
            change = flat_floats(spec.observation, next_obs) - flat_floats(spec.observation, obs)
            wanted = jnp.concatenate([change, reward[:, None]], axis=-1)
        state = state._replace(outputs=seen_more(state.outputs, wanted))
        fit_key, share_key = jax.random.split(key)
        data = (x, standardized(state.outputs, wanted), shares(share_key, x.shape[0], members, share))
        params, optimizer, metrics = fit(
            fit_key, state.params, state.optimizer, data, loss, learning_rate=learning_rate, minibatches=minibatches, epochs=epochs
        )
        return state._replace(params=params, optimizer=optimizer), metrics

    info = BonusInfo(needs=("obs", "action"), learns_from=() if fixed else ("next_obs", "reward"), scored="batch", differentiable=True)
    return bonus(init=init, score=score, update=update, info=info)


# --- known answers -----------------------------------------------------------------------------------------------------


def _log_of_the_ratio() -> str:
    """Two members at a distance of twice the deviation."""
    found = [information(jnp.asarray([[-d], [d]]), 1e-3)[()] for d in (0.0, 1e-3, 1e-2, 1e-1, 1.0)]
    return expect(jnp.stack(found), np.log1p(np.square([0.0, 1.0, 10.0, 100.0, 1000.0])), rtol=1e-4)


def _learnt(wanted, low: float, high: float, noise: float | None = 1e-3):
    """(bonus, state before, state after 800 batches of 64, last metrics): changes and rewards are ``wanted(place, key)``, places uniform."""
    world = Spec(spaces.Box(-np.inf, np.inf, (1,), np.float32), spaces.Discrete(1), "curve")
    made = information_gain(world, hidden=(32, 32), noise=noise, learning_rate=2e-3)

    @jax.jit
    def run(key):
        def learn(state, key):
            place = jax.random.uniform(key, (64,), minval=low, maxval=high)
            change, reward = wanted(place, key)
            return made.update(state, key, (_steps(place)._replace(next_obs=(place + change)[:, None], reward=reward), {}))

        first = made.init(key)
        return first, *jax.lax.scan(learn, first, jax.random.split(key, 800))

    first, last, metrics = run(jax.random.PRNGKey(0))
    return made, first, last, jax.tree.map(lambda x: float(jnp.mean(x[-50:])), metrics)


def _steps(place: jax.Array) -> Transition:
    no = jnp.zeros(place.shape, bool)
    return Transition(place[:, None], no.astype(jnp.int32), no.astype(jnp.float32), place[:, None], no, no, no, {})


def _more_outside() -> str:
    made, _, state, _ = _learnt(lambda x, key: (jnp.sin(6.0 * x), jnp.cos(6.0 * x)), 0.0, 1.0)
    outside, inside = (float(jnp.mean(made.score(state, _steps(jnp.linspace(*ends, 50))))) for ends in ((1.5, 2.5), (0.1, 0.9)))
    told = f"{outside:.3g} outside the data, {inside:.3g} inside"
    require(outside > inside + 1.0, told)
    return told


def _a_noisy_tv_wears_off() -> str:
    noisy = lambda x, key: (jax.random.normal(key, x.shape), 0.0 * x)  # noqa: E731
    (fixed, first, last, _), (told_apart, _, state, metrics) = (_learnt(noisy, 0.0, 0.0, noise) for noise in (1e-3, None))
    still = _steps(jnp.zeros(1))
    before, after, apart = (float(made.score(s, still)[0]) for made, s in ((fixed, first), (fixed, last), (told_apart, state)))
    told = f"{before:.3g} at first, {after:.3g} at last; with predicted noise {apart:.3g}, of which the mean is {metrics['model_noise']:.3g}"
    require(before > 1.0 and max(after, apart) < 0.1 * before and abs(metrics["model_noise"] - 0.5) < 0.05, told)
    return told


KNOWN_ANSWERS = (
    ("identical members: 0; deviations of 1, 10, 100 and 1000 times the noise: log(1 + ratio^2) = 0.693, 4.615, 9.210, 13.816", _log_of_the_ratio),
    ("a curve learnt on an interval: the gain outside exceeds that inside by more than 1", _more_outside),
    ("a successor that is noise: the gain falls to a tenth; members that predict the noise find 1 for it and 0 for the reward", _a_noisy_tv_wears_off),
)
