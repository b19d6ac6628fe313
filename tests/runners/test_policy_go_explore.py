"""Policy-based Go-Explore: sub-goals, what pays and what is learnt from, temperatures, what is refused, exact resume, a maze with noise that it learns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import Refusal
from envs.deep_sea import action_mapping
from exploration.hash_table import hash_observation
from exploration.recordings import Written, recordings, write
from exploration.routes import Steps, choose, routes, tell
from runners import api
from runners.base import Clock
from runners.compose import compose
from runners.experiment import experiment
from runners.returning import Known, Rules, nowhere, steering
from runners.showing import Kept
from runners.source import jax_source
from tests.runners.test_resume import split_equals_whole
from tests.runners.tiny import TINY

KEY = jax.random.PRNGKey(0)
NO = jnp.array(False)
LANES = 4
RULES = Rules(0.5, 2, 1.0, 3.0, 2.0, 1.0, 1, 100, 50, 0.01, 1000)
POLICY = ["runner=policy_go_explore", "exploration=none", "runner.capacity=64", "runner.longest=16"]


def row(length: int = 8) -> Environment:
    """Action 1 goes on and is paid 5, action 0 stays; it ends after ``length`` places."""

    def step(place, key, action):
        place = place + action
        return place, TimeStep(place, 5.0 * action, place >= length, NO, {})

    spec = Spec(spaces.Discrete(length + 1), spaces.Discrete(2), "row", max_steps=100, deterministic=True)
    return Environment(spec, lambda key: (jnp.int32(0), jnp.int32(0)), step)


def identify(transition):
    return hash_observation(transition.next_obs[:, None], 1)


def steered(rules: Rules = RULES, places: int = 6, **options):
    """(source, lanes) after one episode that went through so many places; its last one is where all lanes go."""
    env = row()
    source = jax_source(env, LANES, note=nowhere(16, env))
    state = routes(32, 16, 1, {"goal": jnp.int32(0)})
    been = jnp.arange(1, places + 1)[:, None]
    no = jnp.zeros((places, 1), bool)
    keys = hash_observation(been[..., None], 2)
    state, _ = tell(state, Steps(keys, no.at[0].set(True), no, 0.0 * been, been, {"goal": been}))
    last = jnp.argmax(state.count)
    state = state._replace(actions=jnp.where(jnp.arange(32) == last, 0, 10**9))
    way = steering(env, source, identify, rules)(Known(state), **options)
    return way, way.init(KEY)


def went(way, lanes, actions):
    found = []
    for t, action in enumerate(actions):
        lanes, transition = way.step(lanes, jax.random.fold_in(KEY, t), jnp.full(LANES, action))
        found.append(transition)
    return lanes, jax.tree.map(lambda *x: np.stack(x)[:, 0], *found)


def test_sub_goals_pay_and_the_last_one_ends_the_return():
    way, lanes = steered()
    assert lanes.obs["goal"].tolist() == [1] * LANES and lanes.note.count.tolist() == [6] * LANES
    lanes, seen = went(way, lanes, [1, 1, 0, 1, 1, 1, 1])
    assert seen.next_obs["goal"][:6].tolist() == [2, 3, 3, 4, 5, 6]
    assert seen.reward.tolist() == [3, 3, 0, 3, 3, 3, 5]  # the world's 5 is clipped to 2; the last sub-goal pays 3
    assert seen.info["arrived"].tolist() == [False] * 6 + [True] and not seen.info["exploring"].any() and lanes.note.exploring.all()
    assert seen.info["episode_return"].tolist() == [5, 10, 10, 15, 20, 25, 30] and seen.next_obs["world"].tolist() == [1, 2, 2, 3, 4, 5, 6]


def test_after_the_return_actions_are_drawn_and_kept():
    way, lanes = steered(RULES._replace(mean_run=10**6), places=1)
    _, seen = went(way, lanes, [1, *[0] * 6])
    assert seen.info["exploring"].tolist() == [False, *[True] * 6]
    assert len(set(seen.action[1:].tolist())) == 1
    way, lanes = steered(RULES._replace(random=0.0), places=1)
    _, seen = went(way, lanes, [1, *[0] * 6])
    assert seen.action.tolist() == [1, *[0] * 6]  # the policy's own
    assert set(seen.next_obs["goal"].tolist()) == {1}  # to the only cell there is


def test_who_is_late_grows_random_and_at_last_gives_up():
    way, lanes = steered(RULES._replace(overdue=0.5, give_up=5))
    lanes, seen = went(way, lanes, [1, 0, 0, 0, 0, 0])
    assert seen.info["temperature"].tolist() == pytest.approx([1, 1, 1, 1 + 0.25, 1 + 1, 1 + 2.25])  # one step per sub-goal is its pace
    assert way.temperature(lanes).tolist() == pytest.approx([1 + 4] * LANES)
    assert seen.truncated.tolist() == [False] * 5 + [True]
    lanes = way.restart(lanes, KEY, jnp.arange(LANES) < 2)
    assert lanes.obs["world"].tolist() == [0, 0, 1, 1] and lanes.obs["goal"].tolist() == [1, 1, 2, 2] and lanes.note.since.tolist() == [0, 0, 5, 5]


def test_evaluations_go_to_the_best_cell_without_chance():
    way, lanes = steered(RULES._replace(overdue=0.5, give_up=5), to_the_best=True)
    lanes, seen = went(way, lanes, [0] * 8)
    assert not seen.truncated.any() and way.temperature is None and not lanes.note.random.any()


def imitating(**options):
    """(source, lanes) whose last two lanes show the only recorded way, of six steps of a world where each is paid 5, of which 2 count."""
    env, rules = row(), RULES._replace(imitation_lanes=2, discount=0.5, **options)
    source = jax_source(env, LANES, note=nowhere(16, env, 7))
    been = jnp.arange(1, 7)[:, None]
    no = jnp.zeros((6, 1), bool)
    first, look = no.at[0].set(True), {"goal": been}
    told = Steps(hash_observation(been[..., None], 2), first, no, 0.0 * been, been, look)
    state, happened = tell(routes(32, 16, 1, {"goal": jnp.int32(0)}), told)
    paid = jnp.full((6, 1), 5.0)
    info = {"episode_return": jnp.cumsum(paid, axis=0), "episode_length": been}
    steps = Kept(been - 1, jnp.ones((6, 1), jnp.int32), paid, been, info, told.keys)
    kept = recordings(3, 7, 1, 32, jax.tree.map(lambda x: x[0, 0], steps))
    kept = write(kept, Written(first, been - 1, happened["cell"], happened["better"], steps))
    last = jnp.argmax(state.count)
    state = state._replace(actions=jnp.where(jnp.arange(32) == last, 0, 10**9))
    way = steering(env, source, identify, rules)(Known(state, kept))
    return way, way.init(KEY)


def test_recorded_ways_are_shown_with_their_sub_goals_and_what_they_are_worth():
    way, lanes = imitating()
    seen = []
    for t in range(6):
        lanes, transition = way.step(lanes, jax.random.fold_in(KEY, t), jnp.zeros(LANES, jnp.int32))  # who acts stays where he is
        seen.append(transition)
    acts, shows = ([jax.tree.map(lambda x, n=n: x[n], transition) for transition in seen] for n in (0, 3))
    assert [int(one.obs["world"]) for one in acts] == [0] * 6 and not any(one.info["imitated"] for one in acts)
    assert [int(one.obs["world"]) for one in shows] == [0, 1, 2, 3, 4, 5] and all(one.info["imitated"] for one in shows)
    assert [int(one.action) for one in shows] == [1] * 6
    assert [int(one.obs["goal"]) for one in shows] == [1, 2, 3, 4, 5, 6]
    rewards = [float(one.reward) for one in shows]
    assert rewards == [3, 3, 3, 3, 3, 5] and [float(one.info["own_reward"]) for one in shows] == [5] * 6
    worth = [sum(0.5**k * reward for k, reward in enumerate(rewards[t:])) for t in range(6)]
    assert [float(one.info["to_go"]) for one in shows] == pytest.approx(worth)
    assert [bool(one.truncated) for one in shows] == [False] * 5 + [True] and not any(one.terminated for one in shows)
    assert [float(one.info["temperature"]) for one in shows] == [1] * 6
    lanes = way.restart(lanes, KEY, jnp.arange(LANES) == 3)
    assert lanes.obs["world"].tolist() == [0, 0, 6, 0] and lanes.note.showing.number.tolist()[2:] == [6, 0]


def test_evaluations_show_nothing():
    way, _ = imitating()
    env, rules = row(), RULES._replace(imitation_lanes=2)
    source = jax_source(env, LANES, note=nowhere(16, env, 7))
    watched = steering(env, source, identify, rules)(Known(routes(32, 16, 1, {"goal": jnp.int32(0)}), ()), to_the_best=True)
    assert not watched.init(KEY).note.showing.on.any() and way.init(KEY).note.showing.on.tolist() == [False, False, True, True]


def test_what_is_shown_happened():
    """In DeepSea the steps that lanes show are steps that the world makes; none is learnt from but by imitation, and no end of theirs is counted."""
    made = experiment(compose([*TINY, *POLICY, "env=deep_sea", "runner.imitation_lanes=2", "runner.recordings=5"]))
    runner, mapping = made.make_runner(made.members[0].hyper), action_mapping(4)

    def one_member(function, axes):
        return jax.jit(jax.vmap(function, axes, axis_name="members"))

    state, shown, counted = one_member(runner.init, 0)(KEY[None]), 0, 0
    step, scored = one_member(runner.step, (0, None)), one_member(runner.parts()["bonus score"], (0, None))
    for n in range(6):
        clock = Clock(jnp.int32(n), jnp.float32(0.1 * n))
        steps = jax.tree.map(lambda x: np.asarray(x[0]), scored(state, clock)[1][1].rollout.transitions)
        state, metrics = step(state, clock)
        imitated = steps.info["imitated"]
        assert not imitated[:, :2].any()
        shown, counted = shown + imitated.sum(), counted + (steps.done & ~imitated).sum()
        for t, lane in zip(*np.nonzero(imitated), strict=True):
            (row,), (column,) = np.nonzero(steps.obs["world"][t, lane])
            right = steps.action[t, lane] == mapping[row, column]
            after = np.zeros((5, 4))
            after[row + 1, np.clip(column + (1 if right else -1), 0, 3)] = 1
            np.testing.assert_array_equal(steps.next_obs["world"][t, lane], after[:4])
            assert steps.info["own_reward"][t, lane] == pytest.approx(right * ((column == 3) - 0.01 / 4)) and steps.first[t, lane] == (row == 0)
    assert shown > 16 and int(metrics["episode/count"].value[0]) == counted and int(metrics["archive/recorded"].value[0]) > 4


@pytest.mark.medium
def test_bonuses_of_latents_go_with_it(tmp_path):
    """What is known of the world is told of its observations, not of what the agent makes of them."""
    words = [*TINY, *(word for word in POLICY if word != "exploration=none"), "exploration=rnd", "exploration.input=latent", "env=deep_sea"]
    words += ["seeds=1", "evaluations=0", f"run_dir={tmp_path}/run"]
    api.train(compose(words))
    assert [row["archive/cells"] for row in api.metrics(tmp_path / "run") if "archive/cells" in row][-1] > 4


def test_cells_are_chosen_in_proportion():
    state = routes(8, 2, 1, jnp.int32(0))._replace(actions=jnp.array([0, 2, 6, 18, 0, 0, 0, 0]), count=jnp.array([1, 1, 1, 1, 0, 0, 0, 0]))
    drawn = np.bincount(choose(state, KEY, 100_000), minlength=8) / 100_000
    np.testing.assert_allclose(drawn, np.array([1, 0.5, 0.25, 0.1, 0, 0, 0, 0]) / 1.85, atol=0.006)


def test_what_does_not_fit_is_refused():
    for words, reason in (
        (["env=gymnasium", "env.id=CartPole-v1"], "lives on the host"),
        (["env=deep_sea", "env.noisy_tv=2"], "dictionary already"),
        (["env=deep_sea", "runner.cell=downscaled"], "shrinks pictures"),
        (["env=deep_sea", "runner.capacity=100"], "power of two"),
        (["env=deep_sea", "runner.lanes=4", "runner.imitation_lanes=4"], "leaves none of runner.lanes=4"),
        (["env=deep_sea", "runner.lanes=4", "runner.recordings=4"], "give more than 4"),
    ):
        with pytest.raises(Refusal, match=reason):
            made = experiment(compose(["runner=policy_go_explore", "exploration=none", *words]))
            made.make_runner(made.members[0].hyper)


@pytest.mark.medium
@pytest.mark.parametrize("recurrent", [0, 4])
def test_resume_is_exact(recurrent, tmp_path):
    split_equals_whole([*TINY, *POLICY, "env=deep_sea", "env.stochastic=true", f"agent.recurrent={recurrent}"], "vmap", tmp_path)


@pytest.mark.slow
def test_a_grid_with_noise_is_learnt(tmp_path):
    """In 120,000 steps, where nothing can be put back; chance alone reaches the goal in one of ten episodes that long."""
    grid = ["env=minigrid", "env.id=MiniGrid-Empty-8x8-v0", "env.view=full", "env.layout=1", "env.action_noise=0.2", "runner.cell=position"]
    learn = ["runner=policy_go_explore", "exploration=none", "agent.learning_rate=1e-3", "runner.give_up=60", "runner.evaluation_mode=explore", "seeds=3"]
    api.train(compose([*grid, *learn, "total_steps=120_000", "evaluations=1", f"run_dir={tmp_path}/run"]))
    found = [row["evaluation/success"] for row in api.metrics(tmp_path / "run") if "evaluation/success" in row]
    assert len(found) == 3 and min(found) >= 0.6
