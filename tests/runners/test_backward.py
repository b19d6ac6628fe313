"""The backward algorithm: where episodes start and end, what is learnt from, what is refused, exact resume, and a sea that PPO alone does not cross."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.ppo import ppo
from envs.base import Environment, Spec, TimeStep
from envs.builder import Refusal
from envs.deep_sea import action_mapping, deep_sea
from envs.wrappers import with_noisy_tv, wrapped
from exploration.backward import curriculum
from exploration.base import none
from exploration.intrinsic import intrinsic
from runners import api, dataset, rundir
from runners.backward import backward, discounted, mean_value, steered
from runners.base import Clock
from runners.compose import compose
from runners.dataset import Episodes
from runners.demonstrations import Demonstration, checksum, episodes, read, replayed
from runners.source import jax_source
from runners.steering import Rules, at_the_worlds_start, lowest, near_the_start, steering
from tests.laws.data import quick
from tests.runners.test_resume import split_equals_whole
from tests.runners.tiny import TINY

KEY = jax.random.PRNGKey(0)
NO = jnp.array(False)
SIZE = 8
RIGHT = np.diag(action_mapping(SIZE)).copy()


def row(length: int = 20) -> Environment:
    """Action 1 goes on and is paid 1, action 0 stays and is paid nothing; it ends after ``length`` places."""

    def step(place, key, action):
        place = place + action
        return place, TimeStep(place, action.astype(jnp.float32), place >= length, NO, {})

    spec = Spec(spaces.Discrete(length + 1), spaces.Discrete(2), "row", max_steps=10 * length, deterministic=True)
    return Environment(spec, lambda key: (jnp.int32(0), jnp.int32(0)), step)


def shown(actions, rewards=None, **told) -> Demonstration:
    return Demonstration("made up", np.asarray(actions), None if rewards is None else np.asarray(rewards), np.zeros(2, np.uint32), **told)


def on_the_way(env, demonstrations, lanes=4, imitating=0, rules=None, last=None, **options):
    """(source, lanes at their starts) of the curriculum whose window ends at ``last``."""
    made = replayed(env, demonstrations)
    options = {"window": 1, "later": 0.0, "virtual": False, **options}
    chooser = curriculum(made.lengths, lanes=lanes - imitating, **options)
    state = chooser.init()
    state = state if last is None else state._replace(last=jnp.full(len(demonstrations), last, jnp.int32))
    source = jax_source(env, lanes, note=at_the_worlds_start(len(demonstrations)))
    rules = steering(made.lengths, made.returns, chooser, rules or Rules(0, 2, 0.0, 0.0, 1.0), jnp.arange(lanes) >= lanes - imitating)
    way = steered(env, source, made, rules)(state)
    begun = way.restart(source.init(KEY), KEY, jnp.ones(lanes, bool))
    return way, begun


def went(way, lanes, actions):
    """Transitions of one action for all lanes, step by step; nothing restarts."""
    found = []
    for t, action in enumerate(actions):
        lanes, transition = way.step(lanes, jax.random.fold_in(KEY, t), jnp.full(lanes.first.shape, action))
        found.append(transition)
    return lanes, found


# --- where episodes start ----------------------------------------------------------------------------------------------


def test_episodes_start_at_states_of_the_demonstration():
    way, lanes = on_the_way(row(), [shown([1, 1, 0, 1, 1, 1])], last=4, window=4)
    assert lanes.note.start.tolist() == [4, 3, 2, 1]
    assert lanes.world.tolist() == lanes.obs.tolist() == [3, 2, 2, 1] and lanes.first.all()
    assert lanes.episode_return.tolist() == [3, 2, 2, 1] and lanes.episode_length.tolist() == [4, 3, 2, 1]


def test_later_starts_and_the_worlds_own():
    made = curriculum(np.array([100]), lanes=8, window=1, later=0.25, virtual=True)
    state = made.init()._replace(last=jnp.array([40], jnp.int32), length=jnp.array([10.0, 30.0]))
    chosen = made.starts(state, KEY, jnp.zeros(40_000, jnp.int32))
    virtual = np.asarray(chosen.demonstration) == 1
    assert virtual.mean() == pytest.approx(0.25, abs=0.01)  # three times as long, so a third as often
    assert not np.asarray(chosen.start)[virtual].any()
    start = np.asarray(chosen.start)[~virtual]
    assert (start == 40).mean() == pytest.approx(0.75 + 0.25 / 60, abs=0.01)
    later = start[start > 40]
    assert later.max() == 99 and later.mean() == pytest.approx(70, abs=1)


def test_the_policy_is_wider_in_an_episodes_first_own_steps():
    """Steps that are done again for the memory do not count among them."""
    _, lanes = on_the_way(row(), [shown([1, 0, 1, 0, 1, 1])], last=4, rules=Rules(3, 9, 0.0, 0.0, 1.0))
    assert near_the_start(1.0, 2) is None
    width = near_the_start(2.0, 2)
    found = [width(lanes.note._replace(time=lanes.note.time + t)).tolist() for t in (0, 3, 4, 5, 9)]
    assert found == [[2.0] * 4, [2.0] * 4, [2.0] * 4, [1.0] * 4, [1.0] * 4]


def test_context_is_done_again_and_not_learnt_from_whatever_the_world_makes_of_actions():
    """In a world that always repeats, the demonstration's actions are executed as they were."""
    env = wrapped(row(), sticky_actions=1.0)
    way, lanes = on_the_way(env, [shown([1, 0, 1, 0, 1, 1])], last=4, rules=Rules(3, 9, 0.0, 0.0, 1.0))
    assert lanes.note.time.tolist() == [1] * 4 and lanes.world.world.tolist() == [1] * 4
    lanes, steps = went(way, lanes, [1, 1, 1, 1])
    assert [s.action[0].item() for s in steps] == [0, 1, 0, 1]
    assert [s.info["forced"][0].item() for s in steps] == [True, True, True, False]
    assert [s.reward[0].item() for s in steps] == [0, 1, 0, 0]  # the last one is repeated by the world
    assert steps[-1].info["start"][0] == 4


# --- where they end ----------------------------------------------------------------------------------------------------


def test_an_episode_is_cut_after_it_has_reached_what_the_demonstration_has():
    way, lanes = on_the_way(row(), [shown([1] * 6)], last=3)
    lanes, steps = went(way, lanes, [1, 1, 1, 1])
    assert [s.info["succeeded"][0].item() for s in steps] == [False, False, True, True]
    assert [s.truncated[0].item() for s in steps] == [False, False, False, True] and not any(s.terminated.any() for s in steps)  # e^0 = 1 step later


def test_an_episode_fails_where_it_is_later_than_the_lag_allows():
    """After t idle steps from step 3 its score is 3, and the least within two steps of 3 + t is 1 + t."""
    np.testing.assert_array_equal(lowest(np.float32([[0, 1, 2, 3]]), 2), [[0, 0, 0, 1, 2, 3]])
    way, lanes = on_the_way(row(), [shown([1] * 6)], last=3)
    lanes, steps = went(way, lanes, [0, 0, 0])
    assert [s.terminated[0].item() for s in steps] == [False, False, True]
    assert [s.info["late"][0].item() for s in steps] == [False, False, True]
    tolerant, lanes = on_the_way(row(), [shown([1] * 6)], last=3, rules=Rules(0, 2, 0.5, 0.0, 1.0))
    assert not went(tolerant, lanes, [0, 0, 0])[1][-1].terminated.any()


def test_imitating_lanes_do_the_whole_demonstration_and_end_with_it():
    way, lanes = on_the_way(row(), [shown([1, 0, 1])], lanes=3, imitating=2, last=2)
    assert lanes.note.start.tolist() == [2, 0, 0] and lanes.note.until.tolist() == [2, 3, 3]
    lanes, steps = went(way, lanes, [0, 1, 0])
    assert [s.action[1].item() for s in steps] == [1, 0, 1] and [s.truncated[1].item() for s in steps] == [False, False, True]
    assert all(s.info["forced"][1:].all() for s in steps) and not any(s.info["forced"][0] for s in steps)


def test_rewards_to_go():
    made = replayed(row(), [shown([1, 0, 1]), shown([0, 1])])
    to_go = discounted(made, 0.5)
    np.testing.assert_allclose(to_go, [[1.25, 0.5, 1.0], [0.5, 1.0, 0.0]])
    assert float(mean_value(made, to_go)) == pytest.approx((1.25 + 0.5 + 1 + 0.5 + 1) / 5)


# --- what is read, and what is refused -----------------------------------------------------------------------------------


def saved(folder, name="own.npz", **arrays):
    np.savez(folder / name, **arrays)
    return str(folder / name)


def test_files_data_sets_and_runs_are_read(tmp_path):
    file = saved(tmp_path, actions=RIGHT)
    sea = deep_sea(size=SIZE)
    obs, part = np.zeros((SIZE + 1, SIZE, SIZE), np.float32), np.zeros(SIZE)
    ends = np.arange(SIZE) == SIZE - 1
    episode = Episodes(obs, RIGHT.astype(np.int64), part, ends, ~ends & False, {}, np.array([SIZE]))
    dataset.write(tmp_path / "sea-v0", sea.spec.observation, sea.spec.action, [episode, episode], [0, 1], {})
    run = tmp_path / "run"
    (run / "demonstrations").mkdir(parents=True)
    (run / "config.yaml").write_text("")
    saved(run / "demonstrations", actions=RIGHT, origin=np.array([3, 4], np.uint32))
    found = read([file, str(tmp_path / "sea-v0"), str(run)])
    assert len(found) == 4 and all(np.array_equal(made.actions, RIGHT) for made in found)
    assert found[0].rewards is None and found[1].rewards is not None and found[3].origin.tolist() == [3, 4]
    assert checksum(found[:1]) != checksum(found[3:])
    assert replayed(sea, found[:1]).returns[0, -1] == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"actions": np.zeros(0, int)}, "has no actions"),
        ({"moves": RIGHT}, "no array 'actions'"),
        ({"actions": RIGHT, "rewards": np.zeros(3)}, "for 8 actions"),
        ({"actions": RIGHT + 1}, "from 1 to 2, and those of the world"),
        ({"actions": RIGHT.astype(np.float32)}, "float32"),
        ({"actions": np.append(RIGHT, 0)}, "the episode ends at step 8 of 9"),
        ({"actions": RIGHT, "rewards": np.zeros(8)}, "step 1 pays -0.00125, and the demonstration has 0"),
        ({"actions": RIGHT, "origin": np.zeros(3)}, "key of a reset"),
    ],
)
def test_demonstrations_that_do_not_fit_are_refused(tmp_path, arrays, said):
    with pytest.raises(Refusal, match=said):
        replayed(deep_sea(size=SIZE), read(saved(tmp_path, **arrays)))


def test_worlds_that_leave_something_to_chance_are_refused_but_for_sticky_actions():
    replayed(wrapped(deep_sea(size=SIZE), sticky_actions=0.25), [shown(RIGHT)])
    for env in (deep_sea(size=SIZE, stochastic=True), wrapped(with_noisy_tv(deep_sea(size=SIZE), 2), sticky_actions=0.25)):
        with pytest.raises(Refusal, match="leaves something to chance"):
            replayed(env, [shown(RIGHT)])


BACK = ["runner=backward", "exploration=none", *(o for o in TINY if "size" not in o), f"env.size={SIZE}", "runner.imitation_lanes=1"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "runner.demonstrations has no value"),
        (["runner.demonstrations=nowhere"], "no such file or folder"),
        (["runner.demonstrations={file}", "runner.imitation_lanes=4"], "leaves none of runner.lanes=4"),
        (["runner.demonstrations={file}", "runner.checksum=00000000"], "are not what they were"),
        (["runner.demonstrations={file}", "env=gymnasium", "env.id=CartPole-v1", "env.sticky_actions=0.25"], "cannot be put there"),
    ],
)
def test_the_runner_refuses_in_one_line(tmp_path, settings, said):
    file = saved(tmp_path, actions=RIGHT)
    given = [s.format(file=file) for s in settings]
    keys = {s.partition("=")[0] for s in given}
    usual = [s for s in BACK if s.partition("=")[0] not in keys and not ("env=gymnasium" in given and s.startswith("env."))]
    with pytest.raises(Refusal, match=said):
        api.train(compose([*usual, *given]), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_demonstrations_are_data_for_others():
    """Back to back, with the true successors; what does not end its episode is cut."""
    made = episodes(row(3), [shown([1, 0]), shown([1, 1, 1])])
    assert made.obs.tolist() == [0, 1, 1, 0, 1, 2, 3] and made.action.tolist() == [1, 0, 1, 1, 1] and made.reward.tolist() == [1, 0, 1, 1, 1]
    assert made.terminated.tolist() == [False] * 4 + [True] and made.truncated.tolist() == [False, True, False, False, False]
    assert made.lengths.tolist() == [2, 3]


@pytest.mark.medium
def test_only_episodes_from_the_worlds_start_are_counted_and_rewards_are_scaled(tmp_path):
    file, gathered = saved(tmp_path, actions=np.ones(6, int)), []

    def make_agent(spec):
        agent = ppo(spec, hidden=(4,), epochs=1, minibatches=1)
        return agent._replace(learn=lambda state, key, inputs: gathered.append(inputs) or agent.learn(state, key, inputs))

    def make_intrinsic(spec):
        return intrinsic(spec, none(spec))

    rules = {"window": 2, "lag": 2, "imitation_lanes": 1, "value_scale": 7.0, "discount": 1.0}
    runner = backward(row(6), make_agent, make_intrinsic, demonstrations=file, lanes=5, rollout=10, **rules)

    @quick
    def step():
        _, metrics = runner.step(runner.init(KEY), Clock(jnp.int32(0), jnp.float32(0)))
        return metrics, gathered[-1]

    metrics, (rollout, signal) = step()
    steps, imitates = rollout.transitions, np.arange(5) == 4
    own, done = np.asarray(steps.info["demonstration"]) == 1, np.asarray(steps.done)
    assert int(metrics["episode/count"].value) == np.sum(own & done)
    assert int(metrics["backward/success"].weight) == np.sum(done & ~own & ~imitates) > 0
    np.testing.assert_array_equal(signal.streams[0].reward, steps.reward * 2.0)  # 6, 5, ..., 1 to go are 3.5 on average, and shall be 7
    np.testing.assert_array_equal(signal.weights, 1.0 - np.asarray(steps.info["forced"]))
    np.testing.assert_array_equal(signal.imitation.weight, np.broadcast_to(imitates, (10, 5)))
    np.testing.assert_array_equal(signal.imitation.returns[:, 4], 2.0 * (6 - np.asarray(steps.info["elapsed"][:, 4])))


# --- whole runs --------------------------------------------------------------------------------------------------------


@pytest.mark.medium
def test_resume_is_exact(tmp_path):
    settings = [f"runner.demonstrations={saved(tmp_path, actions=RIGHT)}", "runner.move_every=8", "runner.window=2", "runner.context=3"]
    split_equals_whole([*BACK, *settings, "agent.recurrent=4", "env.sticky_actions=0.25"], "vmap", tmp_path)


@pytest.mark.medium
def test_the_start_moves_back_to_the_beginning_and_the_sea_is_crossed(tmp_path):
    """In as many steps PPO would meet the treasure of 12 rows less than once; a demonstration is enough, also without self-imitation."""
    file = saved(tmp_path, actions=np.diag(action_mapping(12)))
    settings = ["runner=backward", f"runner.demonstrations={file}", "exploration=none", "env.size=12", "seeds=2", "total_steps=40000", "logger.console=false"]
    settings += ["runner.lanes=16", "runner.imitation_lanes=0", "runner.window=8", "runner.move_every=64", "runner.retreat=4", "agent.learning_rate=1e-3"]
    summary = api.train(compose(settings), tmp_path / "runs")
    rows = api.metrics(summary["run_dir"])
    assert rows[0]["backward/start"] > 6 and all(member["metrics"]["backward/start"] <= 1 for member in summary["members"])
    assert all(member["metrics"]["evaluation/success"] == 1.0 for member in summary["members"])
    Path(file).unlink()  # a policy needs its demonstrations no more, and learning on does
    policy, obs = api.policy(summary["run_dir"]), jnp.zeros((1, 12, 12)).at[0, 0, 0].set(1.0)
    assert policy.act(policy.start(1), KEY, obs, jnp.ones(1, bool))[1].tolist() == [action_mapping(12)[0, 0]]
    with pytest.raises(Refusal, match="there is no such file"):
        api.train(rundir.read_config(Path(summary["run_dir"])) | {"run_dir": str(tmp_path / "again")})


@pytest.mark.medium
def test_what_was_shown_is_cloned_and_ppo_goes_on_from_it(tmp_path):
    file, quiet = saved(tmp_path, actions=RIGHT), ["exploration=none", f"env.size={SIZE}", "seeds=1", "agent.hidden=[16]", "logger.console=false"]
    cloning = compose(["agent=behaviour_cloning", *quiet, f"runner.data={file}", "total_steps=300", "agent.learning_rate=1e-2"])
    cloned = api.train(cloning, tmp_path)
    assert cloned["results"]["evaluation/success/median"] == 1.0
    begun = compose([*quiet, f"init_from={cloned['run_dir']}", "total_steps=128", "runner.lanes=8", "runner.rollout=16", "agent.learning_rate=1e-9"])
    assert api.train(begun, tmp_path)["results"]["evaluation/success/median"] == 1.0
