"""What searches over policies are made of, against plain Python and the cards' known answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.builder import Refusal
from envs.point2d import point2d
from exploration import cma_es, grid_archive
from exploration.base import Evaluation
from exploration.budget import EXPLOIT, EXPLORE, bandit, paid, preferred
from exploration.cma_me import cma_me
from exploration.emitters import cma, elitist, fresh_record, improvement, recorded, stagnant
from exploration.neighbours import smallest
from exploration.novelty import local_competition, novelty
from exploration.pareto import best, crowding, fronts
from exploration.tessellation import centroids_of, tessellation

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
LATTICE = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), axis=-1).reshape(-1, 2).astype(np.float32)


def evaluation(fitness, descriptor) -> Evaluation:
    fitness, descriptor = jnp.asarray(fitness, jnp.float32), jnp.asarray(descriptor, jnp.float32)
    valid = jnp.isfinite(fitness)
    return Evaluation(fitness, descriptor, jnp.ones_like(valid), valid, jnp.zeros(len(fitness), jnp.int32))


@pytest.mark.parametrize(("k", "wanted"), [(4, 0.5), (8, 0.5 * 1.2071068)])
def test_novelty_inside_a_lattice(k, wanted):
    """Spacing h = 0.5: the four nearest are at h, the next four at sqrt(2) h."""
    points = jnp.asarray(0.5 * LATTICE)
    found = novelty(points[40][None], points, jnp.ones(81, bool), k, exclude_self=True)
    np.testing.assert_allclose(found, [wanted], rtol=1e-6)


def test_novelty_knows_itself_scale_and_place():
    """k + 1 points at one place have none; it scales with distances; it stays when all turn, move, or change places; who is not known does not count."""
    rng = np.random.default_rng(0)
    points, known = rng.normal(size=(40, 2)).astype(np.float32), np.arange(40) < 30
    of = lambda p, k=known, q=7: float(novelty(jnp.asarray(p[q : q + 1]), jnp.asarray(p), jnp.asarray(k), 5, True)[0])  # noqa: E731
    order = rng.permutation(40)
    turned = points @ np.array([[0.6, -0.8], [0.8, 0.6]], np.float32) + 3.0
    plain = np.sort(np.linalg.norm(points[:30] - points[7], axis=1))[1:6].mean()
    assert of(np.repeat(points[:1], 40, 0)) == 0.0
    np.testing.assert_allclose([of(points), of(3 * points) / 3, of(turned), of(points[order], known[order], int(np.argmax(order == 7)))], plain, rtol=2e-5)


def test_novelty_without_itself_and_with_few_others():
    points = jnp.array([[0.0, 0.0], [3.0, 4.0], [9.0, 9.0]])
    query = jnp.array([[0.0, 0.0]])
    assert float(novelty(query, points, jnp.array([True, True, False]), 15, exclude_self=False)[0]) == 2.5  # 0 and 5
    assert float(novelty(query, points, jnp.array([True, True, False]), 15, exclude_self=True)[0]) == 5.0
    assert float(novelty(query, points, jnp.array([True, False, False]), 15, exclude_self=True)[0]) == 0.0  # one element: no NaN
    assert float(novelty(query, points, jnp.zeros(3, bool), 15, exclude_self=False)[0]) == 0.0


def test_local_competition_counts_weaker_neighbours():
    points, fitness = jnp.array([[0.0], [1.0], [2.0], [9.0]]), jnp.array([1.0, 0.0, 2.0, -5.0])
    found = local_competition(points, fitness, points, fitness, jnp.ones(4, bool), 2)
    np.testing.assert_array_equal(found, [1, 0, 2, 0])  # neighbours of the last are 2 and 1, both better


def test_fronts_and_crowding():
    objectives = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.4, 0.4], [0.4, 0.3]])
    np.testing.assert_array_equal(fronts(objectives), [0, 0, 0, 1, 2])
    spread = np.asarray(crowding(objectives, fronts(objectives)))
    assert np.isinf(spread[[0, 1, 3, 4]]).all() and spread[2] == pytest.approx(2.0)
    np.testing.assert_array_equal(np.sort(best(objectives, 3)), [0, 1, 2])
    np.testing.assert_array_equal(best(jnp.array([[1.0], [3.0], [2.0], [3.0]]), 3), [1, 3, 2])


def test_fronts_are_those_of_a_plain_loop():
    rng = np.random.default_rng(1)
    points = rng.integers(0, 5, (60, 2)).astype(np.float32)  # many ties
    wanted, left, level = np.zeros(60, int), list(range(60)), 0
    while left:
        first = [i for i in left if not any(np.all(points[j] >= points[i]) and np.any(points[j] > points[i]) for j in left)]
        wanted[first], level = level, level + 1
        left = [i for i in left if i not in first]
    np.testing.assert_array_equal(fronts(jnp.asarray(points)), wanted)


@pytest.mark.parametrize("number", [5, 170, 1000, 20_000])  # sorted at once, and groups in one level, two, three
def test_the_smallest_are_those_of_sorting_all(number):
    values = np.random.default_rng(number).normal(size=number).astype(np.float32)
    values[::3] = np.inf
    wanted = np.sort(values)[:5]
    found, place = jax.jit(lambda v: smallest(v, 5))(values)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(values[place], wanted)
    assert len(set(np.asarray(place)[np.isfinite(wanted)].tolist())) == np.isfinite(wanted).sum()


@pytest.mark.parametrize("ties", [False, True])
def test_a_batch_enters_the_grid_as_one_after_the_other(ties):
    """Fitness per cell, status and value of every individual, against a loop; of those in one cell the fittest counts, the first among equals."""
    rng = np.random.default_rng(2)
    cells, grid, plain = [4, 3], grid_archive.empty(12, 1, 2), {}
    insert = jax.jit(lambda *a: grid_archive.insert(*a, ties))
    for batch in range(6):
        descriptor = rng.uniform(-1.2, 1.2, (30, 2)).astype(np.float32)  # some outside
        fitness = rng.integers(-3, 4, 30).astype(np.float32)
        fitness[rng.random(30) < 0.1] = -np.inf  # could not be tried
        genomes = (100 * batch + np.arange(30, dtype=np.float32))[:, None]
        cell = grid_archive.cell_of(jnp.asarray(descriptor), BOX, cells)
        share = np.clip(((descriptor + 1) / 2 * cells).astype(int), 0, np.array(cells) - 1)
        np.testing.assert_array_equal(cell, share[:, 0] * 3 + share[:, 1])
        grid, added = insert(grid, cell, jnp.asarray(genomes), evaluation(fitness, descriptor))
        before = dict(plain)
        for i in range(30):
            old, now = before.get(int(cell[i])), plain.get(int(cell[i]))
            if not np.isfinite(fitness[i]):
                assert not added.new[i] and not added.improved[i] and np.isneginf(added.value[i])
                continue
            np.testing.assert_allclose(added.value[i], fitness[i] if old is None else fitness[i] - old[0])
            beats = old is None or fitness[i] > old[0] or (ties and fitness[i] == old[0])
            if beats and (now is old or fitness[i] > now[0]):
                plain[int(cell[i])] = (fitness[i], genomes[i, 0], i)
        winners = {v[2]: k for k, v in plain.items() if before.get(k) != v}
        np.testing.assert_array_equal(np.flatnonzero(added.new), sorted(i for i, k in winners.items() if k not in before))
        np.testing.assert_array_equal(np.flatnonzero(added.improved), sorted(i for i, k in winners.items() if k in before))
    for cell in range(12):
        wanted = plain.get(cell, (-np.inf, 0.0))
        assert (float(grid.fitness[cell]), float(grid.genomes[cell, 0])) == (wanted[0], wanted[1])
    again, added = grid_archive.insert(
        grid, jnp.arange(12), grid.genomes, Evaluation(grid.fitness, grid.descriptor, jnp.ones(12, bool), jnp.isfinite(grid.fitness), jnp.zeros(12, jnp.int32))
    )
    jax.tree.map(np.testing.assert_array_equal, again, grid)  # adding the archive again changes nothing


def test_parents_are_drawn_uniformly_from_filled_cells():
    grid = grid_archive.empty(10, 1, 2)._replace(fitness=jnp.where(jnp.arange(10) % 3 == 1, 0.0, -jnp.inf))
    drawn = np.bincount(grid_archive.choose(grid, jax.random.PRNGKey(0), 30_000), minlength=10) / 30_000
    np.testing.assert_allclose(drawn, [0, 1 / 3, 0, 0, 1 / 3, 0, 0, 1 / 3, 0, 0], atol=0.02)


def test_centroids_are_where_lloyd_leaves_them():
    """Each is the mean of what is nearest to it; cells are of about one size; a descriptor's cell is the nearest centroid, in shares of the box."""
    box = spaces.Box(np.array([-1.0, 10.0], np.float32), np.array([1.0, 40.0], np.float32))
    cut = tessellation("cvt", box, [], 40)
    middles = centroids_of(2, 40)
    share = np.random.default_rng(1).random((20_000, 2)).astype(np.float32)
    owner = np.argmin(np.linalg.norm(share[:, None] - middles, axis=-1), axis=-1)
    np.testing.assert_array_equal(cut.cell_of(jnp.asarray(share[:500] * [2.0, 30.0] + [-1.0, 10.0])), owner[:500])
    size = np.bincount(owner, minlength=40)
    assert cut.number == 40 and size.min() > 0.6 * size.mean() and size.max() < 1.5 * size.mean()
    for cell in range(40):
        assert np.linalg.norm(share[owner == cell].mean(axis=0) - middles[cell]) < 0.012
    with pytest.raises(Refusal, match="at most 25000"):
        tessellation("cvt", box, [], 30_000)


def test_the_bandit_among_emitters_is_ucb1():
    """Against the formula in plain numbers, where only what the second of three emitters asks for may enter: it is asked the most."""
    genes = spaces.Box(-5.0, 5.0, (4,), np.float32)
    search = cma_me(point2d().spec._replace(genome=genes), emitters=3, samples=4, schedule="bandit", cells=[50, 50])
    ask, tell = jax.jit(lambda s, k: search.ask(s, k, "offspring")), jax.jit(lambda s, k, x, e: search.tell(s, k, ("offspring", x, e)))
    state, stored, asked = jax.jit(search.init)(jax.random.PRNGKey(0)), np.zeros(3), np.zeros(3)
    for key in jax.random.split(jax.random.PRNGKey(1), 30):
        state, genomes, wanted = ask(state, key)
        made = 4 * asked
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = np.where(asked == 0, np.inf, stored / made + np.sqrt(2 * np.log(made.sum()) / made))
        turn = int(np.argmax(bound))
        assert int(state.turn) == turn
        place = np.tanh(np.asarray(genomes[:, :2]))
        told = evaluation(np.where(turn == 1, 1.0, -np.inf) * np.ones(4), place)
        before = np.isfinite(state.grid.fitness).sum()
        state, _ = tell(state, key, genomes, told)
        asked[turn] += 1
        stored[turn] += np.isfinite(state.grid.fitness).sum() - before
    assert asked[1] > 15 and np.all(asked >= 2)
    np.testing.assert_array_equal(state.stored, stored)


def test_the_bandit_between_exploring_and_exploiting():
    """Both once first; what chunks earn, and whose turn it is, against the formulae in plain numbers."""
    state, earned, before = bandit(), ([], []), (0, 0)
    for phase, found, living in [(EXPLORE, 1, 0), (EXPLOIT, 1, 2), (EXPLOIT, 1, 1), (EXPLORE, 1, 1), (EXPLOIT, 1, 0), (EXPLORE, 4, 0)]:
        assert int(preferred(state)) == phase or min(map(len, earned)) > 0
        state = state._replace(found=jnp.int32(found))
        unfinished = paid(state, jnp.int32(phase), jnp.bool_(False), jnp.int32(9))
        jax.tree.map(np.testing.assert_array_equal, unfinished, state)
        state = paid(state, jnp.int32(phase), jnp.bool_(True), jnp.int32(living))
        explored, exploited = -np.tanh(found - before[0]), np.tanh(living - before[1]) if living else -1.0
        earned[phase].append(exploited if phase == EXPLOIT else explored)
        before = (found, living)
        np.testing.assert_allclose(state.earned, [np.mean(e) if e else 0.0 for e in earned], atol=1e-6)
        if min(map(len, earned)) > 0:
            total = sum(map(len, earned))
            assert int(preferred(state)) == int(np.argmax([np.mean(e) + np.sqrt(np.log(total) / len(e)) for e in earned]))


def sphere(x):
    return -jnp.sum(jnp.square(x), axis=-1)


def ellipsoid(x):
    return -jnp.sum(1e4 ** (jnp.arange(x.shape[-1]) / (x.shape[-1] - 1)) * jnp.square(x), axis=-1)


@pytest.mark.parametrize(("function", "evaluations"), [(sphere, 1500), (ellipsoid, 5000)])
def test_cma_es_finds_the_optimum(function, evaluations):
    """Ten dimensions from a distance of 3: below 1e-6 after so many evaluations, the badly scaled one included."""
    c = cma_es.constants(10, 10)

    def one(state, key):
        samples = cma_es.sample(state, key, 10)
        return cma_es.told(state, samples, jnp.argsort(-function(samples)), c), None

    end, _ = jax.jit(lambda s, k: jax.lax.scan(one, s, k))(
        cma_es.begin(jnp.full(10, 3.0 / 10**0.5), 1.0), jax.random.split(jax.random.PRNGKey(0), evaluations // 10)
    )
    assert -1e-6 < float(function(end.mean)) <= 0


def test_cma_es_constants_are_the_tutorials():
    """n = 10, lambda = 10, from table 1 by hand."""
    c = cma_es.constants(10, 10)
    raw = np.log(5.5) - np.log([1, 2, 3, 4, 5])
    w = raw / raw.sum()
    mu = 1 / np.sum(w**2)
    assert c.mu_eff == pytest.approx(mu) and c.weights[:5] == pytest.approx(w, rel=1e-6) and not c.weights[5:].any()
    assert c.c_s == pytest.approx((mu + 2) / (15 + mu)) and c.c_c == pytest.approx((4 + mu / 10) / (14 + mu / 5))
    assert c.c_1 == pytest.approx(2 / (11.3**2 + mu)) and c.c_mu == pytest.approx(2 * (mu - 2 + 1 / mu) / (144 + mu))


def test_improvement_of_a_made_up_history():
    """mean(last three) - mean(first three), never below 0, and 0 for constant returns."""
    record = fresh_record(2, 8)
    for value in [1.0, 2.0, 3.0, 9.0, 4.0, 5.0]:
        record = recorded(record, jnp.array([value, value + 1]))
    assert float(improvement(record)) == 4.0
    falling = fresh_record(2, 8)
    for value in [3.0, 2.0, 1.0, 0.0]:
        falling = recorded(falling, jnp.full(2, value))
    assert float(improvement(falling)) == 0.0
    assert not bool(stagnant(record)) and record.count == 6  # too young


def test_emitters_stagnate_only_when_they_are_old_and_flat():
    rising, flat = fresh_record(2, 40), fresh_record(2, 40)
    for i in range(60):
        rising, flat = recorded(rising, jnp.full(2, float(i))), recorded(flat, jnp.full(2, 1.0))
        assert not bool(stagnant(rising))
        assert bool(stagnant(flat)) == (i + 1 > 40)


@pytest.mark.parametrize(("make", "most"), [(elitist, 4000), (cma, 2000)])
def test_emitters_climb_a_cone(make, most):
    """Reward max(0, 1 - |x - c| / r) in ten dimensions, from half of r away with sigma 0.05 r: above .9; elitism never falls; genomes stay inside."""
    r, space = 1.0, spaces.Box(-0.3, 0.3, (10,), np.float32)
    emitter = make(space, 6)
    state = emitter.begin(jnp.zeros(10).at[0].set(0.3).at[1].set(-0.3).at[2].set(0.27), jnp.float32(0.05 * r))

    def one(state, key):
        genomes, wanted = emitter.ask(state, key)
        fitness = jnp.where(wanted, jnp.maximum(0.0, 1 - jnp.sqrt(jnp.sum(jnp.square(genomes), axis=-1)) / r), -jnp.inf)
        state = emitter.tell(state, genomes, fitness)
        return state, (jnp.max(emitter.values(state)), jnp.max(jnp.abs(genomes)))

    _, (best_so_far, largest) = jax.lax.scan(one, state, jax.random.split(jax.random.PRNGKey(1), most // emitter.batch))
    assert best_so_far.max() > 0.9 and largest.max() <= 0.3
    assert make is cma or np.all(np.diff(best_so_far) >= 0)
