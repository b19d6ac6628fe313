"""The intrinsic reward stream: a bonus, normalised and clipped, with the settings of its stream.

Beside the bonus's own arguments every ``exploration=`` entry has these: ``scale``, ``discount``, ``episodic``, ``normalize`` and
``clip`` and ``input``. ``scale`` is the stream's weight (RND's c_int); the reward itself is left unscaled, so that raw, normalised and weighted
rewards can be logged apart. The filter of ``normalize=reward_forward`` uses the stream's own ``discount``.

``input="latent"`` shares the agent's encoder: the bonus is built for, and given, what the agent's network makes of observations, as it is at
that moment. No gradient of the bonus reaches the agent.
"""

from __future__ import annotations

from typing import NamedTuple

import jax

from envs.base import Spec
from envs.builder import FLAG, FRACTION, NON_NEGATIVE, POSITIVE, Anything, Choice, Optional, Refusal, options
from exploration import combinators
from exploration.base import Bonus, check_needs


class Intrinsic(NamedTuple):
    """A bonus as a reward stream."""

    bonus: Bonus
    scale: jax.Array | float  # weight of the stream
    discount: jax.Array | float
    episodic: bool  # False: its returns continue across episode ends
    input: str = "observation"  # "latent": the bonus is given encodings by the agent


INPUTS = ("observation", "latent")


@options(
    scale=NON_NEGATIVE,
    discount=FRACTION,
    episodic=FLAG,
    normalize=Choice(combinators.NORMALIZERS),
    clip=Optional(POSITIVE),
    input=Choice(INPUTS),
    name=Anything("the entry's name, for error lines"),
)
def intrinsic(
    spec: Spec,
    bonus: Bonus,
    *,
    scale: float = 1.0,
    discount: float = 0.99,
    episodic: bool = False,
    normalize: str = "reward_forward",
    clip: float | None = None,
    input: str = "observation",  # noqa: A002; the key of the entry
    name: str = "bonus",
) -> Intrinsic:
    """The stream of ``bonus``. Raises Refusal when the bonus needs what the world does not give.

    Args:
      scale: weight of the stream.
      discount: of its returns, and of the normalising filter.
      episodic: whether its returns end with the episode.
      normalize: see ``exploration.combinators.normalize``.
      clip: the normalised reward is limited to [-clip, clip]; None leaves it.
      input: what the bonus was built for; see ``given``.
      name: what error lines call the bonus.
    """
    check_needs(bonus, spec, name)
    if bonus.info.intrinsic:
        bonus = combinators.normalize(spec, bonus=bonus, by=normalize, filter_discount=discount)
        if clip is not None:
            bonus = combinators.clip(spec, bonus=bonus, low=-clip, high=clip)
    if input == "latent" and bonus.info.augments:
        raise Refusal("exploration.input=latent does not go with augment: the agent would encode what depends on its encoding")
    return Intrinsic(bonus, scale, discount, episodic, input)


def given(spec: Spec, input: str = "observation") -> Spec:  # noqa: A002
    """What a bonus is built for: ``spec``, with the agent's encoding as its observation for ``input="latent"``. Raises Refusal where no agent encodes."""
    return spec if input == "observation" else spec._replace(observation=spec.latent())
