"""Intrinsic curiosity module (Pathak et al. 2017, arXiv 1705.05363): the error of a forward model in feature space.

    b = eta/2 ||f(phi(s), a) - phi(s')||^2,      loss = (1 - beta) L_inverse + beta L_forward

``encoder="inverse"`` learns phi by telling the action from phi(s) and phi(s'), so that phi need not hold what no action changes.
``encoder="random"`` leaves phi as it was initialised: the random features of Burda et al. 2018 (arXiv 1808.04355), where the loss is
L_forward alone. L_forward is 1/2 ||.||^2, as in the authors' code, where it is half of 288 features times their mean square.

Departures. The authors' code multiplies the loss by 10, which Adam does not notice. Dense layers but for pixels, ReLU, one hidden layer in the
forward model where large-scale curiosity has four residual blocks; observations are not normalised (codes and pixels enter
divided by their largest value), which is why the stream normalises the rewards unless told otherwise. The bonus is paid on every
step, the last of an episode included; whether its returns go on after it is the stream's ``episodic``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import PyTree, Spec, Transition
from envs.builder import FLAG, FRACTION, POSITIVE, Integer, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.dynamics import dynamics
from exploration.encoders import KINDS
from exploration.laws.data import assert_equal, require
from exploration.laws.play import expect
from exploration.learning import ADAM, fit, flatten_lead
from exploration.normalizers import lead_ndim


class ICMState(NamedTuple):
    params: PyTree  # {"features": ..., "forward": ...}
    optimizer: PyTree  # Adam moments of params


@options(
    encoder=KINDS,
    hidden=Sizes(),
    embedding=Integer(1),
    eta=POSITIVE,
    beta=FRACTION,
    joint=FLAG,
    learning_rate=POSITIVE,
    minibatches=Integer(1),
    epochs=Integer(1),
)
def icm(
    spec: Spec,
    *,
    encoder: str = "inverse",
    hidden: Sequence[int] = (128,),
    embedding: int = 64,
    eta: float = 1.0,
    beta: float = 0.2,
    joint: bool = True,
    learning_rate: float = 1e-3,
    minibatches: int = 4,
    epochs: int = 1,
) -> Bonus:
    """Forward error in feature space.

    Args:
      encoder: "inverse" trains the features to predict the action; "random" leaves them alone.
      hidden: widths of the dense layers of encoder, inverse model and forward model.
      embedding: number of features.
      eta: size of the bonus; a stream that normalises its rewards divides it out again.
      beta: weight of the forward loss, 1 - beta that of the inverse loss; for encoder="inverse".
      joint: whether the forward loss trains the inverse features too.
      learning_rate, minibatches, epochs: Adam over every batch.
    """
    model = dynamics(spec, encoder, hidden, embedding, joint=joint, name="icm")

    def init(key):
        params = model.init(key)
        return ICMState(params, ADAM.init(params))

    def score(state, transition):
        error = model.error(state.params, transition.obs, transition.next_obs, transition.action)
        return jax.lax.stop_gradient(eta / 2 * error)

    def loss(params, data, key):
        found = model.losses(params, *data)
        inverse = found.get("inverse_loss")
        return found["forward_loss"] if inverse is None else (1 - beta) * inverse + beta * found["forward_loss"], found

    def update(state, key, inputs):
        batch, _ = inputs
        data = flatten_lead((batch.obs, batch.next_obs, batch.action), lead_ndim(spec.observation, batch.next_obs))
        fitted = fit(key, state.params, state.optimizer, data, loss, learning_rate=learning_rate, minibatches=minibatches, epochs=epochs)
        return ICMState(*fitted[:2]), fitted[2]

    info = BonusInfo(needs=("obs", "next_obs", "action"), scored="batch")
    return bonus(init=init, score=score, update=update, info=info)


# --- known answers -----------------------------------------------------------------------------------------------------


def cube() -> tuple[Spec, Transition]:
    """A world of eight corners in which action n turns the n-th coordinate, and all 24 steps in it."""
    corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3).astype(np.float32)
    obs, action = np.repeat(corners, 3, axis=0), np.tile(np.arange(3), 8)
    after = np.where(np.arange(3) == action[:, None], -obs, obs)
    no = np.zeros(len(obs), bool)
    steps = Transition(obs, action.astype(np.int32), no.astype(np.float32), after, no, no, no, {})
    return Spec(spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(3), "cube"), jax.tree.map(jnp.asarray, steps)


def _trained(updates: int, **settings) -> tuple[Bonus, ICMState, ICMState, Transition]:
    """(bonus, its state at first, its state after ``updates``, the steps it learnt from)."""
    spec, steps = cube()
    made = icm(spec, hidden=(32,), embedding=8, minibatches=1, learning_rate=3e-3, **settings)
    first = made.init(jax.random.PRNGKey(0))
    learn = jax.jit(lambda state: jax.lax.fori_loop(0, updates, lambda n, s: made.update(s, jax.random.PRNGKey(n), (steps, {}))[0], state))
    return made, first, learn(first), steps


def _what_can_be_predicted_pays_nothing() -> str:
    made, first, after, steps = _trained(600, encoder="random")
    assert_equal(after.params["features"], first.params["features"], "random features were trained: ")
    other = steps._replace(next_obs=steps.obs)  # nothing moves, whatever the action
    before, learnt, odd = (float(jnp.mean(made.score(s, t))) for s, t in ((first, steps), (after, steps), (after, other)))
    told = f"{before:.3g} at first, then {learnt:.3g}; steps that do not move {odd:.3g}"
    require(learnt < 0.01 * before and odd > 20 * learnt, told)
    return told


def _eta_over_two_times_the_squared_error() -> str:
    spec, steps = cube()
    made, twice = (icm(spec, hidden=(), embedding=4, eta=eta, encoder="random") for eta in (1.0, 2.0))
    state = made.init(jax.random.PRNGKey(0))
    forward = jax.tree.leaves(state.params["forward"])
    zero = state._replace(params={**state.params, "forward": jax.tree.map(jnp.zeros_like, state.params["forward"])})
    kernel = next(x for x in jax.tree.leaves(state.params["features"]) if x.ndim == 2)
    wanted = np.sum((np.asarray(steps.next_obs) @ np.asarray(kernel)) ** 2, axis=-1)  # the distance from a prediction of zeros
    require(len(forward) == 2, "the forward model is one layer here")
    expect(made.score(zero, steps), wanted / 2, rtol=1e-4)
    return expect(twice.score(zero, steps)[:3], wanted[:3], rtol=1e-4)


KNOWN_ANSWERS = (
    ("eta/2 times the squared distance: a forward model that says 0 is paid eta/2 |phi(s')|^2", _eta_over_two_times_the_squared_error),
    ("after 600 updates the bonus of a deterministic world is below 1 % of what it was, other steps pay 20 times as much", _what_can_be_predicted_pays_nothing),
)
