"""The records of the world: what a world is, what a step of it gives, and what its description promises.

Everything is un-batched here: one world, one lane. Sources add the lanes (``runners/source.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

PyTree = Any
Key = jax.Array


class Spec(NamedTuple):
    """What a builder of agents or exploration modules may know about the world.

    The runner fills in ``lanes`` and ``axis``, adds ``streams``, and, when a bonus augments observations, replaces
    ``observation``: builders read the spec they are given and nothing else.
    """

    observation: spaces.Space
    action: spaces.Space
    name: str = "world"
    max_steps: int | None = None  # the world's own limit on an episode's length, in steps
    info: Mapping[str, spaces.Space] = {}  # keys that every step's ``info`` has
    num_states: int | None = None  # when info has "state_id": its ids lie in [0, num_states); None: ids are fingerprints, of any shape
    grid: tuple[int, int] | None = None  # when info has "position": i32[2] (row, column) in a map of these (rows, columns)
    num_cells: int | None = None  # cells of the map that can be reached, where every episode has the same map
    success_return: float | None = None  # an episode with at least this return counts as a success
    deterministic: bool = False  # same state and action, same outcome
    lanes: int = 1  # worlds stepped side by side
    streams: tuple[str, ...] = ("extrinsic",)  # reward streams the agent will be given
    axis: str | None = None  # name of the vmapped member axis, when there is one
    latent: Callable[[], spaces.Space] | None = None  # space of the agent's encoding of observations; where there is no agent, None
    genome: spaces.Box | None = None  # flat policies f32[G], for methods that search over them; None: the runner does not
    on_host: bool = False  # the world is no JAX program: what is seen in it reaches programs only after its steps


class TimeStep(NamedTuple):
    """What one step gives. ``obs`` is the true successor, never the observation after a reset."""

    obs: PyTree
    reward: jax.Array  # f32[]
    terminated: jax.Array  # bool[]; the MDP ended: no bootstrap
    truncated: jax.Array  # bool[]; a limit cut the episode: bootstrap from obs
    info: dict[str, jax.Array]


class Transition(NamedTuple):
    """One step of interaction, with any leading shape ([N] lanes, [T, N] rollouts, [B] replay batches)."""

    obs: PyTree
    action: jax.Array
    reward: jax.Array
    next_obs: PyTree  # the true successor, also where the episode ended
    terminated: jax.Array
    truncated: jax.Array
    first: jax.Array  # bool; obs is the first of its episode
    info: dict[str, jax.Array]
    annotations: dict[str, jax.Array] = {}  # what the bonus noted when it observed the step

    @property
    def done(self) -> jax.Array:
        return self.terminated | self.truncated


class Lanes(NamedTuple):
    """N worlds, each somewhere in an episode, and all that the episode needs to go on from there.

    It is the state of a source, what an archive keeps rows of, and what ``Source.restart`` puts into lanes.
    """

    world: PyTree  # [N, ...]; states of the environment
    obs: PyTree  # [N, ...]; to act on next
    first: jax.Array  # bool[N]; obs is the first of its episode
    episode_return: jax.Array  # f32[N]; of the episode so far
    episode_length: jax.Array  # i32[N]; steps of the episode so far
    note: PyTree = ()  # [N, ...]; the runner's own, carried along (the trail of actions, the cell it came from)


class Tally(NamedTuple):
    """Running score of a world that needs the episodes in time order (bsuite's rule, visit counts). See ``envs/tally.py``."""

    init: Callable[[], PyTree]
    update: Callable[[PyTree, Transition], PyTree]  # transitions [T, N], in time order
    report: Callable[[PyTree], dict[str, jax.Array]]


class Undisturbed(NamedTuple):
    """How an episode is made again in a world that disturbs what agents do: from the start that was drawn, with the actions that are given."""

    reset: Callable[[Key], tuple[PyTree, PyTree]]  # key -> (state, obs), before any random actions
    step: Callable[[PyTree, Key, jax.Array], tuple[PyTree, TimeStep]]  # that executes the action as it is given
    heed: Callable[[PyTree], PyTree] = lambda state: state  # state -> the same, in which the world's own next step does so
    deterministic: bool = True  # same start and actions, same outcome


class Environment(NamedTuple):
    """A JAX world: pure functions on one lane, without auto-reset."""

    spec: Spec
    reset: Callable[[Key], tuple[PyTree, PyTree]]  # key -> (state, obs)
    step: Callable[[PyTree, Key, jax.Array], tuple[PyTree, TimeStep]]  # (state, key, action) -> (state, TimeStep)
    render: Callable[[PyTree], Any] | None = None  # state -> uint8 [height, width, 3]
    tally: Tally | None = None
    costly_reset: bool = False  # a reset costs much more than a step: draw fresh starts for few lanes at a time
    undisturbed: Undisturbed | None = None  # of worlds that do not simply do as they are told; None: this one does


def undisturbed(env: Environment) -> Undisturbed:
    return env.undisturbed or Undisturbed(env.reset, env.step, deterministic=env.spec.deterministic)


class HostLanes(NamedTuple):
    """N opened worlds that live on the host and are stepped together, as numpy arrays. A lane that ended restarts in the same step.

    With ``put``, ``reset`` and ``step`` also take ``obeyed`` bool[N]: where nothing that disturbs actions and starts does so. What is random in a
    world that was put somewhere goes on as it was.
    """

    reset: Callable[..., PyTree]  # seeds [N] -> obs [N, ...]
    step: Callable[..., tuple[TimeStep, PyTree]]  # actions [N] -> (TimeStep [N], obs [N, ...] to act on next)
    close: Callable[[], None]
    save: Callable[[], list[bytes]] | None = None  # -> snapshots [N]
    load: Callable[[Sequence[bytes]], None] | None = None  # snapshots [N]; what reset and step gave before is not given again
    render: Callable[[int], np.ndarray | None] | None = None  # lane -> uint8 [height, width, 3]
    put: Callable[[Sequence[bytes | None]], PyTree] | None = None  # snapshots [N] (b"": a fresh start; None: it stays) -> obs [N, ...] of fresh starts


class HostWorld(NamedTuple):
    """One world on the host that can be put back, for a worker that makes whole rollouts by itself. Its start is always the same."""

    reset: Callable[[], None]
    step: Callable[[Any], tuple[float, bool, bool]]  # action -> (reward, terminated, truncated)
    save: Callable[[], bytes]  # all that decides how it goes on
    load: Callable[[bytes], None]  # what is seen is stale until the next step
    look: Callable[[str], Any]  # "grey" u8[rows, columns], "obs", "seen" (as the world gives it), "info", or what else it has (an Atari game: "ram" u8[128])


class HostEnvironment(NamedTuple):
    """Worlds that live on the host: what they are, and how to open N of them."""

    spec: Spec
    open: Callable[..., HostLanes]  # (lanes, render=False) -> HostLanes
    unsaved: str | None = None  # why these worlds have no exact snapshots; None: they have
    decode: Callable[[PyTree], PyTree] = lambda obs: obs  # obs [N] as they arrive -> of ``spec.observation``; part of compiled programs
    single: Callable[[], HostWorld] | None = None  # opens one world by itself; sent to workers
    steerable: Callable[[int], HostLanes] | None = None  # lanes -> worlds that can be put anywhere, and obey; what arrives is as from ``open``
    settled: Callable[[], bool] | None = None  # tries whether these worlds leave nothing to chance after a reset; for specs that do not say so
    frames_per_step: int = 1  # emulator frames of an agent step
    rooms: Callable[[Callable[[str], Any]], int] | None = None  # look -> the room of the game's map that the player is in, where it is known


def sample_action(space: spaces.Space, key: Key, lanes: int) -> jax.Array:
    """Uniform random actions [lanes, ...] of a Discrete or bounded Box space (unbounded sides count as -1 and 1)."""
    if isinstance(space, spaces.Discrete):
        return jax.random.randint(key, (lanes,), 0, int(space.n)) + int(space.start)
    low, high = box_bounds(space)
    return jax.random.uniform(key, (lanes, *space.shape), minval=low, maxval=high)


def box_bounds(space: spaces.Box) -> tuple[jax.Array, jax.Array]:
    """Finite (low, high) of a Box; infinite sides become -1 and 1."""
    low = jnp.asarray(space.low, jnp.float32)
    high = jnp.asarray(space.high, jnp.float32)
    return jnp.where(jnp.isfinite(low), low, -1.0), jnp.where(jnp.isfinite(high), high, 1.0)


def any_member(predicate: jax.Array, axis: str | None) -> jax.Array:
    """True where ``predicate`` holds anywhere, in any lane of any member.

    Under ``vmap`` with an axis name the result is not batched, so ``lax.cond`` on it stays a branch: work that is seldom
    needed is skipped in most steps, and what each member computes is the same.
    """
    some = jnp.any(predicate)
    return some if axis is None else jax.lax.pmax(some.astype(jnp.int32), axis) > 0


@contextlib.contextmanager
def foreign_code():
    """Run another library's JAX code under JAX's default promotion rules, also where the program asked for strict ones."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def strong(tree: PyTree) -> PyTree:
    """Arrays without weak types, so that a state keeps its dtypes through steps, scans and checkpoints."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), tree)
