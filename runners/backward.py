"""Go-Explore's second phase: a policy that survives chance is learnt from demonstrations, backwards from their ends ("First return, then
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
from typing import Any

import jax
import jax.numpy as jnp

from agents.base import Imitation
from agents.returns import gae
from envs.base import Environment, HostEnvironment, any_member, undisturbed
from envs.builder import FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Optional, Refusal, Text, options
from exploration.backward import Chosen, Ended, curriculum
from runners import demonstrations as demos
from runners import metrics as m
from runners.base import HostRunner, Runner
from runners.demonstrations import Replayed
from runners.guide import Guide, unguided
from runners.host_on_policy import host_on_policy
from runners.host_steering import host_steering
from runners.iteration import iteration
from runners.on_policy import training
from runners.ranges import Runs
from runners.rewards import RANGES, world_rewards
from runners.source import Source, jax_source, where
from runners.steering import Course, Rules, Steering, at_the_worlds_start, near_the_start, steering


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
    start_temperature=POSITIVE,
    start_steps=Integer(0),
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
    start_temperature: Any = 1.0,
    start_steps: int = 100,
    value_scale: Any = 10.0,
    imitation_lanes: int = 2,
    imitation_start: Any = 0.3,
    imitation_coef: Any = 0.1,
    imitation_value_coef: Any = 0.01,
    discount: Any = 0.999,
    extrinsic_weight: Any = 1.0,
    evaluation_mode: str = "greedy",
    axis: str | None = None,
) -> Runner | HostRunner:
    """Runner for ``make_agent(spec)``, of agents that learn from rollouts, and ``make_intrinsic(spec)``.

    Args:
      demonstrations: what ``runners/demonstrations.py`` reads; checksum: of their content; null is filled in when the run is made.
      window, move_threshold, move_every, retreat, later, virtual: of the curriculum, see ``exploration/backward.py``.
      context, lag, tolerance, linger: see the module docstring; the lag in steps, the tolerance as a part of the demonstration's score.
      start_temperature: of the policy in the first ``start_steps`` steps that it does in an episode; exploring, and in the losses.
      value_scale: mean of the absolute discounted rewards to go; None leaves rewards as they are.
      imitation_lanes: of the ``lanes``; imitation_start: the part of their steps in episodes from the demonstration's own start; imitation_coef and
        imitation_value_coef: see ``agents.base.Imitation``.
      discount, extrinsic_weight: of the world's own rewards.

    Raises Refusal without demonstrations, for worlds that cannot be put where demonstrations were, and for demonstrations that do not fit the world.
    """
    if demonstrations is None:
        raise Refusal("runner.demonstrations has no value; give a run of exploration=go_explore, as runner.demonstrations=runs/NAME, an .npz or a data set")
    hosted = isinstance(env, HostEnvironment)
    if imitation_lanes >= lanes:
        raise Refusal(f"runner.imitation_lanes={imitation_lanes} leaves none of runner.lanes={lanes} to act for itself; give fewer")
    world_stream = world_rewards(discount, extrinsic_weight)
    try:
        given = demos.read(demonstrations)
    except Refusal as missing:
        if checksum is None:
            raise
        pieces = iteration(env.spec._replace(lanes=lanes, axis=axis), make_agent, make_intrinsic, rewards=world_stream)
        if hosted:
            return watched_only(host_on_policy(env, pieces, lanes=lanes, rollout=rollout, evaluation_mode=evaluation_mode), missing)
        return watched_only(training(env, pieces, unguided(jax_source(env, lanes, axis)), rollout, evaluation_mode), missing)
    if checksum not in (None, demos.checksum(given)):
        raise Refusal(f"runner.demonstrations={demonstrations} are not what they were: their checksum is {demos.checksum(given)}, not {checksum}")
    made = demos.replayed(env, given)
    to_go = discounted(made, discount)
    scale = 1.0 if value_scale is None else value_scale / jnp.maximum(mean_value(made, to_go), 1e-8)

    def rewards(steps):
        stream = world_stream(steps)
        return stream._replace(reward=stream.reward * scale)

    pieces = iteration(env.spec._replace(lanes=lanes, axis=axis), make_agent, make_intrinsic, rewards=rewards, tally=None if hosted else env.tally)
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
    imitates = jnp.arange(lanes) >= acting
    rules = steering(made.lengths, made.returns, chooser, Rules(context, lag, tolerance, linger, imitation_start), imitates)

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

    def tell(state, steps, notes):
        del notes
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

    guide, temperature = Guide(chooser.init, tell, learnt, counted), near_the_start(start_temperature, start_steps)
    if hosted:
        way, env = host_steering(env, made, rules, temperature), env._replace(unsaved=None)  # what is steered is saved
        return host_on_policy(env, pieces, lanes=lanes, rollout=rollout, evaluation_mode=evaluation_mode, guide=guide, steering=way)
    source = jax_source(env, lanes, axis, note=at_the_worlds_start(len(given)))
    way = steered(env, source._replace(temperature=temperature and (lambda lanes_now: temperature(lanes_now.note))), made, rules)

    def begin(state, key, lanes_now):
        return way(state).restart(lanes_now, key, jnp.ones(lanes, bool))

    return training(env, pieces, guide._replace(source=source, begin=begin, steer=way), rollout, evaluation_mode)


def completed(entry: dict[str, Any]) -> dict[str, Any]:
    """The runner's entry with the checksum of its demonstrations, so that the run's hash depends on what they are."""
    if entry.get("demonstrations") is None or entry.get("checksum") is not None:
        return entry
    return entry | {"checksum": demos.checksum(demos.read(entry["demonstrations"]))}


backward.completed = completed  # type: ignore[attr-defined]


def watched_only(runner: Runner | HostRunner, why: Refusal) -> Runner | HostRunner:
    """``runner`` for who plays or exports a policy where its demonstrations are not; training it raises ``why``."""

    def refused(state, clock):
        raise why

    return runner._replace(begin=refused) if isinstance(runner, HostRunner) else runner._replace(step=refused, parts=None)


def discounted(made: Replayed, discount: Any) -> jax.Array:
    """Rewards to go, f32[D, L]."""
    nothing = jnp.zeros_like(made.rewards.T)
    return gae(made.rewards.T, nothing, nothing, discount, 1.0, nothing, nothing).T


def mean_value(made: Replayed, to_go: jax.Array) -> jax.Array:
    inside = jnp.arange(to_go.shape[1]) < jnp.asarray(made.lengths)[:, None]
    return jnp.sum(jnp.abs(to_go) * inside) / jnp.sum(inside)


def steered(env: Environment, source: Source, made: Replayed, rules: Steering) -> Callable[[Any], Source]:
    """state of the curriculum -> ``source`` whose episodes start and end as the curriculum has it."""
    heed, (number, longest) = undisturbed(env).heed, made.actions.shape[:2]

    def step(now, key, action):
        course: Course = now.note
        forced, real = course.forced, jnp.minimum(course.demonstration, number - 1)
        shown = made.actions[real, jnp.minimum(course.time, longest - 1)]
        action = where(forced, shown.astype(action.dtype), action)
        world = jax.tree.map(lambda a, b: where(forced, a, b), jax.vmap(heed)(now.world), now.world)
        now, transition = source.step(now._replace(world=world), key, action)
        course, judged = rules.judge(course, key, transition.info["episode_return"], transition.terminated, transition.truncated)
        transition = transition._replace(terminated=judged.terminated, truncated=judged.truncated, info=transition.info | judged.info)
        return now._replace(note=course), transition

    def restarted(state):
        def restart(now, key, mask, starts=None):
            assert starts is None

            def choose(now):
                course, fresh_key = rules.choose(state, key), jax.random.split(key, 3)[2]
                real, fresh = jnp.minimum(course.demonstration, number - 1), course.demonstration == number
                rows = jax.tree.map(lambda x: x[real, course.time], made.states._replace(note=()))._replace(note=course)
                return source.restart(source.restart(now, fresh_key, mask & ~fresh, rows), fresh_key, mask & fresh)

            return jax.lax.cond(any_member(mask, source.spec.axis), choose, lambda now: now, now)

        return source._replace(step=step, restart=restart)

    return restarted
