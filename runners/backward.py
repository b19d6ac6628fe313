"""Go-Explore's second phase on JAX worlds: a policy that survives chance is learnt from demonstrations, backwards from their ends ("First return, then
explore", arXiv 2004.12919; the backward algorithm, Salimans and Chen, arXiv 1812.03381).

An iteration is that of ``runners/on_policy.py``, whose lanes are steered: episodes start at states of demonstrations, which the curriculum chooses
(``exploration/backward.py``), or at the world's own start (the virtual demonstration). An episode that starts at step s of a demonstration

- first does again what the demonstration did in the ``context`` steps before s, for the memory of a recurrent agent; these steps are not learnt from;
- is a success once its score is the demonstration's final one, less ``tolerance`` of it; it is cut (truncated) up to e^``linger`` steps after it has reached
  the highest one, and counts as one then, or when it ends by itself;
- fails (terminates) where its score is below all that the demonstration has within ``lag`` steps of now.

The last ``imitation_lanes`` lanes do all that a demonstration does, and their steps are imitated where that paid more than the agent expected. Rewards are
scaled so that the demonstrations' discounted rewards to go are ``value_scale`` on average. Evaluations are in the world as it is, from its own start, and
``episode/...`` counts only episodes from there.

Departures: no burn-in of rollouts, since the memory that they began with is kept; no L2 term; no lower temperature in tests; the
virtual demonstration has no lag rule, and its success is the lowest final score of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.base import Imitation
from agents.returns import gae
from envs.base import Environment, HostEnvironment, any_member, undisturbed
from envs.builder import FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Optional, Refusal, Text, options
from exploration.backward import Chosen, Curriculum, Ended, curriculum
from runners import demonstrations as demos
from runners import metrics as m
from runners.base import Runner
from runners.demonstrations import Replayed
from runners.iteration import iteration
from runners.on_policy import Guide, training, unguided
from runners.ranges import Runs
from runners.rewards import RANGES, world_rewards
from runners.source import Source, jax_source, where


class Course(NamedTuple):
    """Where a lane's episode is in its demonstration."""

    demonstration: jax.Array  # i32; D: the virtual one
    start: jax.Array  # i32; steps of the demonstration that the agent did not do
    time: jax.Array  # i32; steps of the demonstration that are done, if the agent is as fast
    until: jax.Array  # i32; until then the demonstration's actions are done
    left: jax.Array  # i32; steps until the episode is cut; -1 before it has succeeded


@options(
    demonstrations=Optional(Runs("a run with demonstrations, an .npz or a data set, as runs/mine, or a list of them")),
    checksum=Optional(Text("eight hexadecimal digits")),
    lanes=Integer(1, 2**20),
    rollout=Integer(1, 2**20),
    window=Integer(1),
    move_threshold=FRACTION,
    move_every=Integer(1),
    retreat=Integer(0),
    later=FRACTION,
    virtual=Choice((True, False)),
    context=Integer(0),
    lag=Integer(0),
    tolerance=FRACTION,
    linger=NON_NEGATIVE,
    value_scale=Optional(POSITIVE),
    imitation_lanes=Integer(0),
    imitation_start=FRACTION,
    imitation_coef=NON_NEGATIVE,
    imitation_value_coef=NON_NEGATIVE,
    **{name: RANGES[name] for name in ("discount", "extrinsic_weight")},
    evaluation_mode=Choice(("greedy", "explore")),
)
def backward(
    env: Environment | HostEnvironment,
    make_agent: Callable,
    make_intrinsic: Callable,
    *,
    demonstrations: str | list[str] | None = None,
    checksum: str | None = None,
    lanes: int = 32,
    rollout: int = 128,
    window: int = 160,
    move_threshold: Any = 0.1,
    move_every: int = 200,
    retreat: int = 100,
    later: Any = 0.2,
    virtual: bool = True,
    context: int = 0,
    lag: int = 50,
    tolerance: Any = 0.0,
    linger: Any = 7.0,
    value_scale: Any = 10.0,
    imitation_lanes: int = 2,
    imitation_start: Any = 0.3,
    imitation_coef: Any = 0.1,
    imitation_value_coef: Any = 0.01,
    discount: Any = 0.999,
    extrinsic_weight: Any = 1.0,
    evaluation_mode: str = "greedy",
    axis: str | None = None,
) -> Runner:
    """Runner for ``make_agent(spec)``, of agents that learn from rollouts, and ``make_intrinsic(spec)``.

    Args:
      demonstrations: what ``runners/demonstrations.py`` reads; checksum: of their content; null is filled in when the run is made.
      window, move_threshold, move_every, retreat, later, virtual: of the curriculum, see ``exploration/backward.py``.
      context, lag, tolerance, linger: see the module docstring; the lag in steps, the tolerance as a part of the demonstration's score.
      value_scale: mean of the absolute discounted rewards to go; None leaves rewards as they are.
      imitation_lanes: of the ``lanes``; imitation_start: the part of their steps in episodes from the demonstration's own start; imitation_coef and
        imitation_value_coef: see ``agents.base.Imitation``.
      discount, extrinsic_weight: of the world's own rewards.

    Raises Refusal without demonstrations, for worlds on the host, and, when the run is made, for demonstrations that do not fit the world.
    """
    if demonstrations is None:
        raise Refusal("runner.demonstrations has no value; give a run of exploration=go_explore, as runner.demonstrations=runs/NAME, an .npz or a data set")
    if isinstance(env, HostEnvironment):
        raise Refusal(f"runner=backward starts episodes at states of demonstrations, and the world {env.spec.name!r} cannot be put there; use a JAX world")
    if imitation_lanes >= lanes:
        raise Refusal(f"runner.imitation_lanes={imitation_lanes} leaves none of runner.lanes={lanes} to act for itself; give fewer")
    world_stream = world_rewards(discount, extrinsic_weight)
    try:
        given = demos.read(demonstrations)
    except Refusal as missing:
        if checksum is None:
            raise
        pieces = iteration(env.spec._replace(lanes=lanes, axis=axis), make_agent, make_intrinsic, rewards=world_stream)
        return watched_only(training(env, pieces, unguided(jax_source(env, lanes, axis)), rollout, evaluation_mode), missing)
    if checksum not in (None, demos.checksum(given)):
        raise Refusal(f"runner.demonstrations={demonstrations} are not what they were: their checksum is {demos.checksum(given)}, not {checksum}")
    made = demos.replayed(env, given)
    to_go = discounted(made, discount)
    scale = 1.0 if value_scale is None else value_scale / jnp.maximum(mean_value(made, to_go), 1e-8)

    def rewards(steps):
        stream = world_stream(steps)
        return stream._replace(reward=stream.reward * scale)

    pieces = iteration(env.spec._replace(lanes=lanes, axis=axis), make_agent, make_intrinsic, rewards=rewards, tally=env.tally)
    acting = lanes - imitation_lanes
    chooser = curriculum(
        made.lengths,
        lanes=acting,
        window=window,
        move_threshold=move_threshold,
        move_every=move_every,
        retreat=retreat,
        later=later,
        virtual=virtual,
    )
    rules = Rules(context, lag, tolerance, linger, imitation_start)
    source = jax_source(env, lanes, axis, note=at_the_worlds_start(len(given)))
    imitates = jnp.arange(lanes) >= acting
    way = steering(env, source, made, chooser, rules, imitates)

    def learnt(assessed):
        info = assessed.steps.info
        forced, at = info["forced"], (jnp.minimum(info["demonstration"], len(given) - 1), jnp.minimum(info["elapsed"], made.actions.shape[1] - 1))
        if not imitation_lanes:
            return assessed._replace(weights=1.0 - forced)
        found = Imitation(forced * imitates, to_go[at] * scale, imitation_coef, imitation_value_coef)
        return assessed._replace(weights=1.0 - forced, imitation=found)

    def counted(assessed):
        """Of episodes that started elsewhere, no ends."""
        own = assessed.steps.info["demonstration"] == len(given)
        steps = assessed.steps
        return assessed._replace(steps=steps._replace(terminated=steps.terminated & own, truncated=steps.truncated & own))

    def tell(state, steps):
        info, virtual_one = steps.info, steps.info["demonstration"] == len(given)
        where = steps.done & ~imitates
        chosen = Chosen(info["demonstration"], info["start"])
        state = chooser.tell(state, Ended(where, chosen, info["succeeded"], info["elapsed"] + 1 - info["start"]), rollout)
        last = state.last.astype(jnp.float32)
        return state, {
            "backward/start": m.Last(jnp.mean(last)),
            "backward/start_first": m.Last(jnp.min(last)),
            "backward/start_last": m.Last(jnp.max(last)),
            "backward/left": m.Last(jnp.mean(last / jnp.maximum(made.lengths - 1, 1))),
            "backward/moves": m.Last(state.moves),
            "backward/success": m.mean(info["succeeded"], where & ~virtual_one),
            "backward/late": m.mean(info["late"], where & ~virtual_one),
            "backward/success_from_start": m.mean(info["succeeded"], where & virtual_one),
            "backward/own_steps": m.mean(~info["forced"]),
        }

    def begin(state, key, lanes_now):
        return way(state).restart(lanes_now, key, jnp.ones(lanes, bool))

    guide = Guide(source, chooser.init, begin, way, tell, learnt, counted)
    return training(env, pieces, guide, rollout, evaluation_mode)


def completed(entry: dict[str, Any]) -> dict[str, Any]:
    """The runner's entry with the checksum of its demonstrations, so that the run's hash depends on what they are."""
    if entry.get("demonstrations") is None or entry.get("checksum") is not None:
        return entry
    return entry | {"checksum": demos.checksum(demos.read(entry["demonstrations"]))}


backward.completed = completed  # type: ignore[attr-defined]


def watched_only(runner: Runner, why: Refusal) -> Runner:
    """``runner`` for who plays or exports a policy where its demonstrations are not; training it raises ``why``."""

    def step(state, clock):
        raise why

    return runner._replace(step=step, parts=None)


class Rules(NamedTuple):
    context: int
    lag: int
    tolerance: Any
    linger: Any
    imitation_start: Any


def at_the_worlds_start(demonstrations: int) -> Course:
    return Course(jnp.int32(demonstrations), jnp.int32(0), jnp.int32(0), jnp.int32(0), jnp.int32(-1))


def discounted(made: Replayed, discount: Any) -> jax.Array:
    """Rewards to go, f32[D, L]."""
    nothing = jnp.zeros_like(made.rewards.T)
    return gae(made.rewards.T, nothing, nothing, discount, 1.0, nothing, nothing).T


def mean_value(made: Replayed, to_go: jax.Array) -> jax.Array:
    inside = jnp.arange(to_go.shape[1]) < jnp.asarray(made.lengths)[:, None]
    return jnp.sum(jnp.abs(to_go) * inside) / jnp.sum(inside)


def lowest(returns: np.ndarray, lag: int) -> np.ndarray:
    """f32[D, L + 1 + lag]: the least of ``returns`` [D, L + 1] within ``lag`` steps of a time; after the last time they stay as they are."""
    longest = returns.shape[1] - 1
    around = np.arange(longest + 1 + lag)[:, None] + np.arange(-lag, lag + 1)
    return np.min(returns[:, np.clip(around, 0, longest)], axis=-1)


def steering(env: Environment, source: Source, made: Replayed, chooser: Curriculum, rules: Rules, imitates: jax.Array) -> Callable[[Any], Source]:
    """state of the curriculum -> ``source`` whose episodes start and end as the curriculum has it. Its steps tell, in their info, which demonstration and start
    they belong to, how much of it is done before the step (elapsed), and whether they were forced, have succeeded, or are late."""
    lanes, heed = imitates.shape[0], undisturbed(env).heed
    number, longest = made.actions.shape[:2]
    lengths, final, highest = jnp.asarray(made.lengths), jnp.asarray(made.returns[:, -1]), jnp.asarray(made.returns.max(axis=1))
    goals = final - rules.tolerance * jnp.abs(final)
    goals, tops = jnp.append(goals, jnp.min(goals)), jnp.append(highest - rules.tolerance * jnp.abs(highest), jnp.min(goals))
    least = jnp.asarray(lowest(made.returns, rules.lag))

    def step(now, key, action):
        course: Course = now.note
        forced, real = course.time < course.until, jnp.minimum(course.demonstration, number - 1)
        own = course.demonstration == number
        shown = made.actions[real, jnp.minimum(course.time, longest - 1)]
        action = where(forced, shown.astype(action.dtype), action)
        world = jax.tree.map(lambda a, b: where(forced, a, b), jax.vmap(heed)(now.world), now.world)
        now, transition = source.step(now._replace(world=world), key, action)
        score, time = transition.info["episode_return"], course.time + 1

        reached = (course.left < 0) & (score >= tops[course.demonstration])
        some = jnp.floor(jnp.exp(rules.linger * jax.random.uniform(jax.random.fold_in(key, 1), (lanes,)))).astype(jnp.int32)
        left = jnp.where(reached, some, jnp.maximum(course.left - 1, -1))
        over = (course.left > 0) & (left == 0)
        tolerated = rules.tolerance * jnp.abs(final[real])
        late = ~own & ~forced & (score < least[real, jnp.minimum(time, least.shape[1] - 1)] - tolerated)
        shown_all = imitates & (time >= course.until)
        cut = (over & ~forced) | shown_all
        terminated = transition.terminated | late
        info = transition.info | {
            "demonstration": course.demonstration,
            "start": course.start,
            "elapsed": course.time,
            "forced": forced,
            "succeeded": score >= goals[course.demonstration],
            "late": late,
        }
        transition = transition._replace(terminated=terminated, truncated=transition.truncated | cut & ~terminated, info=info)
        return now._replace(note=course._replace(time=time, left=left)), transition

    def restarted(state):
        def restart(now, key, mask, starts=None):
            assert starts is None

            def choose(now):
                choice_key, imitation_key, fresh_key = jax.random.split(key, 3)
                chosen = chooser.starts(state, choice_key, jnp.arange(lanes, dtype=jnp.int32))
                imitated = to_imitate(state, imitation_key)
                demo = jnp.where(imitates, imitated.demonstration, chosen.demonstration)
                start = jnp.where(imitates, imitated.start, chosen.start)
                real, at = jnp.minimum(demo, number - 1), jnp.maximum(start - jnp.where(imitates, 0, rules.context), 0)
                rows = jax.tree.map(lambda x: x[real, at], made.states._replace(note=()))
                until = jnp.where(imitates, lengths[real], start)
                rows = rows._replace(note=Course(demo, start, at, until, jnp.full(lanes, -1, jnp.int32)))
                fresh = demo == number
                now = source.restart(now, fresh_key, mask & ~fresh, rows)
                return source.restart(now, fresh_key, mask & fresh)

            return jax.lax.cond(any_member(mask, source.spec.axis), choose, lambda now: now, now)

        return source._replace(step=step, restart=restart)

    def to_imitate(state, key) -> Chosen:
        """Any demonstration alike, from its own start so that ``imitation_start`` of the steps are in such episodes, or from the last start."""
        demo_key, start_key = jax.random.split(key)
        demo = jax.random.randint(demo_key, (lanes,), 0, number)
        whole, rest = lengths[demo], lengths[demo] - state.last[demo]
        from_start, later = rules.imitation_start / whole, (1.0 - rules.imitation_start) / rest
        begins = jax.random.uniform(start_key, (lanes,)) < from_start / (from_start + later)
        return Chosen(demo, jnp.where(begins, 0, state.last[demo]))

    return restarted
