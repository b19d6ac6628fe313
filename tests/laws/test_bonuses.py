"""Every law of bonuses (``exploration/laws``) held against every bonus and every combinator in the table of cases."""

from __future__ import annotations

import pytest

from envs.builder import Refusal, build
from exploration.laws.bonuses import BONUS_LAWS
from exploration.laws.life import Subject
from tests.laws.cases import BONUSES, COMBINATORS, COMBINED, INNER, REFUSED

# Compiling all laws of one case takes seconds. The fast tests walk each bonus, and each combinator over counts. What encoders make of other
# spaces is the same code in every bonus: rnd and e3b stand for them, and the others are walked with the slow tests.
TAKES_LONGER = {name for name in BONUSES if "/" in name and not (name in COMBINED and name.endswith("/counts"))}
SAME_CODE = {n for n in BONUSES if n.endswith(("/dict", "/discrete_obs", "/box_actions", "/pixels")) and not n.startswith(("rnd/", "e3b/"))}


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if name in SAME_CODE else [pytest.mark.medium] if name in TAKES_LONGER else []


@pytest.fixture(scope="module", params=[pytest.param(name, marks=marks(name)) for name in BONUSES])
def subject(request) -> Subject:
    case = BONUSES[request.param]
    return Subject(lambda spec: build(case.entry, spec), case.spec())


@pytest.mark.parametrize("law", BONUS_LAWS, ids=[law.name.replace(" ", "_") for law in BONUS_LAWS])
def test_law(law, subject):
    law.check(subject)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_when_built(name):
    combinator, inner = name.split("/")
    with pytest.raises(Refusal):
        build(COMBINATORS[combinator](INNER[inner]), COMBINED[name].spec())
