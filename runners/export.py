"""``farlands export RUN DIRECTORY``: what a trained policy does, as a data set in minari's format (``runners/dataset.py``).

    scripts/farlands export runs/NAME data/NAME-v0 [member=0] [policy=best|last] [episodes=100] [random_share=0] [noise=0] [mode=greedy|explore] [seed=0]

Fresh episodes in worlds of their own, as many of every lane, so that short ones are not preferred. A share of the actions may be uniformly random, and the
others may get Gaussian noise of a deviation in units of half the box, clipped to the box (the behaviour policies of BCQ, arXiv 1812.02900). The
policy acts as its run evaluates it, or in the given mode. An episode that outlasts the world's limit, or 1000 steps where there is none, is
cut there as truncated, and what follows begins another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.base import Agent
from envs.base import PyTree, Spec, box_bounds, sample_action
from envs.builder import FRACTION, NON_NEGATIVE, Choice, Integer, Nested, Refusal, closest, options
from runners import dataset
from runners.base import HostExplorer, HostRunner, HostSearch, Runner
from runners.dataset import Episodes
from runners.host_source import HostSource
from runners.iteration import EVALUATION_LIMIT
from runners.play import member_first, vmapped
from runners.policies import WHICH, Played, read

SETTINGS = {
    "member": (0, Integer(0)),
    "policy": ("best", Choice(WHICH)),
    "episodes": (100, Integer(1)),
    "random_share": (0.0, FRACTION),
    "noise": (0.0, NON_NEGATIVE),
    "mode": (None, Choice(("greedy", "explore"))),
    "seed": (0, Integer(0, 2**31 - 1)),
}
CHUNK = 64  # steps of a compiled call


def export(arguments: Sequence[str]) -> dict[str, Any]:
    """Write a data set; returns its folder, size, returns and checksum. Raises Refusal."""
    run, folder, settings = parse(arguments)
    dataset.refuse_existing(folder)
    dataset.library()
    played = read(run, settings["member"], settings["policy"], lambda config: disturbed(config, settings))
    spec = played.runner.env.spec
    parts, seeds = episodes_of(played, settings["episodes"], settings["seed"])
    told = {"algorithm_name": str(run.name), "description": " ".join(f"{key}={value}" for key, value in settings.items())}
    dataset.write(folder, spec.observation, spec.action, parts, seeds, told)
    returns = [float(part.reward.sum()) for part in parts]
    summary = {"data": str(folder), "episodes": len(parts), "steps": sum(len(part.reward) for part in parts)}
    return summary | {"return_mean": float(np.mean(returns)), "return_sd": float(np.std(returns)), "checksum": dataset.read(folder).checksum}


def parse(arguments: Sequence[str]) -> tuple[Path, Path, dict[str, Any]]:
    folders = [a for a in arguments if "=" not in a]
    if len(folders) != 2:
        raise Refusal("export takes a run directory, a folder to write, and settings, as: scripts/farlands export runs/NAME data/NAME-v0 episodes=100")
    found = {key: default for key, (default, _) in SETTINGS.items()}
    for argument in (a for a in arguments if "=" in a):
        key, _, text = argument.partition("=")
        if key not in SETTINGS:
            raise Refusal(f"export {argument}: there is no setting {key!r}{closest(key, SETTINGS)}")
        value = number(text)
        if not SETTINGS[key][1].accepts(value):
            raise Refusal(f"export {argument}: {key} must be {SETTINGS[key][1].describe()}")
        found[key] = value
    return Path(folders[0]), Path(folders[1]), found


def number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# --- who acts ----------------------------------------------------------------------------------------------------------


@options(agent=Nested(), random_share=FRACTION, noise=NON_NEGATIVE)
def perturbed(spec: Spec, *, agent: Agent, random_share: Any = 0.0, noise: Any = 0.0) -> Agent:
    """``agent``, whose actions get N(0, noise) in units of half the box, and of whose actions a share is uniformly random instead.

    Raises Refusal for noise on actions that are not a Box."""
    if noise and not isinstance(spec.action, spaces.Box):
        raise Refusal(f"export noise={noise} is for Box actions, and {spec.name!r} has {type(spec.action).__name__}; use random_share")

    def act(state, key, inputs):
        agent_key, noise_key, random_key, share_key = jax.random.split(key, 4)
        memory, action, extras = agent.act(state, agent_key, inputs)
        lanes = inputs[2].shape[0]
        if noise:
            low, high = box_bounds(spec.action)
            action = jnp.clip(action + noise * (high - low) / 2.0 * jax.random.normal(noise_key, action.shape), low, high)
        if random_share:
            chosen = jax.random.uniform(share_key, (lanes, *[1] * (action.ndim - 1))) < random_share
            action = jnp.where(chosen, sample_action(spec.action, random_key, lanes).astype(action.dtype), action)
        return memory, action, extras

    return agent._replace(act=act)


def disturbed(config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run with its agent disturbed as the settings say."""
    given = {name: settings[name] for name in ("random_share", "noise")}
    agent = {"_target_": "runners.export.perturbed", "agent": config["agent"], **given} if any(given.values()) else config["agent"]
    mode = {} if settings["mode"] is None else {"evaluation_mode": settings["mode"]}
    return config | {"agent": agent, "runner": config["runner"] | mode}


# --- what happens ------------------------------------------------------------------------------------------------------


def episodes_of(played: Played, number: int, seed: int) -> tuple[list[Episodes], list[int | None]]:
    """(``number`` episodes, of every lane as many or one fewer; the seeds that they were reset with, where there were any)."""
    runner = played.runner
    lanes, limit = runner.spec.lanes, runner.env.spec.max_steps or EVALUATION_LIMIT
    wanted = np.array([number // lanes + (lane < number % lanes) for lane in range(lanes)])
    if isinstance(runner, HostExplorer):
        raise Refusal("export is for policies, and this run has an archive of worlds on the host; demonstrate writes its trajectories")
    if isinstance(runner, HostSearch):
        raise Refusal("export steps worlds side by side, and this run tried its policies in workers; elites writes its genomes, play shows one")
    if isinstance(runner, HostRunner):
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(lanes) % 2**31]
        chunks = host_chunks(played, runner, seed, seeds)
    else:
        seeds, chunks = [None] * lanes, jax_chunks(played, runner, seed)
    kept, complete, age = [], np.zeros(lanes, int), np.zeros(lanes, int)
    for obs, after, action, reward, terminated, truncated, info in chunks:  # each [T, N, ...]
        for t in range(len(reward)):
            age += 1
            cut = (age >= limit) & ~terminated[t]
            truncated[t] |= cut
            ended = terminated[t] | truncated[t]
            complete, age = complete + ended, np.where(ended, 0, age)
        kept.append((obs, after, action, reward, terminated, truncated, info))
        if (complete >= wanted).all():
            break
    obs, after, *rest = jax.tree.map(lambda *parts: np.concatenate(parts), *kept)
    found, of = [], []
    for lane in range(lanes):
        stops = np.flatnonzero(rest[2][:, lane] | rest[3][:, lane])[: wanted[lane]] + 1
        for start, stop in itertools.pairwise((0, *stops)):
            span = slice(start, stop)
            seen = jax.tree.map(lambda a, b, s=span, n=lane: np.concatenate([a[s, n], b[s.stop - 1 : s.stop, n]]), obs, after)
            action, reward, terminated, truncated, info = jax.tree.map(lambda x, s=span, n=lane: x[s, n], rest)
            found.append(Episodes(seen, action, reward, terminated, truncated, info, np.asarray([stop - start])))
            of.append(seeds[lane] if start == 0 else None)
    return found, of


def chunk(played: Played, obs: PyTree, after: PyTree, action, reward, terminated, truncated, info) -> tuple:
    """Steps [T, N, ...] as numpy arrays that can be written to; of infos, those that the world declares."""
    info = {name: info[name] for name in played.runner.env.spec.info}
    return jax.tree.map(np.array, (obs, after, action, reward, terminated, truncated, info))


def jax_chunks(played: Played, runner: Runner, seed: int) -> Iterator[tuple]:
    acting, key = member_first(played.acting), jax.random.PRNGKey(seed)

    def some(acting, carry, t):
        def one(carry, n):
            return runner.watch(acting, carry, jax.random.fold_in(key, t + n))

        return jax.lax.scan(one, carry, jnp.arange(CHUNK))

    start = vmapped(runner.start)
    watch = jax.jit(jax.vmap(some, in_axes=(0, 0, None), axis_name="members"))
    carry, t = start(acting, key[None]), 0
    while True:
        carry, made = watch(acting, carry, t)
        t += CHUNK
        made = jax.tree.map(lambda x: x[0], made)
        obs, after = (x["obs"] if runner.augments else x for x in (made.obs, made.next_obs))
        yield chunk(played, obs, after, made.action, made.reward, made.terminated, made.truncated, made.info)


def host_chunks(played: Played, runner: HostRunner, seed: int, seeds: list[int]) -> Iterator[tuple]:
    source = HostSource(runner.env, 1, runner.spec.lanes)
    try:
        acting, key = member_first(played.acting), jax.random.PRNGKey(seed)
        start, watch, decode = vmapped(runner.start), vmapped(runner.watch), jax.jit(runner.env.decode)
        (carry, actions), t = start(acting, key[None], source.reset(seeds).obs), 0
        while True:
            before, actions, arrived = source.step(actions)
            obs, after, *rest = jax.tree.map(
                lambda x: np.asarray(x)[0], (before.obs, arrived.obs, actions, arrived.reward, arrived.terminated, arrived.truncated, arrived.info)
            )
            yield chunk(played, *jax.tree.map(lambda x: np.asarray(x)[None], (decode(obs), decode(after), *rest)))
            carry, actions = watch(acting, carry, jax.random.fold_in(key, t)[None], before, actions, arrived)
            t += 1
    finally:
        source.close()
