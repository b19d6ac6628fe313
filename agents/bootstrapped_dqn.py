"""Bootstrapped DQN with random priors (Osband et al., arXiv 1806.03335), in the settings of bsuite's baseline."""

from agents.dqn import dqn
from agents.variants import variant

bootstrapped_dqn = variant(
    dqn,
    "bootstrapped_dqn",
    __name__,
    "Twenty DQNs with priors, one of them followed per episode; arguments as those of ``agents.dqn.dqn``.",
    hidden=(50, 50),
    double=False,
    heads=20,
    prior_scale=5.0,
    epsilon_start=0.0,
    epsilon_end=0.0,
    learning_rate=1e-3,
    target_period=4,
    target_rate=None,
)
