"""Combinators: bonuses made of bonuses. Each takes the world's ``spec`` and, as keyword arguments, the bonuses and its settings, so
that entries nest in a configuration file::

    _target_: exploration.combinators.clip
    high: 5.0
    bonus: {_target_: exploration.rnd.rnd, learning_rate: 1e-4}

=================  ============================================================================================
``scale``          factor * b
``clip``           b limited to [low, high]
``mask_terminal``  b, but 0 where the world terminated (a death is not a discovery)
``schedule``       b * (floor + (1 - floor) decay^n) after n updates
``normalize``      b / sqrt(Var), of the reward-forward filter (RND) or of b itself (E3B), by choice minus its mean
``every``          updates at every k-th call only
``augment``        the agent sees the bonus's statistics beside its observation (SOFE, arXiv 2310.18144)
``chain``          b1 + b2 + ...
``product``        b1 * b2 * ...
``gate``           b where another bonus exceeds a threshold, else 0 (NovelD's first visits, with episodic counts)
``ensemble``       the mean of several copies, seeded apart
=================  ============================================================================================

Two pieces of machinery serve all of them: ``wrap`` adds a state of its own to one bonus, and ``several`` runs bonuses side by side,
their annotations and metrics told apart by a prefix. ``raw`` stays what the innermost bonus made of it (with leading axes in front);
a combinator works on what ``value`` makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import PyTree, Spec, Transition, any_member
from envs.builder import FRACTION, NON_NEGATIVE, Choice, Integer, Nested, Optional, Real, Refusal, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.normalizers import deviation, forward_filter, moments, update_forward_filter, update_moments

NESTED = Nested()


class Wrapped(NamedTuple):
    """A bonus's state and the combinator's own beside it."""

    inner: PyTree
    own: PyTree


def wrap(inner: Bonus, own: Callable[[], PyTree], **changed: Callable) -> Bonus:
    """``inner`` with a state of its own beside it. ``changed`` functions take ``Wrapped``; all others pass it through."""
    made = Bonus(
        init=lambda key: Wrapped(inner.init(key), own()),
        observe=lambda state, key, transition: _keep(state, *inner.observe(state.inner, key, transition)),
        score=lambda state, transition: inner.score(state.inner, transition),
        update=lambda state, key, inputs: _keep(state, *inner.update(state.inner, key, inputs)),
        reset=lambda state, mask: state._replace(inner=inner.reset(state.inner, mask)),
        calibrate=lambda state, raw: state._replace(inner=inner.calibrate(state.inner, raw)),
        value=lambda state, raw: inner.value(state.inner, raw),
        features=inner.features and (lambda state, obs: inner.features(state.inner, obs)),
        info=inner.info,
    )
    return made._replace(**changed)


def _keep(state: Wrapped, inner: PyTree, out: Any) -> tuple[Wrapped, Any]:
    return state._replace(inner=inner), out


def several(bonuses: Mapping[str, Bonus], combine: Callable[[list[jax.Array]], jax.Array]) -> Bonus:
    """Bonuses side by side; ``combine`` turns the list of their values into one.

    Features are those of the parts that augment, or of all parts where every one has them.
    """
    names, parts = list(bonuses), list(bonuses.values())

    def each(function: str, state, *inputs):
        return tuple(getattr(part, function)(s, *(i[n] for i in inputs)) for n, (part, s) in enumerate(zip(parts, state, strict=True)))

    def keys(key):
        return [jax.random.fold_in(key, n) for n in range(len(parts))]

    def views(transition: Transition) -> list[Transition]:
        """The transition as each part knows it: its own annotations under its own names."""
        notes = transition.annotations
        own = [{k.removeprefix(f"{name}."): v for k, v in notes.items() if k.startswith(f"{name}.")} for name in names]
        return [transition._replace(annotations=o) for o in own]

    def named(outputs):
        return {f"{name}.{k}": v for name, out in zip(names, outputs, strict=True) for k, v in out.items()}

    def observe(state, key, transition):
        state, notes = zip(*each("observe", state, keys(key), views(transition)), strict=True)
        return state, named(notes)

    def update(state, key, inputs):
        batch, aux = inputs
        state, metrics = zip(*each("update", state, keys(key), [(view, aux) for view in views(batch)]), strict=True)
        return state, named(metrics)

    infos = [part.info for part in parts]
    augmenting = [n for n, info in enumerate(infos) if info.augments]
    shown = augmenting or (list(range(len(parts))) if all(info.features is not None for info in infos) else [])

    def features(state, obs):
        found = [parts[n].features(state[n], obs) for n in shown]
        return jnp.concatenate([f.reshape(f.shape[0], -1) for f in found], axis=-1)

    return bonus(
        init=lambda key: tuple(part.init(k) for part, k in zip(parts, keys(key), strict=True)),
        observe=observe,
        score=lambda state, transition: each("score", state, views(transition)),
        update=update,
        reset=lambda state, mask: each("reset", state, [mask] * len(parts)),
        calibrate=lambda state, raw: each("calibrate", state, raw),
        value=lambda state, raw: combine(list(each("value", state, raw))),
        features=features if shown else None,
        info=BonusInfo(
            needs=tuple(dict.fromkeys(need for info in infos for need in info.needs)),
            learns_from=tuple(dict.fromkeys(need for info in infos for need in info.learns_from)),
            stores=tuple(f"{name}.{store}" for name, info in zip(names, infos, strict=True) for store in info.stores),
            episodic=any(info.episodic for info in infos),
            differentiable=all(info.differentiable for info in infos),
            scored="step" if all(info.scored == "step" for info in infos) else "batch",
            warmup=max(info.warmup for info in infos),
            features=_joined([infos[n].features for n in shown]) if shown else None,
            augments=bool(augmenting),
            intrinsic=any(info.intrinsic for info in infos),
            non_negative=all(info.non_negative for info in infos),
            fades=all(info.fades for info in infos),
        ),
    )


def _joined(parts: list[spaces.Space]) -> spaces.Box:
    low = np.concatenate([np.asarray(part.low, np.float32).reshape(-1) for part in parts])
    high = np.concatenate([np.asarray(part.high, np.float32).reshape(-1) for part in parts])
    return spaces.Box(low, high, dtype=np.float32)


# --- one bonus ---------------------------------------------------------------------------------------------------------


@options(bonus=NESTED, factor=NON_NEGATIVE)
def scale(spec: Spec, *, bonus: Bonus, factor: float = 1.0) -> Bonus:
    """factor * b."""
    return bonus._replace(value=lambda state, raw: factor * bonus.value(state, raw))


@options(bonus=NESTED, low=Optional(Real()), high=Optional(Real()))
def clip(spec: Spec, *, bonus: Bonus, low: float | None = None, high: float | None = None) -> Bonus:
    """b limited to [low, high]; None leaves a side open."""
    return bonus._replace(value=lambda state, raw: jnp.clip(bonus.value(state, raw), low, high))


@options(bonus=NESTED)
def mask_terminal(spec: Spec, *, bonus: Bonus) -> Bonus:
    """b, but 0 on transitions that terminated; truncated ones are paid."""
    return bonus._replace(
        score=lambda state, transition: (bonus.score(state, transition), transition.terminated),
        calibrate=lambda state, raw: bonus.calibrate(state, raw[0]),
        value=lambda state, raw: jnp.where(raw[1], 0.0, bonus.value(state, raw[0])),
        info=bonus.info._replace(needs=tuple(dict.fromkeys((*bonus.info.needs, "terminated")))),
    )


@options(bonus=NESTED, decay=FRACTION, floor=FRACTION)
def schedule(spec: Spec, *, bonus: Bonus, decay: float = 0.999, floor: float = 0.0) -> Bonus:
    """b * (floor + (1 - floor) decay^n), n the number of updates so far: calls of ``update``, not steps. On-policy that is once
    per rollout, off-policy once per learning call; choose ``decay`` accordingly."""

    def factor(state):
        return floor + (1.0 - floor) * state.own

    def update(state, key, inputs):
        inner, metrics = bonus.update(state.inner, key, inputs)
        return Wrapped(inner, state.own * decay), {**metrics, "schedule": factor(state)}

    def value(state, raw):
        return factor(state) * bonus.value(state.inner, raw)

    return wrap(bonus, lambda: jnp.ones((), jnp.float32), update=update, value=value)


NORMALIZERS = ("reward_forward", "std", "standard", "variance", "none")


@options(bonus=NESTED, by=Choice(NORMALIZERS), filter_discount=FRACTION)
def normalize(spec: Spec, *, bonus: Bonus, by: str = "reward_forward", filter_discount: float = 0.99) -> Bonus:
    """b divided by a running standard deviation.

    by="reward_forward": of the discounted forward sums of b, per lane over time (RND); "std": of b itself (E3B); "standard": the same
    after subtracting the running mean (MaxInfoRL; the reward then has both signs); "variance": (b - mean) / variance, as the published CFN
    has it; "none": b.
    """
    if by == "none":
        return bonus
    forward, centred = by == "reward_forward", by in ("standard", "variance")

    def own():
        return forward_filter(spec.lanes) if forward else moments(jnp.zeros(()))

    def calibrate(state, raw):
        inner = bonus.calibrate(state.inner, raw)
        rewards = bonus.value(inner, raw)
        learnt = update_forward_filter(state.own, rewards, filter_discount) if forward else update_moments(state.own, rewards)
        return Wrapped(inner, learnt)

    def value(state, raw):
        seen = state.own.moments if forward else state.own
        reward = bonus.value(state.inner, raw)
        size = deviation(seen)
        return (reward - seen.mean if centred else reward) / (jnp.square(size) if by == "variance" else size)

    made = wrap(bonus, own, calibrate=calibrate, value=value)
    return made._replace(info=made.info._replace(non_negative=bonus.info.non_negative and not centred))


@options(bonus=NESTED, period=Integer(1))
def every(spec: Spec, *, bonus: Bonus, period: int = 2) -> Bonus:
    """Updates at the calls period, 2 period, ... of ``update``; the others are skipped and report metrics of 0."""

    def update(state, key, inputs):
        calls = state.own + 1
        due = calls == period

        def run():
            return bonus.update(state.inner, key, inputs)

        skipped = state.inner, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run)[1])
        found = jax.lax.cond(any_member(due, spec.axis), run, lambda: skipped)
        inner, metrics = jax.tree.map(lambda new, old: jnp.where(due, new, old), found, skipped)  # members may be out of step
        return Wrapped(inner, jnp.where(due, 0, calls)), {**metrics, "updated": due.astype(jnp.float32)}

    return wrap(bonus, lambda: jnp.zeros((), jnp.int32), update=update)


@options(bonus=NESTED)
def augment(spec: Spec, *, bonus: Bonus) -> Bonus:
    """SOFE: the agent's observation is joined by ``features``, the statistics that make the bonus a function of what it sees."""
    if bonus.features is None:
        raise Refusal(
            "SOFE needs a bonus whose statistics fit into an observation: counts on a world with at most 4096 numbered states, e3b, "
            "or state_entropy with density=gaussian; this one (a network such as rnd, or a hash table) has none"
        )
    return bonus._replace(info=bonus.info._replace(augments=True))


@options(bonus=NESTED, size=Integer(1))
def ensemble(spec: Spec, *, bonus: Bonus, size: int = 3) -> Bonus:
    """The mean of ``size`` copies of a bonus, seeded apart. It has no features. Annotations and raw carry the copies on a last axis."""
    axes = Transition(*[None] * 8, annotations=-1)

    def split(key):
        return jax.random.split(key, size)

    def update(state, key, inputs):
        state, metrics = jax.vmap(bonus.update, in_axes=(0, 0, (axes, None)))(state, split(key), inputs)
        return state, jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)

    return Bonus(
        init=lambda key: jax.vmap(bonus.init)(split(key)),
        observe=lambda state, key, t: jax.vmap(bonus.observe, in_axes=(0, 0, None), out_axes=(0, -1))(state, split(key), t),
        score=lambda state, t: jax.vmap(bonus.score, in_axes=(0, axes), out_axes=-1)(state, t),
        update=update,
        reset=lambda state, mask: jax.vmap(bonus.reset, in_axes=(0, None))(state, mask),
        calibrate=lambda state, raw: jax.vmap(bonus.calibrate, in_axes=(0, -1))(state, raw),
        value=lambda state, raw: jnp.mean(jax.vmap(bonus.value, in_axes=(0, -1))(state, raw), axis=0),
        features=None,
        info=bonus.info._replace(features=None, augments=False),
    )


# --- several bonuses ---------------------------------------------------------------------------------------------------


def _numbered(bonuses: Any, name: str) -> dict[str, Bonus]:
    if not bonuses:
        raise Refusal(f"{name} needs at least one bonus in its list 'bonuses'")
    return {str(n): part for n, part in enumerate(bonuses)}


@options(bonuses=Nested(many=True))
def chain(spec: Spec, *, bonuses: tuple[Bonus, ...]) -> Bonus:
    """b1 + b2 + ...; weigh the parts with ``scale``, and ``normalize`` them first when their sizes differ."""
    return several(_numbered(bonuses, "chain"), sum)


@options(bonuses=Nested(many=True))
def product(spec: Spec, *, bonuses: tuple[Bonus, ...]) -> Bonus:
    """b1 * b2 * ..."""

    def multiply(values):
        result = values[0]
        for factor in values[1:]:
            result = result * factor
        return result

    return several(_numbered(bonuses, "product"), multiply)


@options(bonus=NESTED, mask=NESTED, above=Real())
def gate(spec: Spec, *, bonus: Bonus, mask: Bonus, above: float = 0.0) -> Bonus:
    """b where the value of ``mask`` exceeds ``above``, else 0. With mask=counts, above=0.9 only first visits are paid."""
    return several({"bonus": bonus, "mask": mask}, lambda values: jnp.where(values[1] > above, values[0], 0.0))
