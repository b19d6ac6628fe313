"""Runs that begin with the agents of another run."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from envs.builder import Refusal
from runners import init_from
from runners.compose import compose
from runners.train import train
from tests.runners.tiny import TINY, batch_of

pytestmark = pytest.mark.medium
STEPS = [setting for setting in TINY if not setting.startswith("total_steps")]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run of two members with a bonus: two value heads."""
    folder = tmp_path_factory.mktemp("first") / "run"
    train(compose([*STEPS, "total_steps=64", "seeds=2", "exploration=counts", f"run_dir={folder}", "logger.console=false"]), "vmap", folder.parent)
    return str(folder)


def agents(overrides, source=None):
    batch, _ = batch_of([*STEPS, "total_steps=64", *overrides], "vmap")
    batch.start()
    said = []
    fresh = batch.snapshot()[0].agent
    return fresh, init_from.taken(fresh, source, said.append) if source else None, said


def test_members_begin_with_what_the_other_run_ended_with(first):
    fresh, begun, said = agents(["seeds=3", "exploration=counts"], first)
    kernel = lambda state: np.asarray(state.params["params"]["policy"]["Dense_0"]["kernel"])  # noqa: E731
    assert "afresh" not in said[0]
    assert not np.array_equal(kernel(fresh)[0], kernel(begun)[0])
    np.testing.assert_array_equal(kernel(begun)[2], kernel(begun)[0])  # three members, two agents: counted round
    assert not np.array_equal(kernel(begun)[1], kernel(begun)[0])
    assert jax.tree.structure(begun) == jax.tree.structure(fresh)


def test_what_does_not_fit_begins_afresh_and_is_said(first):
    fresh, begun, said = agents(["seeds=2", "exploration=none"], first)  # one value head instead of two
    assert "value" in said[0] and "afresh" in said[0]
    np.testing.assert_array_equal(begun.params["params"]["value"]["kernel"], fresh.params["params"]["value"]["kernel"])
    assert not np.array_equal(begun.params["params"]["critic"]["MLP_0"]["Dense_0"]["kernel"], fresh.params["params"]["critic"]["MLP_0"]["Dense_0"]["kernel"])
    with pytest.raises(Refusal, match="nothing of its agent fits"):
        init_from.taken({"other": np.zeros((2, 3), np.float32)}, first, said.append)


def test_a_whole_run_begins_with_another(first, tmp_path):
    """At a rate of next to nothing the second run ends with the policy of the first."""
    rate = [*STEPS, "total_steps=64", "seeds=2", "exploration=counts", "agent.learning_rate=1e-30"]
    train(compose([*rate, f"init_from={first}", f"run_dir={tmp_path / 'run'}", "logger.console=false"]), "vmap", tmp_path)
    one, other = (init_from.read(init_from.files(str(run))[1])["params"]["params"] for run in (first, tmp_path / "run"))
    np.testing.assert_array_equal(one["policy"]["Dense_0"]["kernel"], other["policy"]["Dense_0"]["kernel"])


def test_a_run_without_policies_is_refused(tmp_path):
    with pytest.raises(Refusal, match="is not a run"):
        train(compose([*TINY, "seeds=1", f"init_from={tmp_path}", f"run_dir={tmp_path / 'run'}", "logger.console=false"]), "vmap", tmp_path)
    assert not (tmp_path / "run").exists()
