"""Go-Explore's archive against the published algorithm told in plain Python, one rollout and one step after the other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Lanes, Spec, Transition
from envs.builder import Refusal
from exploration.base import Explored
from exploration.cells import downscale, shares
from exploration.go_explore import COUNTERS, END, NEVER, START, draw, go_explore, nowhere
from exploration.trajectories import append, narrow, trajectories, walk, walked

STATES, LANES, STEPS = 9, 5, 7
WORLD = Spec(spaces.Discrete(STATES), spaces.Discrete(4), "made up", info={"state_id": spaces.Discrete(STATES)}, num_states=STATES, deterministic=True)


def made_up_batch(rng, starts) -> Explored:
    """Rollouts between few states with few different rewards, so that cells are met often and scores are equal often; some end."""
    shape = (STEPS, LANES)
    ids, actions = rng.integers(0, STATES, shape).astype(np.int32), rng.integers(0, 4, shape).astype(np.int32)
    rewards, done = rng.choice([-1.0, 0.0, 0.0, 0.0, 1.0], shape).astype(np.float32), rng.random(shape) < 0.08
    valid = np.concatenate([np.ones((1, LANES), bool), np.cumsum(done, axis=0)[:-1] == 0])
    score = np.asarray(starts.lanes.episode_return) + np.cumsum(rewards, axis=0, dtype=np.float32)
    length = np.asarray(starts.lanes.episode_length) + np.arange(1, STEPS + 1, dtype=np.int32)[:, None]
    no = np.zeros(shape, bool)
    reached = Lanes(ids * 10, ids, no, score, length, ())
    steps = Transition(ids, actions, rewards, ids, done, no, no, {"state_id": ids})
    parents = starts.lanes.note._replace(origin=jnp.ones((LANES, 2), jnp.uint32))
    return Explored(starts.cells, parents, *jax.tree.map(jnp.asarray, (reached, steps, valid)))


class Told:
    """The algorithm of the method card, section 2.2, with a dictionary."""

    def __init__(self):
        self.cells = {"end": self.empty(), "start": self.empty() | {"score": 0.0, "length": 0, "way": ()}}
        self.order = ["end", "start"]

    @staticmethod
    def empty():
        return {"score": -np.inf, "length": NEVER, "way": None, "world": 0, **dict.fromkeys(COUNTERS, 0)}

    def merge(self, explored: Explored, reset: bool):
        accepted = set()
        host = jax.tree.map(np.asarray, explored)
        begun = [self.cells[self.order[number]]["way"] for number in host.chosen]
        for lane in range(LANES):
            self.one(lane, host, begun[lane], accepted)
        for key in accepted if reset else ():
            self.cells[key] |= dict.fromkeys(COUNTERS, 0)

    def one(self, lane, host, way, accepted):
        came = key = self.order[host.chosen[lane]]
        for counter in ("chosen", "chosen_since_new", "seen"):
            self.cells[came][counter] += 1
        visited = {came}
        for t in range(STEPS):
            if not host.valid[t, lane]:
                break
            self.cells[key]["actions"] += 1
            way = (*way, int(host.steps.action[t, lane]))
            done = bool(host.steps.terminated[t, lane])
            key = "end" if done else int(host.steps.info["state_id"][t, lane])
            if key not in self.cells:
                self.cells[key] = self.empty()
                self.order.append(key)
            cell = self.cells[key]
            if key not in visited:
                cell["seen"] += 1
                visited.add(key)
            score, length = float(host.reached.episode_return[t, lane]), int(host.reached.episode_length[t, lane])
            if score > cell["score"] or score == cell["score"] and length < cell["length"]:
                cell |= {"score": score, "length": length, "way": way, "world": int(host.reached.world[t, lane])}
                self.cells[came]["chosen_since_new"] = 0
                accepted.add(key)


@pytest.mark.parametrize("reset", [True, False])
def test_merges_as_the_published_algorithm_does(reset):
    archive = go_explore(WORLD, reset_on_update=reset, actions_weight=0.3, chosen_weight=0.2)
    empty = jnp.zeros(LANES, jnp.int32)
    starts = Lanes(empty, empty, empty == 0, empty.astype(jnp.float32), empty, ())
    insert, select = jax.jit(archive.insert), jax.jit(archive.select, static_argnums=2)
    state, told, rng = jax.jit(archive.init)(jax.random.PRNGKey(0), (starts, jnp.zeros(STEPS, jnp.int32))), Told(), np.random.default_rng(0)
    for number in range(60):
        key = jax.random.PRNGKey(number)
        state, chosen = select(state, key, LANES)
        explored = made_up_batch(rng, chosen)
        state, happened = insert(state, key, explored)
        told.merge(explored, reset)
        host, size = jax.tree.map(np.asarray, state), len(told.order)
        assert host.size == size and not np.any(host.scratch != NEVER)
        cells = [told.cells[name] for name in told.order]
        for field, found in (("score", host.score), ("length", host.length), *((name, getattr(host, name)) for name in COUNTERS)):
            assert found[:size].tolist() == [cell[field] for cell in cells], (number, field)
        for i, cell in enumerate(cells):
            if i != START and cell["way"] is not None:
                tree, note = host.tree, host.kept.note
                assert walked(tree.actions, tree.parent_row, tree.parent_steps, note.row[i], note.steps[i]).tolist() == list(cell["way"])
                assert host.kept.world[i] == cell["world"] and note.origin[i].tolist() == [1, 1]
    scored = [cell for i, cell in enumerate(cells) if i != START or cell["way"] == ()]
    assert cells[int(host.best)]["score"] == max(cell["score"] for cell in scored)
    assert size == STATES + 2 and happened["new"] == 0


def test_the_ends_are_never_chosen_and_scores_never_fall():
    archive = go_explore(WORLD)
    empty = jnp.zeros(LANES, jnp.int32)
    state = jax.jit(archive.init)(
        jax.random.PRNGKey(0), (Lanes(empty, empty, empty == 0, empty.astype(jnp.float32), empty, ()), jnp.zeros(STEPS, jnp.int32))
    )
    rng, before = np.random.default_rng(1), None
    for number in range(30):
        state, chosen = archive.select(state, jax.random.PRNGKey(number), LANES)
        assert END not in chosen.cells.tolist() and np.all(np.asarray(chosen.cells) < state.size)
        state, _ = archive.insert(state, jax.random.PRNGKey(number), made_up_batch(rng, chosen))
        score, length = np.asarray(state.score), np.asarray(state.length)
        if before is not None:
            assert np.all(score >= before[0]) and np.all(length[score == before[0]] <= before[1][score == before[0]])
        before = score, length
    weights = np.asarray(archive.weights(state))
    assert weights[END] == 0 and np.all(weights[START : state.size] > 0) and not weights[state.size :].any()


def test_a_high_score_weighs_by_its_rank():
    archive = go_explore(WORLD, seen_weight=0.0, high_score_weight=2.0)
    empty = jnp.zeros(LANES, jnp.int32)
    state = archive.init(jax.random.PRNGKey(0), (Lanes(empty, empty, empty == 0, empty.astype(jnp.float32), empty, ()), jnp.zeros(STEPS, jnp.int32)))
    score = state.score.at[END].set(99.0).at[1:5].set(jnp.array([0.0, 7.0, 3.0, 8.0]))
    state = state._replace(size=jnp.int32(5), kept=state.kept._replace(episode_return=score))
    np.testing.assert_allclose(archive.weights(state)[:6], [0, 2 / 2, 2 / np.sqrt(2), 2 / np.sqrt(3), 2, 0], rtol=1e-6)


def test_cells_are_drawn_independently_also_among_a_million():
    weights = jnp.zeros(2**20).at[jnp.array([3, 2**19, 2**20 - 1])].set(jnp.array([1.0, 2.0, 1.0]))
    drawn = np.asarray(draw(weights, jax.random.PRNGKey(0), 40_000))
    places, counts = np.unique(drawn, return_counts=True)
    assert places.tolist() == [3, 2**19, 2**20 - 1]
    np.testing.assert_allclose(counts / 40_000, [0.25, 0.5, 0.25], atol=4 * 0.5 / 200)
    among = np.asarray(draw(jnp.full(2**20, 1e-3), jax.random.PRNGKey(1), 40_000))
    assert abs(among.mean() / 2**19 - 1) < 0.02 and len(np.unique(among)) > 38_000


def test_pictures_are_shrunk_by_the_area_that_pixels_cover():
    np.testing.assert_allclose(shares(5, 2), [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]], atol=1e-7)
    np.testing.assert_allclose(shares(160, 11).sum(axis=1), 1, atol=1e-6)
    white = np.full((1, 210, 160, 3), 255, np.uint8)
    assert np.all(np.asarray(downscale(white, 11, 8, 8)) == 8) and not np.any(np.asarray(downscale(white * 0, 11, 8, 8)))
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2, :2] = 255  # one quarter white; grey of red 255 is 76
    picture[2:, 2:, 0] = 255
    assert np.asarray(downscale(picture, 2, 2, 8)).tolist() == [[8, 0], [0, 2]]  # floor(76 / 255 x 8) = 2
    assert np.asarray(downscale(picture, 1, 1, 255)).tolist() == [[83]]  # (255 + 76) / 4 rounded


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"cell": "position"}, "needs info.position"),
        ({"cell": "downscaled"}, "shrinks pictures"),
        ({"cell": "sate"}, "did you mean state"),
    ],
)
def test_cells_that_the_world_does_not_have_are_refused(settings, reason):
    with pytest.raises(Refusal, match=reason):
        go_explore(WORLD, **settings)


def test_a_world_of_chance_is_refused_with_what_to_do():
    chance = WORLD._replace(deterministic=False)
    with pytest.raises(Refusal, match="exploration.lucky=true"):
        go_explore(chance)
    go_explore(chance, lucky=True)


def test_actions_are_stored_in_as_few_bytes_as_hold_them_and_come_back_as_they_were():
    for space, stored in ((spaces.Discrete(256), np.uint8), (spaces.Discrete(256, start=1), np.uint16), (spaces.Discrete(3, start=-1), np.int32)):
        assert narrow(space, np.int32) == stored
    assert narrow(spaces.Box(-1.0, 1.0, (2,)), np.float32) == np.float32
    actions = jnp.int32([[0, 255, 7], [1, 254, 200]])
    tree, rows = append(trajectories(4, actions[0], jnp.uint8), actions, nowhere(2), jnp.ones(2, bool))
    assert tree.actions.dtype == jnp.uint8
    way = walked(tree.actions, tree.parent_row, tree.parent_steps, 1, 3)
    assert way.tolist() == walk(tree, rows[1], 3, 3, 3).tolist() == [1, 254, 200] and way.dtype == np.int32


def test_trails_begin_at_no_row():
    assert nowhere(3).row.tolist() == [-1, -1, -1]
