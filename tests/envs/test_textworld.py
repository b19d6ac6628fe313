"""Text games: TextWorld's, where it is installed, and archives of any world that is seen as text, put back by copy or by doing again what was done."""

from __future__ import annotations

import threading

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs.builder import Refusal
from envs.gymnasium import gymnasium as gymnasium_world
from exploration.go_explore import NEVER, START
from exploration.trajectories import walked
from tests.runners.test_go_explore import cells_of
from tests.runners.tiny import batch_of

EXPLORE = ["exploration=go_explore", "agent=random", "runner.lanes=6", "runner.explore_steps=8", "runner.workers=0", "seeds=1", "exploration.capacity=2"]


class Corridor(gymnasium.Env):
    """Six rooms in a row, told in words, the last one worth 1. Holds a lock, so that it can be neither copied nor pickled."""

    def __init__(self):
        self.action_space, self.observation_space, self.lock = spaces.Discrete(3), spaces.Text(40), threading.Lock()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.room = 0
        return self.told(), {}

    def step(self, action):
        self.room = min(max(self.room + int(action) - 1, 0), 5)
        return self.told(), float(self.room == 5), self.room == 5, False, {"room": self.room}

    def told(self):
        return f"You are in room {self.room}. Doors lead {'east' if self.room < 1 else 'east and west'}."


if "Corridor-v0" not in gymnasium.registry:  # this module is also imported by its path
    gymnasium.register("Corridor-v0", lambda **_: Corridor())


def by_facts(look):
    """A cell function of one's own: where the player is, and how many things are carried."""
    facts = look("info")["facts"]
    where = next((n for n, fact in enumerate(sorted({f.split(", ")[-1] for f in facts})) if f"at(P, {fact}" in facts), -1)
    return where, sum(fact.startswith("in(") and fact.endswith(", I)") for fact in facts)


def archive_of(settings, iterations):
    batch, _ = batch_of([*EXPLORE, *settings], "auto")
    batch.start()
    batch.run(0, iterations, 100)
    return batch


def every_way_leads_there(batch):
    """How many cells there are; each trajectory from the reset gives its cell's score in its cell."""
    (keys, kept, _), tree, size, *_ = cells_of(batch.snapshot())
    world = batch.runner.env.single()
    for i in range(size):
        if i == START or kept.episode_length[i] == NEVER:
            continue
        world.reset()
        way = walked(*tree, int(kept.note.row[i]), int(kept.note.steps[i]))
        assert sum(world.step(action)[0] for action in way) == kept.episode_return[i] and len(way) == kept.episode_length[i]
        if i > START:
            assert np.frombuffer(batch.runner.cell(world.look), np.uint32).tolist() == keys[i].tolist()
    return size - 2


def test_a_world_that_can_be_neither_copied_nor_pickled_is_put_back_by_doing_again_what_was_done():
    env = gymnasium_world(id="Corridor-v0", text_size=16)
    assert "lock" in env.unsaved
    batch = archive_of(["env=gymnasium", "env.id=Corridor-v0", "env.text_size=16", "exploration.cell=observation"], 8)
    assert every_way_leads_there(batch) == 5  # rooms 0 to 4; the last one ends the episode
    row = batch.take_metrics()[0]
    assert row["archive/score"] == 1 and row["archive/best_length"] == 5 and row["steps/virtual"] > 0


@pytest.mark.medium
@pytest.mark.parametrize("cell", ["observation", "tests.envs.test_textworld.by_facts"])
def test_a_text_game_is_won(cell):
    pytest.importorskip("textworld", reason="textworld is not installed")
    batch = archive_of(["env=textworld", "env.rooms=2", "env.objects=3", "env.quest_length=2", f"exploration.cell={cell}"], 12)
    assert batch.runner.env.unsaved is None  # put back by a copy of its state
    assert every_way_leads_there(batch) >= (10 if cell == "observation" else 3)
    assert batch.take_metrics()[0]["archive/score"] == 1


def test_what_cannot_be_played_is_refused(tmp_path):
    pytest.importorskip("textworld", reason="textworld is not installed")
    from envs.textworld import textworld

    with pytest.raises(Refusal, match="there must be such a file, .z8 or .json; tw-make"):
        textworld(game=f"{tmp_path}/nothing.z8")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(Refusal, match="TextWorld cannot play it"):
        textworld(game=f"{tmp_path}/broken.json")
