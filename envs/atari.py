"""Atari 2600 games (Bellemare et al., arXiv 1207.4708) through ale-py's ``AtariVectorEnv``, which emulates its lanes in threads of its own.

Preprocessing is the usual one (Machado et al., arXiv 1709.06009): every action is repeated for ``frame_skip`` frames, the last two are
maximised, grey, 84 x 84, the last four stacked: uint8 [84, 84, 4], kept as uint8. With probability ``sticky`` the emulator repeats the
action before (each frame). Rewards are the game's, unclipped; episodes end with the game, not with a life; nothing is pressed to
start. One agent step is ``frame_skip`` frames.

``AtariVectorEnv`` cannot save or restore its emulators, so a resumed run starts new episodes. Snapshots need the scalar emulator:
``env=gymnasium env.id=ALE/MontezumaRevenge-v5`` with wrappers is slower and resumes exactly. Runners that start episodes at states of
demonstrations step ``envs/atari_game.py`` in worker processes instead, as many as ``threads``.
"""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from envs.atari_game import AtariGame
from envs.base import HostEnvironment, HostLanes, HostWorld, Spec, TimeStep
from envs.builder import FLAG, FRACTION, Integer, Refusal, Text, closest, extra_hint, options
from envs.lanes import Recipe, open_lanes

SIDE = 84
ROOM = {"montezuma_revenge": 3, "pitfall": 1}  # where a game keeps the number of the room in its memory (AtariARI, arXiv 1906.08226)
INFO = {"lives": (spaces.Box(0, 255, (), np.int32), lambda env, info: info["lives"])}
UNSAVED = "ale-py's AtariVectorEnv cannot save its emulators; env=gymnasium env.id=ALE/... can"


@options(game=Text("a game, as montezuma_revenge"), frame_skip=Integer(1), stack=Integer(1), sticky=FRACTION, max_frames=Integer(1),
         noop_max=Integer(0), full_actions=FLAG, episodic_life=FLAG, threads=Integer(0))  # fmt: skip
def atari(
    *,
    game: str = "montezuma_revenge",
    frame_skip: int = 4,
    stack: int = 4,
    sticky: float = 0.25,
    max_frames: int = 108_000,
    noop_max: int = 0,
    full_actions: bool = False,
    episodic_life: bool = False,
    threads: int = 0,
) -> HostEnvironment:
    """The game ``game``, in snake case.

    Args:
      frame_skip: frames per agent step.
      stack: frames in an observation.
      sticky: probability that a frame repeats the action before; 0 makes the emulator deterministic.
      max_frames: an episode is truncated after so many frames (108,000 are half an hour).
      noop_max: at most so many random no-ops at the start; with sticky actions none are usual.
      full_actions: all 18 actions instead of those that the game uses.
      episodic_life: a lost life terminates.
      threads: that emulate; 0 lets ale-py choose, and is a process for every core where worlds are put at states of demonstrations.

    info: ``lives`` i32. Raises Refusal for a game that is not there or when ale-py is not installed.
    """
    try:
        from ale_py import roms
        from ale_py.vector_env import AtariVectorEnv
    except ImportError as error:
        name = getattr(error, "name", None) or "ale_py"
        raise Refusal(f"env=atari needs the package {name!r}, which is not installed{extra_hint('ale_py')}") from None
    if game not in roms.get_all_rom_ids():
        raise Refusal(f"env.game={game}: ale-py has no such game{closest(game, roms.get_all_rom_ids())}")

    def make(lanes: int) -> AtariVectorEnv:
        return AtariVectorEnv(
            game,
            lanes,
            num_threads=threads,
            max_num_frames_per_episode=max_frames,
            repeat_action_probability=sticky,
            full_action_space=full_actions,
            autoreset_mode=AutoresetMode.SAME_STEP,
            img_height=SIDE,
            img_width=SIDE,
            stack_num=stack,
            frameskip=frame_skip,
            noop_max=noop_max,
            episodic_life=episodic_life,
            reward_clipping=False,
            use_fire_reset=False,
        )

    probe = make(1)
    actions = spaces.Discrete(int(probe.single_action_space.n))
    probe.close()
    spec = Spec(
        observation=spaces.Box(0, 255, (SIDE, SIDE, stack), np.uint8),
        action=actions,
        name=game,
        max_steps=-(-max_frames // frame_skip),
        info={name: space for name, (space, _) in INFO.items()},
        deterministic=sticky == 0 and noop_max == 0,
    )

    def open_(lanes: int, render: bool = False) -> HostLanes:
        env = make(lanes)
        newest = []  # the last observation, for pictures

        def reset(seeds):
            obs, _ = env.reset(seed=np.asarray(seeds, np.int64))
            newest[:] = [obs]
            return obs

        def step(action):
            obs, reward, terminated, truncated, info = env.step(np.asarray(action, np.int32))
            done = terminated | truncated
            successor = np.where(done[:, None, None, None], info["final_obs"], obs) if done.any() else obs
            newest[:] = [obs]
            return TimeStep(successor, reward.astype(np.float32), terminated, truncated, {"lives": info["lives"]}), obs

        def picture(lane):
            frame = newest[0][lane][-1]
            return np.repeat(np.repeat(np.stack([frame] * 3, axis=-1), 4, axis=0), 4, axis=1)

        return HostLanes(reset, step, env.close, render=picture)

    def steerable(lanes: int) -> HostLanes:
        arguments = (game, frame_skip, stack, sticky, max_frames, noop_max, full_actions, episodic_life, SIDE)
        kept = Recipe(lambda render: AtariGame(*arguments), spaces.Box(0, 255, (stack, SIDE, SIDE), np.uint8), lambda obs: obs, actions, INFO, game)
        return open_lanes(kept, lanes, threads or os.cpu_count() or 1)

    at = ROOM.get(game)
    return HostEnvironment(
        spec,
        open_,
        UNSAVED,
        decode=lambda obs: jnp.moveaxis(obs, -3, -1),
        single=functools.partial(emulator, game, frame_skip, max_frames, full_actions, episodic_life) if spec.deterministic else None,
        steerable=steerable,
        frames_per_step=frame_skip,
        rooms=None if at is None else functools.partial(room, at),
    )


def room(at: int, look: Callable) -> int:
    return int(look("ram")[at])


def emulator(game: str, frame_skip: int, max_frames: int, full_actions: bool, episodic_life: bool) -> HostWorld:
    """One emulator without sticky actions, which can be put back. Every reset is the same."""
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setInt("frame_skip", frame_skip)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(ale_py.roms.get_rom_path(game))
    actions = ale.getLegalActionSet() if full_actions else ale.getMinimalActionSet()
    start = ale.cloneState()
    screen = np.zeros(ale.getScreenDims(), np.uint8)
    lives = [ale.lives()]

    def reset():
        ale.restoreState(start)
        lives[0] = ale.lives()

    def step(action):
        reward = ale.act(actions[action])
        left = ale.lives()
        terminated = ale.game_over() or episodic_life and left < lives[0]
        lives[0] = left
        return reward, terminated, ale.getEpisodeFrameNumber() >= max_frames

    def save():
        return pickle.dumps((ale.cloneState(), lives[0]))

    def load(snapshot):
        state, lives[0] = pickle.loads(snapshot)
        ale.restoreState(state)

    def look(what):
        if what == "ram":
            return ale.getRAM()
        if what == "picture":
            return ale.getScreenRGB()
        ale.getScreenGrayscale(screen)
        return screen

    return HostWorld(reset, step, save, load, look)
