"""Text games (TextWorld, Côté et al., arXiv 1806.11532) on the host: ``env=textworld env.rooms=4``, or a game of your own as ``env.game=FILE``.

An action is a share of the commands that are admissible now, in alphabetic order: of n commands action a gives number a n / ``choices``, so every action
does something and a game of any size has one action space. A step is paid what it adds to the score; winning and losing terminate. What is observed is text:
what the game says, the description of the place and what is carried, where the file tells them (.z8 files, beside the .json that they were made with);
games that are generated here, and .json files, are played without their narrator, and then the text is the facts of the world, sorted. Agents are
given the text as a bag of hashed words (``envs/observations.py``), archives the text itself, or ``look("info")["facts"]``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from typing import Any

import gymnasium as library
from gymnasium import spaces

from envs.base import HostEnvironment
from envs.builder import Integer, Optional, Refusal, Text, extra_hint, options
from envs.gymnasium import hosted

SPOKEN = ("feedback", "description", "inventory")
LONGEST = 2**16  # characters of an observation


@contextlib.contextmanager
def quiet():
    """Jericho warns of every game that is not one of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class TextGame(library.Env):
    """The game of a file, or of the content of a .json file."""

    def __init__(self, game: str | bytes, choices: int, max_steps: int):
        import textworld

        self.action_space, self.observation_space = spaces.Discrete(choices), spaces.Text(LONGEST)
        self.choices, self.max_steps, self.spoken = choices, max_steps, not isinstance(game, bytes) and game.endswith(".z8")
        asked = dict.fromkeys(("feedback", "description", "inventory", "admissible_commands", "score", "max_score", "won", "lost", "facts"), True)
        with tempfile.TemporaryDirectory() as folder, quiet():
            if isinstance(game, bytes):
                with open(os.path.join(folder, "game.json"), "wb") as file:
                    file.write(game)
            self.game = textworld.start(file.name if isinstance(game, bytes) else game, textworld.EnvInfos(**asked))
            self.now = self.game.reset()
        self.score, self.steps = 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        with quiet():
            self.now = self.game.reset()
        self.score, self.steps = 0.0, 0
        return self.text(), self.info()

    def step(self, action: int):
        commands = self.now["admissible_commands"]
        command = commands[int(action) * len(commands) // self.choices] if commands else "look"
        self.now, score, done = self.game.step(command)
        reward, self.score, self.steps = float(score or 0) - self.score, float(score or 0), self.steps + 1
        return self.text(), reward, bool(done), self.steps >= self.max_steps, self.info() | {"command": command}

    def text(self) -> str:
        if self.spoken:
            return "\n".join(str(self.now[name]) for name in SPOKEN)
        return "\n".join(sorted(map(str, self.now["facts"])))

    def info(self) -> dict[str, Any]:
        return {name: self.now[name] for name in ("admissible_commands", "won", "lost")} | {"facts": sorted(map(str, self.now["facts"])), "score": self.score}


@options(game=Optional(Text("a game's file, .z8 or .json")), rooms=Integer(1, 200), objects=Integer(1, 400), quest_length=Integer(1, 100), seed=Integer(0),
         choices=Integer(1, 4096), max_steps=Integer(1), text_size=Integer(1), workers=Integer(0))  # fmt: skip
def textworld(
    *,
    game: str | None = None,
    rooms: int = 3,
    objects: int = 6,
    quest_length: int = 3,
    seed: int = 0,
    choices: int = 32,
    max_steps: int = 100,
    text_size: int = 256,
    workers: int = 0,
) -> HostEnvironment:
    """A text game; it leaves nothing to chance.

    Args:
      game: a file that TextWorld can play; None: one is generated.
      rooms, objects, quest_length, seed: of a generated game.
      choices: number of actions, each a share of the admissible commands.
      max_steps: truncates an episode.
      text_size: buckets for the words of the observation.
      workers: processes that step the lanes; 0 steps them in this one.

    Raises Refusal where textworld is not installed, for a file that it cannot play, and for a game that it cannot generate.
    """
    try:
        import textworld as package
    except ImportError as error:
        name = getattr(error, "name", None) or "textworld"
        raise Refusal(f"env=textworld needs the package {name!r}, which is not installed{extra_hint('textworld')}") from None
    if game is None:
        played = generated(package, rooms, objects, quest_length, seed)
        name = f"textworld-{rooms}-{objects}-{quest_length}-{seed}"
    else:
        kind = os.path.splitext(game)[1]
        if kind not in (".z8", ".json") or not os.path.isfile(game):
            raise Refusal(f"env.game={game}: there must be such a file, .z8 or .json; tw-make custom --output {kind and game or 'game.z8'} makes one")
        name, played = os.path.basename(game), os.path.abspath(game)

    def make(render: bool = False) -> library.Env:
        return TextGame(played, choices, max_steps)

    try:
        made = hosted(name, make, workers, text_size)
    except Refusal:
        raise
    except Exception as error:  # whatever TextWorld says of a file
        raise Refusal(f"env.game={game}: TextWorld cannot play it: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from None
    return made._replace(spec=made.spec._replace(max_steps=max_steps, success_return=0.5, deterministic=True))


def generated(package: Any, rooms: int, objects: int, quest_length: int, seed: int) -> bytes:
    """A game as .json; the same for the same arguments."""
    how = package.GameOptions()
    how.nb_rooms, how.nb_objects, how.quest_length, how.seeds = rooms, objects, quest_length, seed
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            package.generator.make_game(how).save(os.path.join(folder, "game.json"))
            with open(os.path.join(folder, "game.json"), "rb") as file:
                return file.read()
    except Exception as error:  # no game of this size with such a quest
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refusal(f"env.rooms={rooms} env.objects={objects} env.quest_length={quest_length}: no game can be generated: {said}") from None
