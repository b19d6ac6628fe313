"""Trying policies: an episode of a JAX world for each genome of a batch, and what it gave (fitness, descriptor, reward area)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.base import Agent
from envs.base import Environment, Spec, Transition
from envs.builder import Refusal, locate
from exploration.base import Evaluation
from exploration.watching import Watcher
from runners.iteration import EVALUATION_LIMIT


class Tried(NamedTuple):
    """A batch of P."""

    evaluation: Evaluation
    steps: jax.Array  # i32[P]; that the episodes took
    outside: jax.Array  # bool[P]; the descriptor was outside its box, and was clipped


def described(spec: Spec, descriptor: str, box: Sequence | None) -> tuple[Spec, Callable[[Transition], jax.Array]]:
    """(``spec`` whose info has the box of the descriptor, function of a step). ``descriptor``: "auto" for the world's own, or the import path of
    a function Transition -> f32[d], then with ``box`` [lows, highs]. Raises Refusal where neither gives one."""
    if descriptor == "auto":
        if box is not None:
            raise Refusal("runner.box belongs to a descriptor of your own; give runner.descriptor=your.function too, or leave it out")
        if "descriptor" in spec.info and np.all(np.isfinite([spec.info["descriptor"].low, spec.info["descriptor"].high])):
            return spec, lambda t: t.info["descriptor"].astype(jnp.float32)
        if "position" in spec.info:
            place = spec.info["position"]
            space = spaces.Box(place.low.astype(np.float32), place.high.astype(np.float32) + 1)
            return spec._replace(info={**spec.info, "descriptor": space}), lambda t: t.info["position"].astype(jnp.float32) + 0.5
        raise Refusal(f"the world {spec.name!r} describes no behaviour; say what it is: runner.descriptor=your.function 'runner.box=[[-1,-1],[1,1]]'")
    function = locate(descriptor, "runner.descriptor")
    try:
        low, high = (np.asarray(side, np.float32) for side in box)
        assert low.ndim == 1 and low.shape == high.shape and np.all(low < high)
    except (TypeError, ValueError, AssertionError):
        raise Refusal(f"runner.descriptor needs its box, the lowest and the highest numbers: 'runner.box=[[-1,-1],[1,1]]'; given: {box}") from None
    return spec._replace(info={**spec.info, "descriptor": spaces.Box(low, high)}), function


def tryout(env: Environment, agent: Agent, spec: Spec, descriptor: Callable, fixed_start: bool, watch: Callable | None = None) -> Callable:
    """(genomes f32[P, G], wanted bool[P], key) -> ``Tried`` [P]. An episode lasts until it ends, at most the world's limit. ``fixed_start``: all share their
    random numbers, so a genome always gives the same. ``watch``: what of an episode is kept as its outcome (``exploration/watching.py``)."""
    box, limit = spec.info["descriptor"], spec.max_steps or EVALUATION_LIMIT
    areas = "area" in spec.info
    watcher = watch(env, limit) if watch else Watcher(lambda world, obs: (), lambda kept, number, world, obs: kept, lambda kept: None)

    def episode(genome, wanted, key):
        policy = agent.genome.decode(genome)
        world, obs = env.reset(jax.random.fold_in(key, 0))
        nowhere = jnp.zeros(box.shape, jnp.float32)

        def going(carry):
            return carry[-1]

        def one(carry):
            t, world, obs, memory, total, _, area, kept, _ = carry
            act_key, step_key = jax.random.split(jax.random.fold_in(key, t + 1))
            first = t == 0
            memory, action, _ = agent.act(policy, act_key, (memory, obs[None], first[None], "greedy"))
            world, new = env.step(world, step_key, action[0])
            step = Transition(obs, action[0], new.reward.astype(jnp.float32), new.obs, new.terminated, new.truncated, first, new.info)
            area = jnp.maximum(area, new.info["area"]) if areas else area
            more = ~step.done & (t + 1 < limit)
            kept = watcher.step(kept, t, world, new.obs)
            return t + 1, world, new.obs, memory, total + step.reward, descriptor(step), area, kept, more

        start = (jnp.int32(0), world, obs, agent.start(policy, 1), jnp.float32(0), nowhere, jnp.int32(0), watcher.begin(world, obs), wanted)
        steps, _, _, _, total, place, area, kept, _ = jax.lax.while_loop(going, one, start)
        return total, place, area, steps, watcher.outcome(kept)

    def run(genomes, wanted, key):
        keys = jnp.broadcast_to(key, (genomes.shape[0], *key.shape)) if fixed_start else jax.random.split(key, genomes.shape[0])
        total, place, area, steps, outcome = jax.vmap(episode)(genomes, wanted, keys)
        return judged(total, place, area, steps, outcome, wanted, box)

    return run


def judged(total, place, area, steps, outcome, wanted, box: spaces.Box) -> Tried:
    """What episodes gave, [P]: the return, the descriptor f32[P, d], the reward area, the steps, the outcome of a watcher; nothing counts that is not
    ``wanted`` or is NaN, and descriptors are clipped to their box."""
    broken = [jnp.isnan(x).reshape(len(wanted), -1).any(-1) for x in jax.tree.leaves((total, place, outcome)) if jnp.issubdtype(x.dtype, jnp.floating)]
    valid = wanted & ~jnp.any(jnp.stack(broken), axis=0)
    inside = jnp.clip(jnp.where(valid[:, None], place, box.low), box.low, box.high)
    outside = valid & jnp.any(inside != place, axis=-1)
    return Tried(Evaluation(jnp.where(valid, total, -jnp.inf), inside, wanted, valid, jnp.where(valid, area, 0), outcome), steps, outside)
