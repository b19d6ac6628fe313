"""REDQ (Chen et al., arXiv 2101.05982) and DroQ (Hiraoka et al., arXiv 2110.02034): SAC with many updates per step. Those are the runner's:
``runner.updates=20`` with one lane, as published."""

from agents.sac import sac
from agents.variants import variant

redq = variant(
    sac,
    "redq",
    __name__,
    "Ten critics, targets from two of them, the actor once in twenty updates; arguments as those of ``agents.sac.sac``.",
    critics=10,
    subset=2,
    policy_delay=20,
)
droq = variant(
    sac,
    "droq",
    __name__,
    "Two critics with dropout and layer norms; arguments as those of ``agents.sac.sac``.",
    dropout=0.01,
    layer_norm=True,
    policy_delay=20,
)
