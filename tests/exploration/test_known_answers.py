"""The known answers that the modules of the project carry, which ``farlands check`` shows beside the laws."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import exploration

MODULES = [importlib.import_module(f"exploration.{found.name}") for found in pkgutil.iter_modules(exploration.__path__)]
ANSWERS = [pytest.param(answer, id=f"{m.__name__}: {told}") for m in MODULES for told, answer in getattr(m, "KNOWN_ANSWERS", ())]


@pytest.mark.parametrize("answer", ANSWERS)
def test_known_answer(answer):
    assert answer(), "it shows no number"


@pytest.mark.parametrize("name", ["counts", "rnd", "e3b", "normalizers"])
def test_methods_have_known_answers(name):
    assert len(importlib.import_module(f"exploration.{name}").KNOWN_ANSWERS) >= (1 if name == "normalizers" else 2)
