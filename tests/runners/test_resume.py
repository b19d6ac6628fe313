"""A run of 2n iterations stopped at n and resumed equals the uninterrupted one, bit for bit, through real checkpoint files."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from envs.builder import Refusal
from runners import checkpoint
from tests.runners.tiny import AGENTS, BONUSES, TINY, assert_equal, batch_of


def split_equals_whole(overrides, batching, folder):
    """Also used by test_host.py, for worlds that live elsewhere."""
    batch, total = batch_of([*overrides, "seeds=2"], batching)
    half = total // 2
    batch.start()
    batch.run(0, half, total)
    checkpoint.save(folder, half, batch.snapshot(), {"iteration": half}, 2, batch.host_snapshot())
    batch.run(half, half, total)
    whole = batch.snapshot()

    again, _ = batch_of([*overrides, "seeds=2"], batching)  # traced and compiled anew, as another process would
    snapshot, remembered, host = checkpoint.load(folder / str(half), again.template())
    assert remembered == {"iteration": half}
    again.restore(snapshot, host, half)
    again.run(half, half, total)
    assert_equal(again.snapshot(), whole)
    batch.start()
    batch.run(0, total, total)  # from the start, in one call instead of two
    assert_equal(batch.snapshot(), whole)
    batch.close()
    again.close()


@pytest.mark.parametrize("batching", ["vmap", "shard", "lanes", "map"])
def test_resume_is_exact(batching, tmp_path):
    split_equals_whole([*AGENTS["ppo"], *BONUSES["counts"]], batching, tmp_path)


OTHER_WAYS = {
    ("recurrent", "e3b", "shard"),
    ("replay", "rnd", "shard"),
    ("recurrent", "rnd", "map"),
    ("replay", "counts", "map"),
}  # of those, the others are slow


def everywhere():
    for agent in AGENTS:
        for bonus in BONUSES:
            for batching in ("vmap", "shard", "map"):
                usual = batching == "vmap" or (agent, bonus, batching) in OTHER_WAYS
                yield pytest.param(agent, bonus, batching, marks=pytest.mark.medium if usual else pytest.mark.slow)


@pytest.mark.parametrize(("agent", "bonus", "batching"), list(everywhere()))
def test_resume_is_exact_everywhere(agent, bonus, batching, tmp_path):
    if (agent, bonus) == ("ppo", "counts"):
        pytest.skip("in the fast tests")
    split_equals_whole([*AGENTS[agent], *BONUSES[bonus]], batching, tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    batch, total = batch_of([*TINY, "seeds=2"], "vmap")
    batch.start()
    checkpoint.save(folder, 1, batch.snapshot(), {"iteration": 1}, keep=2)
    return folder, batch


def test_old_checkpoints_are_pruned_and_drafts_removed(saved, tmp_path):
    _, batch = saved
    (tmp_path / ".draft-7-123").mkdir()
    for iteration in (1, 2, 10):
        checkpoint.save(tmp_path, iteration, batch.snapshot(), {}, keep=2)
    assert checkpoint.list_iterations(tmp_path) == [2, 10]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "2"]


def test_damage_is_noticed(saved, tmp_path):
    _, batch = saved
    path = checkpoint.save(tmp_path, 1, batch.snapshot(), {}, keep=2)
    largest = max((p for p in (path / "arrays").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0xFF
    largest.write_bytes(bytes(content))
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load(path, batch.template())
    (path / "meta.json").write_text("{")
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load(path, batch.template())


def test_a_changed_number_is_noticed(saved, tmp_path):
    """orbax restores whatever is there; the table of checksums does not agree."""
    _, batch = saved
    path = checkpoint.save(tmp_path, 1, batch.snapshot(), {}, keep=2)
    meta = json.loads((path / "meta.json").read_text())
    meta["arrays"][3]["crc"] ^= 1
    (path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(checkpoint.Damaged, match="not what was written"):
        checkpoint.load(path, batch.template())


def test_checkpoint_of_another_program_is_refused(saved):
    folder, _ = saved
    other, _ = batch_of([*(o for o in TINY if "hidden" not in o), "agent.hidden=[9]", "seeds=2"], "vmap")
    with pytest.raises(Refusal, match="another program"):
        checkpoint.load(folder / "1", other.template())


def test_round_trip_keeps_every_dtype(saved):
    folder, batch = saved
    snapshot, _, _ = checkpoint.load(folder / "1", batch.template())
    assert_equal(snapshot, batch.snapshot())
    assert {str(np.asarray(x).dtype) for x in jax.tree.leaves(snapshot)} >= {"float32", "int32", "uint32", "bool"}


@pytest.fixture
def ring(monkeypatch):
    """A tree with an array of 64 chunks."""
    monkeypatch.setattr(checkpoint, "LARGE", 1024)
    monkeypatch.setattr(checkpoint, "CHUNK", 128)
    return {"ring": np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32), "small": np.arange(3)}


def chunks(folder):
    return {p.name: p.stat().st_mtime_ns for p in (folder / "chunks").iterdir()}


def test_what_did_not_change_is_not_written_again(ring, tmp_path):
    checkpoint.save(tmp_path, 1, ring, {}, keep=2)
    first = chunks(tmp_path)
    later = ring | {"ring": ring["ring"].copy()}
    later["ring"][102:106] += 1.0  # 32 numbers, in two chunks
    checkpoint.save(tmp_path, 2, later, {}, keep=2)
    second = chunks(tmp_path)
    assert len(first) == 64 and len(second) == 64 + 2 and first.items() <= second.items()
    for iteration, tree in ((1, ring), (2, later)):
        assert_equal(checkpoint.load(tmp_path / str(iteration), tree)[0], tree)
    checkpoint.save(tmp_path, 3, later, {}, keep=2)
    assert len(chunks(tmp_path)) == 64  # those that only the first named are gone
    assert_equal(checkpoint.load(tmp_path / "3", later)[0], later)


def test_damaged_and_missing_chunks_are_noticed(ring, tmp_path):
    path = checkpoint.save(tmp_path, 1, ring, {}, keep=2)
    one, other = sorted((tmp_path / "chunks").iterdir())[:2]
    kept = one.read_bytes()
    one.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(checkpoint.Damaged, match="ring"):
        checkpoint.load(path, ring)
    one.write_bytes(kept)
    checkpoint.load(path, ring)
    other.unlink()
    with pytest.raises(checkpoint.Damaged, match="ring"):
        checkpoint.load(path, ring)


def test_a_save_that_fails_leaves_no_chunks(ring, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", fail)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, 1, ring, {}, keep=2)
    assert not chunks(tmp_path)
