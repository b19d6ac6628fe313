"""Every law of bonuses (``exploration/laws``) held against every bonus and every combinator in the table of cases."""

from __future__ import annotations

import pytest

from envs.builder import Refusal, build
from exploration.laws.bonuses import BONUS_LAWS
from exploration.laws.life import Subject
from tests.laws.cases import BONUSES, COMBINATORS, COMBINED, INNER, REFUSED

# compiling all laws of one case takes seconds: the fast tests walk each bonus, and each combinator over counts
TAKES_LONGER = {name for name in BONUSES if "pixels" in name or (name in COMBINED and not name.endswith("/counts"))}


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.medium) if n in TAKES_LONGER else n for n in BONUSES])
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
