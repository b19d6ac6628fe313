"""The DeepMind Control Suite (Tassa et al., arXiv 1801.00690) on the host: ``env=dm_control env.id=walker-run env.action_repeat=2``.

An observation is the task's numbers in one vector, f32; or with ``pixels`` what its first camera sees, the last ``frames`` frames of it, uint8
[pixels, pixels, 3 frames], newest last, the first of an episode repeated. A reward is the sum over the repeated steps. Episodes are cut at the suite's
time limit (truncated: the task says discount 1), few tasks terminate. Steps, here and in ``total_steps``, are the agent's: with ``action_repeat=2``
papers count two environment steps for each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import gymnasium as library
import numpy as np
from gymnasium import spaces

from envs.base import HostEnvironment
from envs.builder import FLAG, Integer, Optional, Refusal, Text, closest, extra_hint, options
from envs.gymnasium import hosted


class Suite(library.Env):
    """A task of the suite as a Gymnasium world."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(
        self,
        domain: str,
        task: str,
        action_repeat: int,
        render_mode: str | None = None,
        pixels: int | None = None,
        frames: int = 1,
        shadows: bool = True,
    ):
        self.inner, self.action_repeat, self.render_mode = imported().load(domain, task), action_repeat, render_mode
        self.pixels, self.frames, self.seen = pixels, frames, ()
        if not shadows:
            self.inner.physics.model.ptr.vis.quality.shadowsize = 0
        size = sum(int(np.prod(part.shape)) for part in self.inner.observation_spec().values())
        bounds = self.inner.action_spec()
        numbers = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.observation_space = numbers if pixels is None else spaces.Box(0, 255, (pixels, pixels, 3 * frames), np.uint8)
        self.action_space = spaces.Box(bounds.minimum.astype(np.float32), bounds.maximum.astype(np.float32))
        self.max_steps = -(-round(self.inner._step_limit) // action_repeat)

    def reset(self, *, seed: int | None = None, options: Any = None):
        super().reset(seed=seed)
        if seed is not None:
            self.inner.task.random.seed(seed % 2**32)
        self.seen = ()
        return self.observed(self.inner.reset().observation), {}

    def step(self, action):
        total, action = 0.0, np.asarray(action, np.float64)
        for _ in range(self.action_repeat):
            found = self.inner.step(action)
            total += found.reward or 0.0
            if found.last():
                break
        ended = found.last() and found.discount == 0.0
        return self.observed(found.observation), total, ended, found.last() and not ended, {}

    def observed(self, numbers: dict[str, Any]) -> np.ndarray:
        if self.pixels is None:
            return vector(numbers)
        frame = self.inner.physics.render(height=self.pixels, width=self.pixels, camera_id=0)
        self.seen = (*self.seen[1:], frame) if self.seen else (frame,) * self.frames
        return np.concatenate(self.seen, axis=-1)

    def render(self):
        return self.inner.physics.render(height=240, width=320, camera_id=0)


def way_to_draw() -> str:
    """What draws without a screen here; without either, dm_control must be told not to draw, or it cannot be imported."""
    return next((way for way, library in (("egl", "EGL"), ("osmesa", "OSMesa")) if find_library(library)), "disabled")


def imported() -> Any:
    """dm_control.suite. Raises Refusal where it cannot be imported."""
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", way_to_draw())
    try:
        from dm_control import suite
    except (ImportError, AttributeError, RuntimeError) as error:  # the latter where OpenGL finds no library, and for an unknown MUJOCO_GL
        hint = extra_hint("dm_control") if isinstance(error, ImportError) else ""
        draws = "MUJOCO_GL=egl or osmesa draws without a screen, MUJOCO_GL=disabled does without pictures"
        raise Refusal(f"env=dm_control needs dm_control, which cannot be imported ({error}){hint}; {draws}") from None
    return suite


TRIAL = """
import os, sys
try:
    from envs.dm_control import Suite
    Suite("cartpole", "swingup", 1, pixels=9).reset(seed=0)
except Exception as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    os._exit(1)
"""


def check_drawing() -> None:
    """Draw once, in a process of its own: what fails leaves half-made contexts behind, which complain when they are deleted. Raises Refusal where it does."""
    root = Path(__file__).resolve().parent.parent
    tried = subprocess.run([sys.executable, "-c", TRIAL], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if tried.returncode != 0:
        reason = " ".join(tried.stdout.split())[:160] or f"it ended with code {tried.returncode}"
        ways = "MUJOCO_GL=egl (Debian: apt install libegl1) or MUJOCO_GL=osmesa (libosmesa6)"
        raise Refusal(f"env.pixels needs MuJoCo to draw, and MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} fails here ({reason}); use {ways}")


def vector(observation: dict[str, Any]) -> np.ndarray:
    """The entries of an observation, flat, in the task's order."""
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)


@options(
    id=Text("domain-task of the suite, as walker-run"),
    action_repeat=Integer(1, 1000),
    pixels=Optional(Integer(9, 1000)),
    frames=Integer(1, 100),
    shadows=FLAG,
    workers=Integer(0),
)
def dm_control(
    *,
    id: str = "walker-run",
    action_repeat: int = 1,
    pixels: int | None = None,
    frames: int = 3,
    shadows: bool = True,
    workers: int = 0,
) -> HostEnvironment:
    """A task of the suite.

    Args:
      id: domain and task, as ``cartpole-swingup_sparse``.
      action_repeat: physics' control steps per action.
      pixels: side of pictures, which are then the observations; null gives numbers.
      frames: pictures in an observation; ``runner.frames`` of the same number stores each once.
      shadows: whether there are any in the pictures; drawing them takes most of the time.
      workers: processes that step the lanes; 0 steps them in this one.

    Raises Refusal where dm_control is not installed or cannot draw pictures that were asked for, and for a task that it has not.
    """
    known = ["-".join(names) for names in imported().ALL_TASKS]
    if id not in known:
        raise Refusal(f"env.id={id}: the suite has no such task{closest(id, known)}")
    domain, _, task = id.partition("-")

    def make(render: bool = False) -> library.Env:
        return Suite(domain, task, action_repeat, "rgb_array" if render else None, pixels, frames, shadows)

    if pixels is not None:
        check_drawing()
    return hosted(id, make, workers)
