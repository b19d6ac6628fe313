"""One Atari game as a Gymnasium world that can be put anywhere, with the preprocessing of ``AtariVectorEnv`` (envs/atari.py): for whoever starts
episodes at states of a demonstration. Sticky actions are drawn here, frame by frame, from the world's own generator, so that a step may also be made as it
is told (``obey``) and so that what comes after a state that was put back is drawn anew. Of a step in which the game ends, the picture may be another one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class AtariGame(gymnasium.Env):
    """Observations uint8 [stack, side, side], the oldest first; black before the first ones. Arguments as in ``envs.atari.atari``."""

    def __init__(
        self, game: str, frame_skip: int, stack: int, sticky: float, max_frames: int, noop_max: int, full_actions: bool, episodic_life: bool, side: int
    ):
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale_py.ALEInterface()
        self.ale.setInt("random_seed", 0)
        self.ale.setInt("frame_skip", 1)
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(ale_py.roms.get_rom_path(game))
        self.moves = [a.value for a in (self.ale.getLegalActionSet() if full_actions else self.ale.getMinimalActionSet())]
        self.frame_skip, self.sticky, self.max_frames, self.noop_max, self.episodic_life = frame_skip, sticky, max_frames, noop_max, episodic_life
        self.action_space = spaces.Discrete(len(self.moves))
        self.observation_space = spaces.Box(0, 255, (stack, side, side), np.uint8)
        self.frames = np.zeros((stack, side, side), np.uint8)
        self.last, self.lives, self.obey = 0, 0, False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.ale.reset_game()
        self.last = 0
        for _ in range(int(self.np_random.integers(0, self.noop_max + 1)) if self.noop_max and not self.obey else 0):
            self.ale.act(0)
        self.lives = self.ale.lives()
        self.frames[:] = 0
        self._see(self.ale.getScreenGrayscale())
        return self.frames.copy(), {"lives": self.lives}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward, screens, over, cut = 0.0, [], False, False
        for left in range(self.frame_skip - 1, -1, -1):
            if self.obey or not self.sticky or self.np_random.random() >= self.sticky:
                self.last = self.moves[action]
            reward += self.ale.act(self.last)
            over, cut = self.ale.game_over(), self.ale.getEpisodeFrameNumber() >= self.max_frames
            if left < 2 or over or cut:
                screens.append(self.ale.getScreenGrayscale())
            if over or cut:
                break
        self._see(screens[-1] if len(screens) == 1 else np.maximum(screens[-2], screens[-1]))
        lives, self.lives = self.lives, self.ale.lives()
        over = over or self.episodic_life and self.lives < lives
        return self.frames.copy(), reward, bool(over), bool(cut and not over), {"lives": self.lives}

    def _see(self, screen: np.ndarray) -> None:
        self.frames[:-1] = self.frames[1:]
        self.frames[-1] = np.rint(averaged(averaged(screen, len(self.frames[-1])).T, len(self.frames[-1])).T)

    def render(self) -> Any:
        return self.ale.getScreenRGB()


def averaged(rows: np.ndarray, number: int) -> np.ndarray:
    """[R, C] -> f64[number, C]: means of equal parts, also where their edges are between rows; matrix products would wait for threads of their own."""
    sums = np.zeros((len(rows) + 1, rows.shape[1]))
    np.cumsum(rows, axis=0, dtype=np.float64, out=sums[1:])
    edges = np.linspace(0, len(rows), number + 1)
    whole = np.minimum(edges.astype(int), len(rows) - 1)
    at = sums[whole] + (edges - whole)[:, None] * rows[whole]
    return np.diff(at, axis=0) * (number / len(rows))
