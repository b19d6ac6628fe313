"""DrQ (Kostrikov et al., arXiv 2004.13649), DrQ-v2 (Yarats et al., arXiv 2107.09645), and MaxInfoRL on DrQ (Sukhija et al., arXiv 2412.12098): SAC and TD3
from pictures. One shifted copy of each picture, where DrQ's program averages over two; ``docs/methods/drq.md`` has the rest."""

from agents.sac import sac
from agents.td3 import td3
from agents.variants import variant

drq = variant(
    sac,
    "drq",
    __name__,
    "SAC with shifted pictures and a shared encoder; arguments as those of ``agents.sac.sac``.",
    hidden=(1024, 1024),
    encoder="drq",
    latent=50,
    augment=4,
    policy_delay=2,
    learning_rate=1e-3,
    initial_temperature=0.1,
)
max_info_drq = variant(
    sac,
    "max_info_drq",
    __name__,
    "DrQ with information gain in its losses; arguments as those of ``agents.sac.sac``.",
    encoder="drq",
    latent=50,
    augment=4,
    max_info=True,
)
V2 = {
    "encoder": "drq",
    "latent": 50,
    "augment": 4,
    "policy_delay": 1,
    "exploration_noise": 1.0,
    "final_noise": 0.1,
    "noise_clip": 0.3,
    "noisy_policy": True,
    "learning_rate": 1e-4,
    "target_rate": 0.01,
}
drq_v2 = variant(
    td3,
    "drq_v2",
    __name__,
    "A noisy policy whose noise falls, with shifted pictures and a shared encoder; arguments as those of ``agents.td3.td3``.",
    hidden=(1024, 1024),
    **V2,
)
max_info_drq_v2 = variant(
    td3,
    "max_info_drq_v2",
    __name__,
    "DrQ-v2 whose actor follows critics of the information gain as well; arguments as those of ``agents.td3.td3``.",
    max_info=True,
    **V2,
)
