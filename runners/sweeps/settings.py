"""The settings of a sweep (``sweep.<name>=...`` beside ``train -m``): defaults in ``configs/sweep.yaml``, ranges here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from envs.builder import Choice, Integer, Optional, Refusal, Text, closest
from runners.compose import CONFIGS, Setting
from runners.ranges import Seeds

RANGES: dict[str, Any] = {
    "max_members": Optional(Integer(1)),
    "retries": Integer(0, 100),
    "dry": Choice((True, False)),
    "search": Choice(("grid", "random", "halving", "optuna")),
    "trials": Integer(1, 100_000),
    "rungs": Integer(1, 20),
    "reduction": Integer(2, 100),
    "batch": Optional(Integer(1)),
    "seed": Integer(0, 2**32 - 1),
    "tuning_seeds": Seeds(),
    "objective": Text("a metric, as evaluation/return"),
    "direction": Choice(("maximize", "minimize")),
}
LAUNCHERS = {
    "basic": None,
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}  # hydra/launcher=... -> the plugin's module


def split(words: Sequence[str]) -> tuple[list[str], dict[str, Any], list[str]]:
    """(what the runs are given, the sweep's settings, what Hydra's launcher is given). Raises Refusal."""
    runs, given, launcher = [], {}, []
    for word in words:
        key = word.partition("=")[0]
        if key == "hydra/launcher" or key.startswith("hydra.launcher."):
            launcher.append(word)
        elif key.startswith("sweep."):
            setting = Setting(word)
            setting.check_form()
            name = key.removeprefix("sweep.")
            if name not in RANGES:
                raise Refusal(f"unknown key {key}{closest(key, [f'sweep.{n}' for n in RANGES])}")
            if name in given:
                raise Refusal(f"{key} is given twice; leave one out")
            if not RANGES[name].accepts(setting.value):
                raise Refusal(f"{setting.shown} is not legal: it must be {RANGES[name].describe()}")
            given[name] = setting.value
        else:
            runs.append(word)
    refuse_launcher(launcher)
    return runs, yaml.safe_load((CONFIGS / "sweep.yaml").read_text()) | given, launcher


def launcher_of(words: Sequence[str]) -> str:
    """The launcher's name."""
    return next((word.partition("=")[2].strip("'\"") for word in words if word.startswith("hydra/launcher=")), "basic")


def refuse_launcher(words: Sequence[str]) -> None:
    import importlib.util

    name = launcher_of(words)
    if name not in LAUNCHERS:
        raise Refusal(f"hydra/launcher={name}: there is no such launcher{closest(name, LAUNCHERS)}")
    module = LAUNCHERS[name]
    try:
        found = module is None or importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found or name == "ray" and importlib.util.find_spec("ray") is None:
        lock = "-r requirements-ray.lock" if name == "ray" else f"-e '.[{'joblib' if name == 'joblib' else 'slurm'}]'"
        raise Refusal(f"hydra/launcher={name} needs a package; add it with: .venv/bin/python -m pip install -c requirements.lock {lock}")
