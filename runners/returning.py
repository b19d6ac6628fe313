"""How lanes of a JAX world return to cells: the goals that they are shown, what pays, what ends (``runners/policy_go_explore.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, any_member, sample_action
from exploration.go_explore import draw
from exploration.hash_table import lookup
from exploration.recordings import Recordings, recorded
from exploration.routes import Routes, advance, best, choose, weights
from runners import showing
from runners.showing import Showing
from runners.source import Source, where


class Known(NamedTuple):
    """What a member knows of its world."""

    routes: Routes
    kept: Recordings | tuple = ()  # (): nothing is imitated


class Journey(NamedTuple):
    """Where a lane is on its way."""

    way: jax.Array  # i32[M]; the sub-goals
    count: jax.Array  # i32; of them; 0: nothing to return to
    pointer: jax.Array  # i32; the next one
    pace: jax.Array  # f32; steps per sub-goal of the way
    exploring: jax.Array  # bool; the return is over
    random: jax.Array  # bool; exploring is by actions that are drawn
    action: jax.Array  # of those, the one that is kept
    goal: jax.Array  # i32; the cell that the policy goes to when exploring, -1: none
    since: jax.Array  # i32; steps since a sub-goal, or since a new cell
    chased: jax.Array  # i32; steps since the goal was drawn
    position: jax.Array  # i32[2]; row and column, in worlds that are maps; -1 before the first step
    showing: Showing  # what the lane shows of a recorded way there, where it imitates
    to_go: jax.Array  # f32[L]; discounted rewards of that way from each of its steps on


class Rules(NamedTuple):
    """The options that steering needs."""

    actions_weight: Any
    window: int
    sub_goal_reward: Any
    final_reward: Any
    clip: Any
    random: Any
    mean_run: int
    goal_steps: int
    patience: int
    overdue: Any
    give_up: int
    extrinsic_weight: Any = 1.0
    discount: Any = 0.99
    imitation_lanes: int = 0


def shown_space(env: Environment) -> spaces.Dict:
    """What the agent sees."""
    shown = {"world": env.spec.observation, "goal": env.spec.observation}
    if env.spec.grid:
        shown["place"] = spaces.Box(0.0, 1.0, (sum(2 * side - 1 for side in env.spec.grid),), np.float32)
    return spaces.Dict(shown)


def looks(env: Environment, obs, position) -> dict:
    """What is kept of a cell that was reached."""
    return {"goal": obs, "place": position} if env.spec.grid else {"goal": obs}


def nowhere(longest: int, env: Environment, tape: int = 1) -> Journey:
    """At the start of a world, with ways of at most ``longest`` cells and recordings of ``tape`` steps."""
    action = sample_action(env.spec.action, jax.random.PRNGKey(0), 1)[0]
    zero, no, unknown = jnp.int32(0), jnp.bool_(False), jnp.full(2, -1, jnp.int32)
    at, shown = (jnp.zeros_like(action), jnp.int32(-1), zero, zero, unknown), Showing(zero, zero, zero)
    return Journey(jnp.zeros(longest, jnp.int32), zero, zero, jnp.float32(1), no, no, *at, shown, jnp.zeros(tape, jnp.float32))


def steering(env: Environment, source: Source, identify: Callable, rules: Rules) -> Callable[..., Source]:
    """(Known, to_the_best=False) -> ``source`` whose lanes go to cells, the last ``imitation_lanes`` by showing recorded ways there.

    Its steps tell, in their info, the cell that they reached (``cell``), whether the lane was ``exploring`` before the step, at which ``temperature``, whether
    it ``arrived`` with it, and how many ``sub_goals`` of its way were reached; where there are lanes that imitate also the world's ``own_reward``, whether the
    step is shown (``imitated``), and the discounted rewards ``to_go`` from it on, if it is."""
    lanes, space = source.spec.lanes, env.spec.action
    imitates = jnp.arange(lanes) >= lanes - rules.imitation_lanes

    def onwards(way, count, pointer, cell, own):
        """A step of a return: (the next sub-goal i32[N], whether it was the last bool[N], reward f32[N])."""
        after = advance(way, count, pointer, cell, rules.window)
        arrived = (after > pointer) & (after == count)
        return after, arrived, valued(own) + jnp.where(arrived, rules.final_reward, jnp.where(after > pointer, rules.sub_goal_reward, 0.0))

    def valued(own):
        return rules.extrinsic_weight * (own if rules.clip is None else jnp.clip(own, -rules.clip, rules.clip))

    def steered(known_to_it: Known, to_the_best: bool = False) -> Source:
        state, kept = known_to_it
        weight = weights(state, rules.actions_weight)
        known = weight > 0
        some = jnp.any(known)
        imitation = bool(rules.imitation_lanes) and not to_the_best

        def goal_of(journey: Journey):
            """i32[N]; the cell that the agent is shown, -1: none."""
            at = jnp.clip(journey.pointer, 0, jnp.maximum(journey.count - 1, 0))
            ahead = jnp.take_along_axis(journey.way, at[:, None], axis=1)[:, 0]
            return jnp.where(journey.exploring, journey.goal, jnp.where(journey.count > 0, ahead, -1))

        def shown(obs, journey: Journey):
            goal = goal_of(journey)
            look = jax.tree.map(lambda x: where(goal >= 0, x[jnp.maximum(goal, 0)], jnp.zeros((), x.dtype)), state.look)
            made = {"world": obs, "goal": look["goal"]}
            if env.spec.grid:
                away = look["place"] - journey.position
                hot = [jax.nn.one_hot(away[:, axis] + side - 1, 2 * side - 1) for axis, side in enumerate(env.spec.grid)]
                made["place"] = jnp.concatenate(hot, axis=1) * ((goal >= 0) & (journey.position[:, 0] >= 0))[:, None]
            return made

        def temperature(now):
            journey: Journey = now.note
            late = jnp.maximum(journey.since - jnp.where(journey.exploring, rules.patience, journey.pace), 0.0)
            return jnp.where(journey.showing.on, 1.0, 1.0 + jnp.square(rules.overdue * late)).astype(jnp.float32)

        def drawn(journey: Journey, key) -> Journey:
            """On the way to a cell."""
            cell_key, random_key, action_key = jax.random.split(key, 3)
            cells = jnp.broadcast_to(best(state), (lanes,)) if to_the_best else choose(state, cell_key, lanes, rules.actions_weight)
            tape = journey.showing
            if imitation:
                able = recorded(kept) & known
                shows = imitates & jnp.any(able)
                cells = jnp.where(shows, draw(weight * able, jax.random.fold_in(cell_key, 1), lanes), cells)
                tape = Showing(kept.tape[cells], jnp.zeros_like(cells), jnp.where(shows, kept.length[cells], 0))
            count = jnp.where(known[cells], state.count[cells], 0)
            random = False if to_the_best else jax.random.uniform(random_key, (lanes,)) < rules.random
            return journey._replace(
                way=state.cells[cells],
                count=count,
                pointer=jnp.zeros_like(count),
                pace=state.length[cells] / jnp.maximum(count, 1),
                exploring=count == 0,
                random=jnp.broadcast_to(random, (lanes,)) | ((count == 0) & jnp.logical_not(to_the_best)),
                action=sample_action(space, action_key, lanes).astype(journey.action.dtype),
                goal=jnp.where(known[cells], cells, -1) if to_the_best else jnp.full(lanes, -1, jnp.int32),
                since=jnp.zeros_like(count),
                chased=jnp.zeros_like(count),
                position=jnp.full((lanes, 2), -1, jnp.int32),
                showing=tape,
            )

        def promised(journey: Journey):
            """f32[N, L]; discounted rewards to go of what lanes begin to show: of the last lanes, 0 in others."""
            shows = jax.tree.map(lambda x: x[lanes - rules.imitation_lanes :], journey)
            tape = jax.tree.map(lambda x: jnp.moveaxis(x[shows.showing.tape], 0, 1), (kept.steps.key, kept.steps.reward))
            numbers = jnp.arange(journey.to_go.shape[1], dtype=jnp.int32)

            def forth(carry, inputs):
                pointer, over = carry
                number, cell, own = inputs
                over = over | (number >= shows.showing.length)
                pointer, arrived, reward = onwards(shows.way, shows.count, pointer, cell, own)
                return (pointer, over | arrived), jnp.where(over, 0.0, reward)

            def back(later, reward):
                return reward + rules.discount * later, reward + rules.discount * later

            none_over = jnp.zeros(rules.imitation_lanes, bool)
            _, rewards = jax.lax.scan(forth, (shows.pointer, none_over), (numbers, lookup(state.table, tape[0]), tape[1]))
            _, to_go = jax.lax.scan(back, jnp.zeros(rules.imitation_lanes, jnp.float32), rewards.astype(jnp.float32), reverse=True)
            return journey.to_go.at[lanes - rules.imitation_lanes :].set(to_go.T)

        def started(now, key, mask):
            """``now``, whose lanes of ``mask`` are at a start, on their way from it."""
            drawn_ones = drawn(now.note, jax.random.fold_in(key, 1))
            if imitation:
                anew = any_member(mask & imitates, source.spec.axis)
                drawn_ones = drawn_ones._replace(to_go=jax.lax.cond(anew, promised, lambda journey: journey.to_go, drawn_ones))
                now = now._replace(obs=showing.begun(kept, drawn_ones.showing, mask, now.obs))
            note = jax.tree.map(lambda a, b: where(mask, a, b), drawn_ones, now.note)
            return now._replace(obs=shown(now.obs, note), note=note)

        def init(key):
            return started(source.init(key), key, jnp.ones(lanes, bool))

        def restart(now, key, mask, starts=None):
            assert starts is None

            def begun(now):
                return started(source.restart(now._replace(obs=now.obs["world"]), key, mask), key, mask)

            return jax.lax.cond(any_member(mask, source.spec.axis), begun, lambda now: now, now)

        def step(now, key, action):
            journey: Journey = now.note
            random_key, keep_key, goal_key = jax.random.split(jax.random.fold_in(key, 1), 3)
            by_chance = journey.exploring & journey.random
            fresh = jax.random.uniform(keep_key, (lanes,)) < 1.0 / rules.mean_run
            held = where(fresh, sample_action(space, random_key, lanes).astype(journey.action.dtype), journey.action)
            action = where(by_chance, held.astype(action.dtype), action)
            bare = now._replace(obs=now.obs["world"])
            bare, transition = showing.step(source, kept, journey.showing, bare, key, action) if imitation else source.step(bare, key, action)
            shows = journey.showing.on
            keys = identify(transition)
            cell = lookup(state.table, keys)

            returning, own = ~journey.exploring, transition.reward
            pointer, arrived, reward = onwards(journey.way, journey.count, journey.pointer, cell, own)
            pointer, arrived = jnp.where(returning, pointer, journey.pointer), returning & arrived
            moved = pointer > journey.pointer
            since = jnp.where(jnp.where(returning, moved, cell < 0), 0, journey.since + 1)
            cut = (since >= rules.give_up) & ~shows & jnp.logical_not(to_the_best) | shows & arrived

            reached = journey.goal == cell
            chased = journey.chased + 1
            redrawn = arrived | journey.exploring & (reached | (chased >= rules.goal_steps) | (journey.goal < 0))
            anywhere = jnp.where(some, jax.random.categorical(goal_key, jnp.where(known, 0.0, -jnp.inf), shape=(lanes,)), -1).astype(jnp.int32)
            goal = journey.goal if to_the_best else jnp.where(redrawn, anywhere, journey.goal)
            note = journey._replace(
                pointer=pointer,
                exploring=journey.exploring | arrived,
                action=held,
                goal=goal,
                since=since,
                chased=jnp.where(redrawn, 0, chased),
                position=transition.info["position"] if env.spec.grid else journey.position,
                showing=journey.showing._replace(number=journey.showing.number + 1),
            )
            told = {"cell": keys, "exploring": journey.exploring, "arrived": arrived, "sub_goals": pointer, "temperature": temperature(now)}
            if rules.imitation_lanes:
                to_go = jnp.take_along_axis(journey.to_go, jnp.minimum(journey.showing.number, journey.to_go.shape[1] - 1)[:, None], axis=1)[:, 0]
                told |= {"own_reward": own, "imitated": shows, "to_go": to_go}
            transition = transition._replace(
                obs=now.obs,
                next_obs=shown(transition.next_obs, note),
                reward=jnp.where(returning, reward, valued(own)),
                truncated=transition.truncated | cut & ~transition.terminated,
                info=transition.info | told,
            )
            return bare._replace(obs=shown(bare.obs, note), note=note), transition

        return Source(init, step, restart, source.spec, None if to_the_best else temperature)

    return steered
