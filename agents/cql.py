"""CQL (Kumar et al., arXiv 2006.04779): SAC whose critics are pushed down where the policy would go and up where the data are.

The losses are in ``agents/sac.py`` and ``agents/conservative.py``. The settings are those that the authors' program is run with for MuJoCo
(aviralkumar2907/CQL, ``d4rl/rlkit/torch/sac/cql.py``, and the numbers of arXiv 2209.07288, part C), but for the policy's first 40,000 updates, in which that
program clones the data's actions, and this one does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.base import Agent
from agents.conservative import conservative
from agents.networks import ACTIVATIONS, ENCODERS
from agents.sac import sac
from agents.streams import MIXES
from envs.base import Spec
from envs.builder import FLAG, FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Optional, Real, Sizes, options


@options(
    hidden=Sizes(),
    activation=Choice(tuple(ACTIVATIONS)),
    encoder=Choice(ENCODERS),
    min_q_version=Choice((2, 3)),
    min_q_weight=NON_NEGATIVE,
    lagrange_thresh=Optional(Real()),
    samples=Integer(1, 1000),
    entropy_backup=FLAG,
    actor_learning_rate=POSITIVE,
    learning_rate=POSITIVE,
    target_rate=FRACTION,
    initial_temperature=POSITIVE,
    learn_temperature=FLAG,
    target_entropy=Optional(Real()),
    reward_scale=POSITIVE,
    mix=MIXES,
)
def cql(
    spec: Spec,
    *,
    hidden: Sequence[int] = (256, 256, 256),
    activation: str = "relu",
    encoder: str = "auto",
    min_q_version: int = 3,
    min_q_weight: Any = 5.0,
    lagrange_thresh: float | None = 5.0,
    samples: int = 10,
    entropy_backup: bool = False,
    actor_learning_rate: Any = 1e-4,
    learning_rate: Any = 3e-4,
    target_rate: Any = 0.005,
    initial_temperature: Any = 1.0,
    learn_temperature: bool = True,
    target_entropy: float | None = None,
    reward_scale: Any = 1.0,
    mix: str = "sum",
) -> Agent:
    """Arguments as those of ``agents.sac.sac``, with two critics, and:

    Args:
      min_q_version: 3 weighs the actions of the sum by their densities; 2 does not.
      min_q_weight: of the gap between the sum's value and that of the data's action.
      lagrange_thresh: what the weighted gap is held at, by a price that is learnt; null fixes the price at 1.
      samples: actions in the sum of each kind: uniform, from the policy at s, from the policy at s'.
      entropy_backup: whether targets hold the price of certainty.
      actor_learning_rate, learning_rate: of the policy and its temperature; of critics and price.

    Raises Refusal for actions that are not a Box.
    """

    def make(critics):
        return conservative(
            spec,
            critics,
            version=min_q_version,
            weight=min_q_weight,
            threshold=lagrange_thresh,
            samples=samples,
            rate=learning_rate,
            actor_rate=actor_learning_rate,
            entropy_backup=entropy_backup,
        )

    return sac(
        spec,
        make,
        hidden=hidden,
        activation=activation,
        encoder=encoder,
        learning_rate=learning_rate,
        target_rate=target_rate,
        initial_temperature=initial_temperature,
        learn_temperature=learn_temperature,
        target_entropy=target_entropy,
        reward_scale=reward_scale,
        mix=mix,
    )
