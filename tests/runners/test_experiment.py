"""From configuration to members and runners, and a user's own package without touching the project."""

from __future__ import annotations

import sys
import textwrap

import pytest

from envs.builder import Refusal
from runners.compose import compose
from runners.experiment import experiment
from runners.rundir import differences, digest
from tests.runners.tiny import TINY, batch_of


def test_members_are_all_combinations_of_seeds_and_values():
    made = experiment(compose(["seeds=[3,7]", "vmap.exploration.scale=[0,1]", "vmap.agent.clip=[0.1]"]))
    assert [(m.seed, m.hyper) for m in made.members] == [(seed, {"exploration.scale": scale, "agent.clip": 0.1}) for scale in (0, 1) for seed in (3, 7)]


def test_whole_floats_become_integers_and_other_floats_do_not():
    assert experiment(compose(["total_steps=1e5", "runner.lanes=4.0"])).config["total_steps"] == 100_000
    with pytest.raises(Refusal, match="runner.lanes=4.5"):
        experiment(compose(["runner.lanes=4.5"]))


def test_the_hash_is_of_what_decides_the_result():
    plain = experiment(compose([])).config
    assert digest(plain) == digest(experiment(compose(["checkpoint.seconds=1", "overwrite=true", "run_dir=x"])).config)
    other = experiment(compose(["agent.clip=0.3"])).config
    assert digest(plain) != digest(other)
    assert differences(plain, other) == [("agent.clip", 0.2, 0.3)]


def test_a_bonus_that_needs_what_the_world_lacks_is_refused():
    made = experiment(compose(["env=gymnax", "exploration.key=state"]))
    with pytest.raises(Refusal, match="info.state_id"):
        made.make_runner({})


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """A package outside the project with a world and a bonus."""
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "__init__.py").touch()
    (tmp_path / "mylab" / "parts.py").write_text(
        textwrap.dedent(
            '''
            import jax.numpy as jnp
            from gymnasium import spaces
            from envs.base import Environment, Spec, TimeStep
            from exploration.base import BonusInfo, bonus


            def corridor(*, length=5):
                """Walk right to the end."""
                def observe(x):
                    return (jnp.arange(length) == x).astype(jnp.float32)

                def step(x, key, action):
                    x = jnp.clip(x + 2 * action - 1, 0, length - 1)
                    end = x == length - 1
                    return x, TimeStep(observe(x), end.astype(jnp.float32), end, jnp.array(False), {})

                spec = Spec(spaces.Box(0, 1, (length,)), spaces.Discrete(2), name="corridor")
                return Environment(spec, lambda key: (jnp.int32(0), observe(0)), step)


            def rightness(spec, *, power=1.0):
                """Pays for being far right."""
                def score(state, t):
                    return jnp.argmax(t.next_obs, axis=-1).astype(jnp.float32) ** power

                return bonus(score=score, info=BonusInfo())
            '''
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("mylab.parts", None)
    sys.modules.pop("mylab", None)


def test_a_world_and_a_bonus_of_ones_own(own_package):
    own = ["env=custom", "env._target_=mylab.parts.corridor", "+env.length=4", "exploration=custom", "exploration._target_=mylab.parts.rightness"]
    tiny = [o for o in TINY if not o.startswith("env")]
    batch, total = batch_of([*own, *tiny, "seeds=1", "vmap.exploration.power=[0.5]"], "vmap")
    batch.start()
    batch.run(0, total, total)
    metrics = batch.take_metrics()[0]
    assert metrics["bonus/raw"] > 0.1 and metrics["episode/count"] > 0
    with pytest.raises(Refusal, match="takes no 'powr'"):
        experiment(compose([*own, "+exploration.powr=1"]))
