"""MaxInfoRL (Sukhija et al., arXiv 2412.12098): SAC and REDQ that maximise the information gain of their actions beside the entropy. The gain comes
from a bonus with gradients: ``exploration=information_gain``."""

from agents.sac import sac
from agents.variants import variant

max_info_sac = variant(
    sac,
    "max_info_sac",
    __name__,
    "SAC with information gain in its losses; arguments as those of ``agents.sac.sac``.",
    max_info=True,
)
max_info_redq = variant(
    sac,
    "max_info_redq",
    __name__,
    "REDQ with information gain in its losses; arguments as those of ``agents.sac.sac``.",
    max_info=True,
    critics=10,
    subset=2,
    policy_delay=20,
)
