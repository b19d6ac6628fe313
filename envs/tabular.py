"""Finite MDPs of the literature by name, with exact values: ``env=tabular env.id=riverswim_osband env.horizon=20``.

What they are is in ``envs/tabular_mdps.py``, how they are stepped in ``envs/finite_mdp.py``, and what the best policy earns in
``envs/oracle.py``. An agent that plans, or whoever wants its exact regret, takes the arrays from ``named_mdp``.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np

from envs import oracle
from envs.base import Environment
from envs.builder import FLAG, FRACTION, Choice, Integer, Optional, Refusal, Text, closest, options
from envs.finite_mdp import OBSERVATIONS, FiniteMDP, world
from envs.tabular_mdps import MDPS


class Probability(NamedTuple):
    """A number in [0, 1]; static, because the exact values and the number of possible successors follow from it."""

    traceable = False

    def accepts(self, value: Any) -> bool:
        return FRACTION.accepts(value)

    def describe(self) -> str:
        return FRACTION.describe()


@options(
    id=Text("the name of a finite MDP"),
    states=Optional(Integer(2, 1024)),
    horizon=Optional(Integer(1, 100_000)),
    fail_probability=Optional(Probability()),
    observation=Choice(OBSERVATIONS),
    bernoulli=FLAG,
    continuing=Optional(FLAG),
)
def tabular(
    *,
    id: str = "riverswim_osband",
    states: int | None = None,
    horizon: int | None = None,
    fail_probability: float | None = None,
    observation: str = "one_hot",
    bernoulli: bool = False,
    continuing: bool | None = None,
) -> Environment:
    """The finite MDP ``id``; None leaves an option at the MDP's own value. ``observation`` and ``bernoulli`` are those of ``finite_mdp.world``.

    ``continuing``: whether the horizon truncates (None: in the two MDPs of Strehl and Littman only).
    Raises Refusal for an unknown id and for an option that the MDP has not.
    """
    mdp = named_mdp(id, states=states, horizon=horizon, fail_probability=fail_probability)
    listed = MDPS[id]
    return world(
        mdp,
        name=f"{id}-{mdp.num_states}" if "states" in takes(id) else id,
        observation=observation,
        bernoulli=bernoulli,
        continuing=listed.continuing if continuing is None else continuing,
        grid=None if listed.rows is None else (listed.rows, mdp.num_states // listed.rows),
        success_return=listed.success_return,
    )


def named_mdp(id: str, **given: Any) -> FiniteMDP:
    """The arrays of the MDP ``id``, with the options given (``states``, ``horizon``, ``fail_probability``; None: its own)."""
    if id not in MDPS:
        raise Refusal(f"env.id={id}: there is no finite MDP of that name{closest(id, MDPS)}")
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in takes(id):
            raise Refusal(f"env.{name}: {id} has no such option, it takes {', '.join(takes(id))}; leave it at env.{name}=null")
    return MDPS[id].make(**given)


def takes(id: str) -> list[str]:
    """Names of the options of an MDP."""
    return list(inspect.signature(MDPS[id].make).parameters)


def value_table() -> str:
    """The exact values of every MDP as it is by default, in Markdown: the table of docs/tabular.md."""
    lines = ["| id | states | actions | horizon | best return | return of random actions | gain |", "|---|---|---|---|---|---|---|"]
    for id in MDPS:
        mdp = named_mdp(id)
        uniform = np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)
        values = oracle.optimal_return(mdp), oracle.policy_return(mdp, uniform), oracle.gain(mdp)
        told = [f"{value:,.0f}" if value >= 1e5 else f"{value:.6g}" for value in values]
        lines.append("| " + " | ".join([f"`{id}`", str(mdp.num_states), str(mdp.num_actions), str(mdp.horizon), *told]) + " |")
    return "\n".join(lines)
