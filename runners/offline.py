"""Learning from a data set on disk, without steps in the world: batches are drawn from it, scored, learnt from, and shown to the bonus.

One iteration is ``updates`` batches, and a run's steps are these batches: ``total_steps`` counts gradient updates. The world is there for evaluation
episodes alone, and for its spaces, which the data must have. The data are on the device once, for all members, and part of no state: a checkpoint holds
what was learnt, a resumed run reads the data again, and ``checksum`` (filled in when the run is made, and in its hash) sees to it that
they are the same.

A bonus is worth in a batch what it is worth now, as in ``runners/off_policy.py``. What it gathers step by step (counts, running statistics) it
gathers along the data: each update shows it one step of each of ``lanes`` places, which go through the data in time order, round and round.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.base import Rollout, Signal
from agents.replay import Replay, ReplayState, Rows, replay
from envs.base import Environment, HostEnvironment, PyTree, Spec, Transition
from envs.builder import Choice, Integer, Optional, Refusal, Text, options
from runners import dataset, demonstrations
from runners import metrics as m
from runners.base import HostRunner, Runner
from runners.dataset import Episodes
from runners.host_interaction import host_interaction
from runners.interaction import interaction
from runners.iteration import iteration
from runners.replaying import prepared
from runners.rewards import RANGES, world_rewards
from runners.source import jax_source

LARGEST = 2**31  # bytes: the compiler takes no larger constants


class OfflineState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    agent: PyTree
    bonus: PyTree


class Data(NamedTuple):
    """A data set as a full replay of one lane."""

    buffer: Replay
    rows: ReplayState
    order: jax.Array  # i32[S]; the rows that have a step, in time order


@options(
    data=Optional(Text("the folder of a data set, or demonstrations")),
    checksum=Optional(Text("eight hexadecimal digits")),
    lanes=Integer(1, 2**20),
    updates=Integer(1, 2**20),
    batch_size=Integer(1, 2**20),
    n_step=Integer(1, 1000),
    **RANGES,
    evaluation_mode=Choice(("greedy", "explore")),
)
def offline(
    env: Environment | HostEnvironment,
    make_agent: Callable,
    make_intrinsic: Callable,
    *,
    data: str | None = None,
    checksum: str | None = None,
    lanes: int = 8,
    updates: int = 1,
    batch_size: int = 256,
    n_step: int = 1,
    discount: Any = 0.99,
    extrinsic_weight: Any = 1.0,
    reward_shift: Any = 0.0,
    shift_mode: str = "reward",
    evaluation_mode: str = "greedy",
    axis: str | None = None,
) -> Runner:
    """Runner for ``make_agent(spec)`` and ``make_intrinsic(spec)``.

    Args:
      data: folder of a data set in minari's format, or demonstrations, which are made again in a JAX world: an .npz, or a run that has some.
      checksum: of its content; null is filled in when the run is made.
      lanes: worlds side by side in an evaluation, so its episodes; and places in the data that a bonus is led along.
      updates: batches of an iteration.
      batch_size: samples of a batch.
      n_step: steps of which rewards are summed before the bootstrap.
      discount, extrinsic_weight, reward_shift, shift_mode: of the data's rewards (``runners/rewards.py``); those of the bonus come with
        ``make_intrinsic``.
      evaluation_mode: how the agent acts when it is evaluated.

    Raises Refusal without data, for a bonus that scores steps when they are made or augments observations, and, once the data are read, where they
    are not those of the checksum or not of the world's spaces.
    """
    if data is None:
        raise Refusal("runner.data has no value; give the folder of a data set, as runner.data=data/NAME-v0; scripts/farlands export RUN DIRECTORY writes one")
    pieces = iteration(
        env.spec._replace(lanes=lanes, axis=axis),
        make_agent,
        make_intrinsic,
        rewards=world_rewards(discount, extrinsic_weight, reward_shift, shift_mode),
        learns_from="replay",
    )
    agent, bonus, spec = pieces.agent, pieces.bonus, pieces.spec
    if bonus.info.stores:
        raise Refusal("runner=offline: this bonus notes something as a step is made, and the data's steps are made; use exploration=none, or one scored=batch")
    if bonus.info.augments:
        raise Refusal("runner=offline has observations that were made elsewhere, and this bonus augments them; leave augment out")
    names = {field[5:] for field in (*bonus.info.needs, *bonus.info.learns_from) if field.startswith("info.")}

    @functools.cache
    def source() -> Data:
        """Read when a program that learns is traced: a policy can be played without its data."""
        refuse_extras(agent, spec)
        with jax.ensure_compile_time_eval():
            return laid_out(episodes(data, checksum, env, names), env.spec, n_step)

    def walk(state, key, begin, steps: int):
        """The bonus is shown ``steps`` steps of every place, from the step ``begin`` on -> (bonus state, metrics)."""
        rows, order = source().rows.rows, source().order
        number = order.shape[0]
        places = jnp.arange(lanes) * (number // lanes)

        def one(bonus_state, t):
            at = order[(places + begin + t) % number]
            step = jax.tree.map(lambda x: x[at, 0], rows.step[0])
            obs, after = (jax.tree.map(lambda x, i=i: x[i, 0], rows.obs) for i in (at, at + 1))
            return pieces.observed(state.agent, bonus_state, jax.random.fold_in(key, t), step._replace(obs=obs, next_obs=after), obs)

        bonus_state, seen = jax.lax.scan(one, state.bonus, jnp.arange(steps))
        bonus_state, _, metrics = pieces.assess(state.agent, bonus_state, Rollout(seen, (), (), (), (), ()))
        return bonus_state, metrics

    def init(key):
        agent_key, bonus_key, walk_key, member_key = jax.random.split(key, 4)
        state = OfflineState(member_key, agent.init(agent_key), bonus.init(bonus_key))
        return state._replace(bonus=walk(state, walk_key, 0, bonus.info.warmup)[0]) if bonus.info.warmup else state

    def lesson(state, key, progress):
        """One batch -> (state, metrics)."""
        draw_key, learn_key, bonus_key = jax.random.split(key, 3)
        drawn = source().buffer.draw(source().rows, draw_key, batch_size, 1.0)
        sample, streams, steps = prepared(pieces, state.agent, state.bonus, drawn)
        signal = Signal(streams, progress, regulariser=pieces.regulariser(state.agent, state.bonus))
        agent_state, learnt = agent.learn(state.agent, learn_key, (sample, signal))
        bonus_state, found = bonus.update(state.bonus, bonus_key, (steps, learnt.payload))
        metrics = learnt.metrics | {f"bonus/{name}": value for name, value in found.items()}
        return state._replace(agent=agent_state, bonus=bonus_state), jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), metrics)

    def step(state, clock):
        walk_key, learn_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration))
        metrics = {}
        if bonus.info.intrinsic:
            begin = clock.iteration % source().order.shape[0] * updates
            bonus_state, metrics = walk(state, walk_key, begin, updates)
            state = state._replace(bonus=bonus_state)
        state, found = jax.lax.scan(lambda state, key: lesson(state, key, clock.progress), state, jax.random.split(learn_key, updates))
        return state, m.typed(metrics | {name: jnp.mean(values) for name, values in found.items()})

    def parts():
        return {"drawing, learning, and the rest": step}

    if isinstance(env, HostEnvironment):
        acts = host_interaction(env, pieces, lanes=lanes, rollout=1, evaluation_mode=evaluation_mode)
        unsaved = env._replace(unsaved=None)  # no world is kept from one evaluation to the next
        ways = (acts.start, acts.watch)
        return HostRunner(lambda key, obs: init(key), None, 0, None, None, None, step, *ways, 0, spec, updates, unsaved, agent, False)  # type: ignore[return-value]
    acts = interaction(jax_source(env, lanes, axis), pieces, evaluation_mode)
    return Runner(init, step, acts.evaluate, spec, updates, env, acts.start, acts.watch, parts, agent, False)


def completed(entry: dict[str, Any]) -> dict[str, Any]:
    """The runner's entry with the checksum of its data, so that the run's hash depends on what they hold."""
    if entry.get("data") is None or entry.get("checksum") is not None:
        return entry
    path = entry["data"]
    return entry | {"checksum": demonstrations.checksum(demonstrations.read(path)) if demonstrations.are(path) else dataset.read(path).checksum}


offline.completed = completed  # type: ignore[attr-defined]


def episodes(path: str, wanted: str | None, env: Environment | HostEnvironment, names: set[str]) -> Episodes:
    """The data, in the world's dtypes; demonstrations are made again in it. Raises Refusal where they are not those of the checksum, and for what
    ``dataset.fitted`` or ``demonstrations.replayed`` refuses."""
    if demonstrations.are(path):
        given = demonstrations.read(path)
        refuse_others(path, wanted, demonstrations.checksum(given))
        if isinstance(env, HostEnvironment):
            raise Refusal(f"runner.data={path} are demonstrations, which are made again in JAX worlds alone; {env.spec.name!r} lives on the host")
        if names:
            raise Refusal(f"runner.data={path} are demonstrations, without the infos {', '.join(sorted(names))} that the bonus reads; use exploration=none")
        return demonstrations.episodes(env, given)
    data = dataset.read(path)
    refuse_others(path, wanted, data.checksum)
    return dataset.fitted(data, env.spec, path, names)


def refuse_others(path: str, wanted: str | None, found: str) -> None:
    if wanted not in (None, found):
        raise Refusal(f"runner.data={path} is not what it was: its checksum is {found}, and runner.checksum={wanted}")


def laid_out(made: Episodes, spec: Spec, n_step: int = 1) -> Data:
    """Episodes as the rows of a replay, back to back, each with a row more than it has steps: the last keeps the true successor, and has no step."""
    steps, number = len(made.reward), len(made.lengths)
    total = max(steps + number, n_step + 3)  # fewer a replay does not take; rows without a step are never drawn
    starts = np.cumsum(made.lengths) - made.lengths
    order = np.arange(steps) + np.repeat(np.arange(number), made.lengths)
    first = np.zeros(steps, bool)
    first[starts] = True

    def scattered(values):
        rows = np.zeros((total, 1, *values.shape[1:]), values.dtype)
        rows[order, 0] = values
        return jnp.asarray(rows)

    def padded(values):
        return jnp.asarray(np.concatenate([values, np.zeros((total - len(values), *values.shape[1:]), values.dtype)])[:, None])

    size = sum(x.nbytes for x in jax.tree.leaves(made))
    if size > LARGEST:
        raise Refusal(f"the data set has {size:,} bytes; at most {LARGEST:,} are taken into a program")
    step = Transition(None, made.action, made.reward, None, made.terminated, made.truncated, first, made.info)
    rows = Rows(jax.tree.map(padded, made.obs), (jax.tree.map(scattered, step), ()), scattered(np.ones(steps, bool)), (), ())
    state = ReplayState(rows, jnp.full(1, total - 1, jnp.int32), jnp.full(1, total, jnp.int32), (), jnp.float32(1.0))
    return Data(replay(spec._replace(lanes=1), capacity=total, n_step=n_step), state, jnp.asarray(order, jnp.int32))


def refuse_extras(agent: Any, spec: Spec) -> None:
    """Raises Refusal for agents that keep something of their own with every step: the data have none of it."""

    def extras(key):
        state = agent.init(key)
        obs = jax.tree.map(lambda x: jnp.broadcast_to(x, (spec.lanes, *x.shape)), example(spec))
        return agent.act(state, key, (agent.start(state, spec.lanes), obs, jnp.ones(spec.lanes, bool), "explore"))[2]

    if jax.tree.leaves(jax.eval_shape(jax.vmap(extras, axis_name=spec.axis), jax.ShapeDtypeStruct((1, 2), jnp.uint32))):
        raise Refusal("this agent keeps something with every step that it makes itself, and a data set has none of it; use another agent with runner=offline")


def example(spec: Spec) -> PyTree:
    from agents.networks import dummy

    return dummy(spec.observation, ())
