"""An ant in a maze of three walls, on the host (``AntObstaclesBig`` of SERENE and STAX, Paolo et al., arXiv 2102.03140, 2111.01919, their code).

Gymnasium's MuJoCo ant starts at (-25, -25) in an arena of [-30, 40]^2; walls stand around it and inside, with middles (-15, 20), (-3, -15), (10, -15) and half
sizes 0.3 x 17, 13 x 0.3, 0.3 x 15. A step is five of MuJoCo's of 0.005 s (RK4); actions are torques in [-1, 1], times a gear of 150. Observations are the
positions, x and y as (x - 5) / 70, and the speeds, 15 + 14 numbers. Only the last step pays: (3 - d) / 3 within d < 3 of (35, -25) ("area 1") or (-25, 35)
("area 2"). The descriptor is ((x, y) - 5) / 70, in [-0.5, 0.5]^2. Nothing is random.

It differs from the published world: the ant weighs what Gymnasium's weighs, 0.9. The published file scales it to 25755, under which this ant does not move at
all (0.002 in 600 steps). A simulation that breaks down pays NaN and ends.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import gymnasium as library
import numpy as np
from gymnasium import spaces

from envs.base import HostEnvironment
from envs.builder import Integer, Refusal, extra_hint, options
from envs.dm_control import way_to_draw
from envs.gymnasium import hosted

START, MIDDLE, SCALE = np.array([-25.0, -25.0]), 5.0, 70.0
ARENA = (-30.0, 40.0)
WALLS = ((-15, 20, 0.3, 17), (-3, -15, 13, 0.3), (10, -15, 0.3, 15))  # middle x, y; half sizes
GOALS, RADIUS = np.array([[35.0, -25.0], [-25.0, 35.0]]), 3.0
TIMESTEP, FRAMES, HEIGHT = 0.005, 5, 1.0


def imported() -> Any:
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", way_to_draw())  # read when MuJoCo is imported
    try:
        import mujoco
    except ImportError:
        raise Refusal(f"env=ant_maze needs the package 'mujoco', which is not installed{extra_hint('mujoco')}") from None
    return mujoco


def model() -> Any:
    """The ant of Gymnasium with the walls of the maze; to be seen from above, the goals as discs, and a ball over the ant."""
    mujoco = imported()
    spec = mujoco.MjSpec.from_file(os.path.join(os.path.dirname(library.__file__), "envs", "mujoco", "assets", "ant.xml"))
    spec.option.timestep = TIMESTEP
    spec.geom("floor").material, spec.geom("floor").rgba = "", [0.95, 0.95, 0.95, 1]
    shown = dict(contype=0, conaffinity=0, mass=0)  # nothing touches it, it weighs nothing
    spec.body("torso").add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, pos=[0, 0, 2], size=[1.0, 0, 0], rgba=[0.2, 0.3, 0.9, 1], **shown)
    (low, high), thick = ARENA, 0.3
    middle, half = (low + high) / 2, (high - low) / 2
    border = [(low, middle, thick, half), (high, middle, thick, half), (middle, low, half, thick), (middle, high, half, thick)]
    for x, y, along, across in (*WALLS, *border):
        box = dict(type=mujoco.mjtGeom.mjGEOM_BOX, pos=[x, y, HEIGHT], size=[along, across, HEIGHT], rgba=[0.3, 0.3, 0.3, 1])
        spec.worldbody.add_geom(contype=1, conaffinity=1, **box)
    for x, y in GOALS:
        disc = dict(type=mujoco.mjtGeom.mjGEOM_CYLINDER, pos=[x, y, 0.02], size=[RADIUS, 0.02, 0], rgba=[0.9, 0.3, 0.3, 1])
        spec.worldbody.add_geom(**shown, **disc)
    return spec.compile()


class AntMaze(library.Env):
    """The maze as a Gymnasium world."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, max_steps: int, render_mode: str | None = None):
        self.mujoco, self.model = imported(), model()
        self.data = self.mujoco.MjData(self.model)
        self.max_steps, self.render_mode, self.steps, self.renderer = max_steps, render_mode, 0, None
        self.observation_space = spaces.Box(-np.inf, np.inf, (29,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (8,), np.float32)
        self.init = np.array([*START, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1], np.float64)  # of Gymnasium's ant, at the start

    def reset(self, *, seed: int | None = None, options: Any = None):
        super().reset(seed=seed)
        self.mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.steps = self.init, 0
        self.mujoco.mj_forward(self.model, self.data)
        return self.observed(), self.told(0)

    def step(self, action):
        self.data.ctrl[:] = np.clip(action, -1.0, 1.0)
        self.mujoco.mj_step(self.model, self.data, FRAMES)
        self.steps += 1
        bad = self.mujoco.mjtWarning
        if any(self.data.warning[kind].number for kind in (bad.mjWARN_BADQPOS, bad.mjWARN_BADQVEL, bad.mjWARN_BADQACC)):
            return self.observed(), float("nan"), True, False, self.told(0)
        over = self.steps >= self.max_steps
        near = 1.0 - np.linalg.norm(self.data.qpos[:2] - GOALS, axis=-1) / RADIUS
        paid = over and near.max() > 0
        return self.observed(), float(near.max()) if paid else 0.0, False, over, self.told(int(near.argmax()) + 1 if paid else 0)

    def observed(self) -> np.ndarray:
        return np.concatenate([self.place(), self.data.qpos[2:], self.data.qvel]).astype(np.float32)

    def place(self) -> np.ndarray:
        return (self.data.qpos[:2] - MIDDLE) / SCALE

    def told(self, area: int) -> dict[str, Any]:
        return {"descriptor": self.place().astype(np.float32), "area": area}

    def render(self):
        if self.renderer is None:
            self.renderer = self.mujoco.Renderer(self.model, 360, 360)
            self.camera = self.mujoco.MjvCamera()
            self.camera.lookat[:], self.camera.distance, self.camera.elevation, self.camera.azimuth = [MIDDLE, MIDDLE, 0], 95.0, -90.0, 90.0
        self.renderer.update_scene(self.data, self.camera)
        return self.renderer.render()

    def close(self):
        if self.renderer is not None:
            self.renderer.close()
            self.renderer = None


@options(max_steps=Integer(1), workers=Integer(0))
def ant_maze(*, max_steps: int = 3000, workers: int = 0) -> HostEnvironment:
    """The maze.

    Args:
      max_steps: length of an episode, which ends by truncation: 3000 in SERENE, 1000 in STAX.
      workers: processes that step the lanes; 0 steps them in this one.

    obs f32[29] and action f32[8]: see above. info: ``descriptor`` f32[2]; ``area`` i32[], the reward area (1 or 2) that paid.
    """
    imported()

    def make(render: bool = False) -> library.Env:
        return AntMaze(max_steps, "rgb_array" if render else None)

    made = hosted("ant_maze", make, workers, info=["descriptor", "area"])
    info = {"descriptor": spaces.Box(-0.5, 0.5, (2,), np.float32), "area": spaces.Discrete(len(GOALS) + 1)}
    return made._replace(spec=made.spec._replace(info=info, max_steps=max_steps, deterministic=True))
