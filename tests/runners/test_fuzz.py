"""Thousands of mistyped command lines. Each gets one readable line that names what is wrong, or gives exactly what was typed.

No process is started and nothing is compiled: ``compose`` and ``experiment`` are what decides. The seed is fixed; by hand, a bigger run:
``python -m tests.runners.test_fuzz 50000 1``.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from envs.builder import Refusal
from runners.compose import DEBUG, KEY, Setting, compose, flatten, get, groups, same
from runners.experiment import Experiment, experiment

LEGAL = [
    [],
    ["seeds=4", "total_steps=1_000_000"],
    ["env=gymnax", "env.id=MountainCar-v0", "exploration=rnd", "seeds=4", "total_steps=500_000"],
    ["env=xminigrid", "env.id=MiniGrid-DoorKey-8x8", "env.view=full", "agent.encoder=grid", "exploration=counts"],
    ["env=gymnax", "env.id=CartPole-v1", "+env.max_steps_in_episode=200", "agent.hidden=[64,32]", "agent.activation=relu"],
    ["env.size=10", "env.stochastic=true", "env.sticky_actions=0.25", "env.noisy_tv=4"],
    ["vmap.exploration.scale=[0.1,1,2]", "vmap.agent.learning_rate=[1e-4,1e-3]", "seeds=[0,7,8]"],
    ["vmap.env.sticky_actions=[0,0.25]", "batching=map", "evaluations=[1000,2000]", "segments=20"],
    ["exploration=e3b", "exploration.hidden=[32,32]", "exploration.encoder=random", "exploration.clip=5.0", "exploration.episodic=true"],
    ["exploration=custom", "exploration._target_=exploration.counts.counts", "+exploration.key=observation", "+exploration.capacity=1024"],
    [
        "exploration=custom",
        "exploration._target_=exploration.combinators.chain",
        "+exploration.bonuses=[{_target_:exploration.rnd.rnd,embedding:8},{_target_:exploration.counts.counts}]",
    ],
    ["agent=random", "exploration=none", "runner.lanes=2", "runner.rollout=16", "runner.discount=0.95"],
    ["run_dir=runs/mine", "overwrite=true", "checkpoint.seconds=5", "checkpoint.keep=3", "debug=true"],
    ["checkpoint={seconds:5,keep:1}", "run_dir='a b'", "logger=tensorboard", "logger.wandb.mode=offline", "logger.wandb.group=null"],
    ["~agent.clip", "agent.value_clip=null", "agent.entropy_schedule=linear", "agent.mix=sum"],
    ["total_steps=${segments}", "segments=50"],
]
VALUES = [
    "", "0", "-1", "1e9", "nan", "inf", "-inf", "null", "true", "yes", "[]", "{}", "[1,1]", "[[1]]", "{a:1}", "{1:2}", "1,2", "'x'", "x y",
    "${seeds}", "${x}", "???", "1.5", "99999999999999999999", "1e400", "0x10", "a.b", "json.dumps", "..", "range(1,3)", "choice(1,2)", "\xe9",
    "\u202e", "\x1b[31m", "\udcff", "\n", "=", "@", "\\", "'", "\"", "[", "}", "(", "$", "~", "+", "%s", "{0}"
]  # fmt: skip
LETTERS = "abcdefgimnoprstuvxyz0123456789._-=+~[]{}(),:'\"$@/\\ \t\néü٣漢🙂\u0000\u200b\udc80"


def mutate(words: list[str], rng: random.Random, depth: int) -> list[str]:
    """``words`` with ``depth`` accidents: of letters, of words, of values."""
    words = list(words)
    for _ in range(depth):
        at = rng.randrange(len(words)) if words else 0
        kind = rng.choice(["delete", "insert", "swap", "double", "replace", "drop", "twice", "shuffle", "value", "key", "foreign", "prefix", "cut"])
        if not words or kind == "foreign":
            words.insert(at, rng.choice(rng.choice(LEGAL[1:])))
            continue
        word = words[at]
        place = rng.randrange(len(word) + 1)
        key, equals, value = word.partition("=")
        if kind == "delete":
            word = word[:place] + word[place + 1 :]
        elif kind == "insert":
            word = word[:place] + rng.choice(LETTERS) + word[place:]
        elif kind == "swap":
            word = word[:place] + word[place : place + 2][::-1] + word[place + 2 :]
        elif kind == "double":
            word = word[: place + 1] + word[place:]
        elif kind == "replace":
            word = word[:place] + rng.choice(LETTERS) + word[place + 1 :]
        elif kind == "value":
            word = key + equals + rng.choice(VALUES)
        elif kind == "key":
            other = rng.choice(rng.choice(LEGAL[1:])).partition("=")[0]
            word = rng.choice([other, f"{other}.x", f"vmap.{key}", other.rpartition(".")[2], other.rpartition(".")[0]]) + equals + value
        elif kind == "prefix":
            word = rng.choice(["+", "++", "~", "-", "--", "vmap.", "agent.", "hydra.", "env@"]) + word
        elif kind == "cut":
            word = word[:place]
        words[at : at + 1] = {"drop": [], "twice": [word, word]}.get(kind, [word])
        if kind == "shuffle":
            rng.shuffle(words)
    return words


def check(words: list[str]) -> str:
    """What became of a command line: "refused" or "accepted". Raises AssertionError where it breaks the law."""
    try:
        made = experiment(compose(words))
    except Refusal as error:
        check_refusal(str(error), words)
        return "refused"
    check_accepted(made, words)
    return "accepted"


def check_refusal(line: str, words: list[str]) -> None:
    assert line.strip() and line.isprintable(), f"not one readable line: {line!r}"
    assert len(line) < 1500, f"{len(line)} characters: {line}"
    assert any(named(word, line) for word in words), f"names none of {words}: {line}"


def named(word: str, line: str) -> bool:
    """Whether the line shows the word, its key, the beginning of its key ("+agent.clip.x" is wrong at "agent.clip"), or its value."""
    key, value = KEY.fullmatch(word)[2], word.partition("=")[2]
    start = key.rpartition(".")[0]
    return any(
        len(part) >= least and any(str(Refusal(form))[:20] in line for form in (part, repr(part)))
        for part, least in ((word or repr(""), 1), (key, 1), (start if "." in start else "", 3), (value, 6))
    )


def check_accepted(made: Experiment, words: list[str]) -> None:
    """Every given value is there, and nothing else is but what the files say."""
    settings = [Setting(word) for word in words]
    chosen = [word for word, setting in zip(words, settings, strict=True) if setting.key in groups()]
    unset = flatten(compose([w for w in chosen if "custom" not in w and "gymnasium" not in w]))
    given: dict[str, Any] = {}
    for setting in settings:
        if setting.key in groups():
            wanted = setting.raw.strip("'\"")
            assert wanted in groups()[setting.key]
        elif setting.deletes:
            assert get(made.config, setting.key, "absent") == "absent", f"{setting.text} is still there"
        elif "${" not in setting.text:
            given |= flatten({setting.key: setting.value})
    for key, value in given.items():
        found = get(made.config, key, "absent")
        value = int(value) if isinstance(value, float) and isinstance(found, int | list) and value.is_integer() else value
        counted = key == "seeds" and isinstance(value, int) and same(found, list(range(value)))
        assert same(found, value) or counted or value == {}, f"{key}={value!r} became {found!r}"
    touched = {key for setting in settings for key in [setting.key]}
    for key, value in flatten(made.config).items():
        explained = any(key == t or key.startswith(t + ".") or t.startswith(key + ".") for t in touched)
        if not explained and key in unset and not any(key.startswith(w.split("=")[0].lstrip("+") + ".") for w in chosen):
            same_value = same(value, unset[key]) or key == "seeds" or (made.config["debug"] and key in DEBUG)
            assert same_value, f"nobody typed {key}, and it is {value!r}"


def fuzz(number: int, seed: int) -> dict[str, int]:
    """Run ``number`` mutated command lines; how many were refused and accepted. Raises AssertionError with the command line."""
    rng, outcomes = random.Random(seed), {"refused": 0, "accepted": 0}
    for _ in range(number):
        words = mutate(rng.choice(LEGAL), rng, rng.choice([1, 1, 1, 2, 3, 6]))
        try:
            outcomes[check(words)] += 1
        except Exception as error:
            raise AssertionError(f"{words}: {type(error).__name__}: {error}") from error
    return outcomes


@pytest.mark.parametrize("words", LEGAL, ids=" ".join)
def test_the_seeds_are_legal(words):
    assert check(words) == "accepted"


@pytest.mark.medium
def test_mistyped_command_lines():
    outcomes = fuzz(4000, seed=0)
    assert outcomes["refused"] > 1000 and outcomes["accepted"] > 100


@pytest.mark.slow
def test_many_mistyped_command_lines():
    fuzz(30_000, seed=1)


if __name__ == "__main__":
    print(fuzz(int(sys.argv[1]), int(sys.argv[2])))
