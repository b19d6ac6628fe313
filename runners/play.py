"""``farlands play RUN``: watch a trained policy, as a video or in a window.

    scripts/farlands play runs/NAME [member=0] [policy=best|last] [episodes=1] [steps=N] [fps=30] [seed=0] [out=FILE] [window=true]

The policy acts as its run evaluates it (``runner.evaluation_mode``), in worlds of its own; lane 0 is filmed. Worlds that cannot be drawn
are shown by their observations. The video goes to RUN/videos/, as mp4 (ffmpeg comes with imageio-ffmpeg) or, by the name of ``out``, gif.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import imageio_ffmpeg
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from envs import single
from envs.base import HostLanes
from envs.builder import Failure, Integer, Refusal, closest
from runners.base import HostExplorer, HostRunner, HostSearch, Runner
from runners.batching import AXIS
from runners.host_source import HostSource
from runners.policies import Played, read

WHOLE = {"member": Integer(0), "episodes": Integer(1), "steps": Integer(1), "fps": Integer(1, 240), "seed": Integer(0, 2**31 - 1)}
SETTINGS = {"member": 0, "policy": "best", "episodes": 1, "steps": None, "fps": 30, "seed": 0, "out": None, "window": False}
SMALLEST = 256  # pixels; smaller pictures are enlarged


class Shown(NamedTuple):
    """A step of the filmed lane."""

    picture: np.ndarray  # uint8 [height, width, 3]; before the step
    episode_return: float  # after it
    done: bool


def play(arguments: Sequence[str]) -> dict[str, Any]:
    """Film a run's policy; returns the file and the returns of the episodes. Raises Refusal."""
    run, settings = parse(arguments)
    out = Path(settings["out"]) if settings["out"] else run / "videos" / f"member-{settings['member']}-{settings['policy']}.mp4"
    if out.suffix not in (".mp4", ".gif"):
        raise Refusal(f"out={out}: a video ends in .mp4 or .gif")
    played = read(run, settings["member"], settings["policy"])
    limit = settings["steps"] or settings["episodes"] * (played.runner.spec.max_steps or 1000)
    pictures, returns = [], []
    window = Window() if settings["window"] else None
    for n, shown in enumerate(steps_of(played, settings["seed"])):
        picture = enlarged(shown.picture)
        pictures.append(picture)
        if window:
            window.show(picture, settings["fps"], f"episode {len(returns) + 1}, return {shown.episode_return:.2f}")
        if shown.done:
            returns.append(round(shown.episode_return, 6))
        if len(returns) >= settings["episodes"] or n + 1 >= limit:
            break
    if not window:
        write(out, pictures, settings["fps"])
    found = {"video": None if window else str(out), "steps": len(pictures), "returns": returns, "member": settings["member"], "policy": settings["policy"]}
    return found


def parse(arguments: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    runs = [a for a in arguments if "=" not in a]
    if len(runs) != 1:
        raise Refusal("play takes one run directory and settings, as: scripts/farlands play runs/NAME member=0 policy=best episodes=2")
    found = dict(SETTINGS)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            continue
        if key not in SETTINGS:
            raise Refusal(f"play {argument}: there is no setting {key!r}{closest(key, SETTINGS)}")
        if key in WHOLE:
            if not value.isdecimal() or not WHOLE[key].accepts(int(value)):
                raise Refusal(f"play {argument}: {key} must be {WHOLE[key].describe()}")
            found[key] = int(value)
        elif key == "window":
            if value not in ("true", "false"):
                raise Refusal(f"play {argument}: window must be true or false")
            found[key] = value == "true"
        else:
            found[key] = value
    return Path(runs[0]), found


def steps_of(played: Played, seed: int) -> Iterator[Shown]:
    """Steps of lane 0 under the policy, without end."""
    runner = played.runner
    if isinstance(runner, HostExplorer):
        return explorer_steps(played, runner)
    if isinstance(runner, HostSearch):
        return search_steps(played, runner)
    return host_steps(played, runner, seed) if isinstance(runner, HostRunner) else jax_steps(played, runner, seed)


def member_first(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x)[None], tree)


def vmapped(function: Any) -> Any:
    return jax.jit(jax.vmap(function, axis_name=AXIS))


def jax_steps(played: Played, runner: Runner, seed: int) -> Iterator[Shown]:
    acting, key = member_first(played.acting), jax.random.PRNGKey(seed)
    start, watch = vmapped(runner.start), vmapped(runner.watch)
    carry, t = start(acting, key[None]), 0
    while True:
        lane = jax.tree.map(lambda x: np.asarray(x)[0, 0], carry[0])  # Lanes, of which carry begins with
        picture = np.asarray(runner.env.render(lane.world)) if runner.env.render else of_observation(lane.obs)
        carry, made = watch(acting, carry, jax.random.fold_in(key, t)[None])
        t += 1
        done = bool(made.terminated[0, 0] | made.truncated[0, 0])
        yield Shown(picture, float(made.info["episode_return"][0, 0]), done)


def host_steps(played: Played, runner: HostRunner, seed: int) -> Iterator[Shown]:
    draw_without_a_screen()
    source = HostSource(runner.env, 1, runner.spec.lanes, render=True)
    try:
        acting, key = member_first(played.acting), jax.random.PRNGKey(seed)
        start, watch = vmapped(runner.start), vmapped(runner.watch)
        seeds = np.random.SeedSequence(seed).generate_state(runner.spec.lanes) % 2**31
        (carry, actions), t = start(acting, key[None], source.reset(seeds.tolist()).obs), 0
        while True:
            picture = drawn(source.worlds, runner.env.spec.name)
            before, actions, arrived = source.step(actions)
            carry, actions = watch(acting, carry, jax.random.fold_in(key, t)[None], before, actions, arrived)
            t += 1
            done = bool(arrived.terminated[0, 0] | arrived.truncated[0, 0])
            yield Shown(picture, float(before.episode_return[0, 0] + arrived.reward[0, 0]), done)
    finally:
        source.close()


def search_steps(played: Played, runner: HostSearch) -> Iterator[Shown]:
    """Episodes of a policy as workers make them, from the start that they have, one after the other."""
    draw_without_a_screen()
    genome = np.asarray(played.acting.agent)
    while True:
        source = HostSource(runner.env, 1, 1, render=True)
        try:
            obs, total, length, done = source.reset([single.SEED]).obs, 0.0, 0, False
            while not done:
                picture = drawn(source.worlds, runner.env.spec.name)
                action = np.asarray(runner.agent.genome.act(genome, obs[0, 0]))
                *_, arrived = source.step(action[None, None])
                obs, total, length = arrived.obs, total + float(arrived.reward[0, 0]), length + 1
                done = bool(arrived.terminated[0, 0] | arrived.truncated[0, 0]) or length == runner.trial.limit
                yield Shown(picture, total, done)
        finally:
            source.close()


def draw_without_a_screen() -> None:
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def explorer_steps(played: Played, runner: HostExplorer) -> Iterator[Shown]:
    """The best trajectory of the archive, from the world's own start; the last step counts as the end of the episode."""
    world, best, total = runner.env.single(), played.acting.bonus, 0.0
    world.reset()
    length = int(best.length)
    if not length:
        raise Refusal("the archive has no trajectory with a score above the start's yet, so there is nothing to show")
    for t, action in enumerate(np.asarray(best.actions[:length])):
        try:
            picture = np.array(world.look("picture"))
        except KeyError:
            picture = of_observation(world.look("obs"))
        reward, terminated, truncated = world.step(action)
        total += reward
        yield Shown(picture, total, terminated or truncated or t + 1 == length)


def drawn(worlds: HostLanes, name: str) -> np.ndarray:
    picture = worlds.render(0) if worlds.render else None
    if picture is None:
        raise Refusal(f"the world {name} cannot be drawn: it has no render_mode=rgb_array")
    return np.asarray(picture)


def of_observation(obs: Any) -> np.ndarray:
    """A grey picture of an observation: its last two axes of length above 1, or a strip; the parts of a dictionary side by side."""
    parts = []
    for leaf in jax.tree.leaves(obs):
        values = np.atleast_1d(np.asarray(leaf, np.float32).squeeze())
        values = values if values.ndim == 2 else values.max(axis=-1) if values.ndim == 3 else values.reshape(1, -1)
        low, high = float(values.min()), float(values.max())
        parts.append(((values - low) / max(high - low, 1e-9) * 255).astype(np.uint8))
    height = max(part.shape[0] for part in parts)
    parts = [np.pad(part, ((0, height - part.shape[0]), (0, 1))) for part in parts]
    return np.repeat(np.concatenate(parts, axis=1)[..., None], 3, axis=-1)


def enlarged(picture: np.ndarray) -> np.ndarray:
    """At least SMALLEST pixels on the longer side, by whole factors, and even sides, which video codecs want."""
    factor = max(1, -(-SMALLEST // max(picture.shape[:2])))
    picture = picture.repeat(factor, 0).repeat(factor, 1)
    return np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")


def write(out: Path, pictures: list[np.ndarray], fps: int) -> None:
    """A video of pictures uint8 [height, width, 3] of even sides, by the suffix of ``out``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".draft-{out.name}")
    if out.suffix == ".gif":
        first, *rest = [Image.fromarray(picture) for picture in pictures]
        first.save(draft, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    else:
        height, width = pictures[0].shape[:2]
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
        encode = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(draft)]
        frames = np.stack(pictures).tobytes()
        done = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *raw, *encode], input=frames, capture_output=True)
        if done.returncode:
            raise Failure(f"{out} could not be written: ffmpeg says {done.stderr.decode(errors='replace').strip().splitlines()[-1:]}")
    draft.replace(out)


class Window:
    """Pictures on the screen, through matplotlib."""

    def __init__(self):
        import matplotlib

        if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY") and os.name == "posix":
            raise Refusal("window=true needs a screen (DISPLAY is not set); leave it out to write a video")
        from matplotlib import pyplot

        if matplotlib.get_backend().lower() == "agg":
            raise Refusal("window=true needs a matplotlib backend with windows (install tkinter: apt install python3-tk); leave it out to write a video")
        self._pyplot, self._image = pyplot, None

    def show(self, picture: np.ndarray, fps: int, title: str) -> None:
        if self._image is None:
            self._image = self._pyplot.imshow(picture)
            self._pyplot.axis("off")
        self._image.set_data(picture)
        self._pyplot.title(title)
        self._pyplot.pause(1.0 / fps)
