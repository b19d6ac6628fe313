"""Rainbow (Hessel et al., arXiv 1710.02298): DQN with every switch on. n-step sums and prioritised draws are the runner's: ``runner.n_step=3
runner.prioritized=true``. Learning rate and eps of Dopamine's noisy Rainbow, 51 atoms up to 10 as in CFN's experiments (arXiv 2306.03186);
v_min = -v_max, no epsilon, since the noise explores."""

from agents.dqn import dqn
from agents.variants import variant

rainbow = variant(
    dqn,
    "rainbow",
    __name__,
    "Double, duelling, distributional DQN with noisy layers; arguments as those of ``agents.dqn.dqn``.",
    double=True,
    dueling=True,
    distributional="c51",
    noisy=True,
    epsilon_start=0.0,
    epsilon_end=0.0,
    learning_rate=6.25e-5,
    optimizer_eps=1.5e-4,
    target_period=500,
    target_rate=None,
)
