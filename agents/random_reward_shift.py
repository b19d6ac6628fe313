"""Random reward shifts (Sun et al., arXiv 2209.07288): TD3 with a pair of critics for each of several constants."""

from agents.td3 import td3
from agents.variants import variant

random_reward_shift = variant(
    td3,
    "random_reward_shift",
    __name__,
    "Three pairs of critics; arguments as those of ``agents.td3.td3``.",
    shifts=(-0.5, 0.0, 0.5),
)
