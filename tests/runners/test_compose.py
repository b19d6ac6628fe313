"""What the command line means: what is accepted is there, and what cannot be there is refused in one line."""

from __future__ import annotations

import pytest

from envs.builder import Refusal
from runners.compose import compose
from runners.experiment import experiment

NESTED = ["exploration=custom", "exploration._target_=exploration.combinators.scale"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["seeds=4", "seeds=5"], "seeds=4 and seeds=5 are both given"),
        (["env=gymnax", "env=deep_sea"], "env is given twice"),
        (["checkpoint={seconds:5}", "checkpoint.seconds=6"], "are both given"),
        (["~agent.clip", "+agent.clip=1"], "both given|takes out"),
        (["exploration.scale=3", "vmap.exploration.scale=[1,2]"], "has no effect beside vmap.exploration.scale"),
        (["vmap.exploration.scale=[1,1]"], "names a value twice"),
        (["agent.epochs=1,2"], "-m agent.epochs=1,2"),
        (["agent=ppo,random"], "-m agent=ppo,random"),
        (["~agent"], "cannot be left out"),
        (["~agent.clip=0.3"], "agent.clip is 0.2"),
        (["checkpoint=3"], "set one of them, as checkpoint.seconds="),
        (["checkpoint={second:5}"], "did you mean checkpoint.seconds"),
        (["agent.clip.x=1"], "agent.clip is 0.2, which has no keys of its own"),
        (["+foo=1"], "unknown key foo"),
        (["+agnt.clip=1"], "did you mean agent.clip"),
        (["hydra.run.dir=x"], "Hydra's own settings have no effect"),
        (["seeds=${nope}"], "'nope' not found"),
        (["seeds=[1,"], "brackets do not match"),
        (["run_dir='a"], "quotation mark is not closed"),
        (["run_dir=a=b"], "needs quotes of its own"),
        (["run_dir="], "run_dir='' is not legal"),
        (["seeds="], "seeds='' is not legal"),
        (["seeds=-1"], "seeds=-1 is not legal"),
        (["seeds=70000"], "a count in"),
        (["seeds=30000", "vmap.exploration.scale=[1,2,3]"], "90,000 members"),
        (["total_steps=1e300"], "total_steps=1e.300 is not legal"),
        (["agent.clip=inf"], "must be a number in .0, inf.$"),
        (["agent.clip=nan"], "agent.clip=nan is not legal"),
        (["agent.epochs=99999999999"], "at most 2.31 - 1"),
        (["overwrite=maybe"], "one of true, false"),
        (["env=custom"], "env._target_ has no value"),
        (["env._target_=.."], "is not an import path"),
        (["agent=custom", "agent._target_=envs.deep_sea.deep_sea"], "cannot be called as a builder for agent"),
        ([*NESTED, "+exploration.bonus=3"], "must be an entry"),
        ([*NESTED, "+exploration.bonus={_target_:exploration.rnd.rnd,hiden:[3]}"], "exploration.bonus.hiden.*did you mean hidden"),
    ],
)
def test_refused(typed, expected):
    with pytest.raises(Refusal, match=expected):
        experiment(compose(typed))


def test_accepted_settings_are_there():
    twice = ["seeds=2", "seeds=2"]
    made = compose(["checkpoint={seconds:5}", "vmap={exploration:{scale:[1,2]}}", "~agent.clip", "run_dir=läufe/é", *twice, "total_steps=${segments}"])
    assert made["checkpoint"] == {"seconds": 5, "keep": 2} and made["vmap"] == {"exploration": {"scale": [1, 2]}}
    assert "clip" not in made["agent"] and made["run_dir"] == "läufe/é" and made["seeds"] == 2 and made["total_steps"] == 100


def test_debug_fills_in_what_is_not_given():
    assert compose(["debug=true"])["total_steps"] == 2048
    made = compose(["debug=true", "total_steps=64", "checkpoint={seconds:9}"])
    assert made["total_steps"] == 64 and made["checkpoint"]["seconds"] == 9 and made["seeds"] == 2 and made["segments"] == 4


def test_one_call_does_not_change_the_next():
    compose(["agent.clip=0.5", "vmap.exploration.scale=[3]"])["agent"]["hidden"].append(7)
    made = compose([])
    assert made["agent"]["clip"] == 0.2 and made["vmap"] == {} and 7 not in made["agent"]["hidden"]


def test_a_builder_of_another_kind_is_refused_when_it_is_called():
    made = experiment(compose(["env=custom", "env._target_=fractions.Fraction"]))
    with pytest.raises(Refusal, match="makes a Fraction, not an Environment"):
        made.make_runner({})


def test_a_refusal_is_one_line_that_a_terminal_can_show():
    assert str(Refusal("a\nb\x1b[31m\udcff\u202e é")) == "a\\nb\\x1b[31m\\udcff\\u202e é"
