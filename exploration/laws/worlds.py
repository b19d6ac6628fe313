"""Made-up worlds, as a bonus sees them: one for each kind of observation, all declaring what a bonus might need."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.base import Spec

STATES = 6
VECTOR = spaces.Box(-np.inf, np.inf, (4,), np.float32)
CODES = spaces.Box(np.zeros((5, 5, 2), np.uint8), np.broadcast_to(np.uint8([12, 11]), (5, 5, 2)), dtype=np.uint8)
PIXELS = spaces.Box(0, 255, (36, 36, 1), np.uint8)
OBSERVATIONS = {"vector": VECTOR, "codes": CODES, "pixels": PIXELS}
INFO = {"state_id": spaces.Discrete(STATES), "position": spaces.Box(0, 9, (2,), np.int32)}
ACTIONS = spaces.Discrete(3, start=1)  # not from 0, as Gymnasium allows


def made_up(observation: spaces.Space = VECTOR, action: spaces.Space = ACTIONS, name: str = "laws", **changed) -> Spec:
    """The spec of a world with these observations and actions, numbered states and positions."""
    return Spec(observation, action, name, info=INFO, num_states=STATES)._replace(**changed)
