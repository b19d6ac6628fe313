"""From the command line to a plain dictionary: Hydra composes, mistakes get the closest legal answer.

No library function sees an OmegaConf object; this is the door.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from envs.builder import Refusal, closest

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
COMMAND = "scripts/farlands"


def groups() -> dict[str, list[str]]:
    """Configuration groups and their options, read from the files."""
    found = {}
    for folder in sorted(p for p in CONFIGS.iterdir() if p.is_dir()):
        found[folder.name] = sorted(str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml"))
    return found


def normalise(overrides: list[str]) -> list[str]:
    """``vmap.X=`` and ``experiment=`` need Hydra's + prefix; nobody should have to know."""
    return [f"+{o}" if re.match(r"(vmap\.|experiment=)", o) else o for o in overrides]


def compose(overrides: list[str]) -> dict[str, Any]:
    """The resolved configuration. Raises Refusal with one readable line for anything wrong."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        check_shape(override)
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3", job_name="farlands"):
            made = hydra_compose("train", overrides=normalise(overrides))
        missing = sorted(OmegaConf.missing_keys(made))
        if missing:
            raise Refusal(f"{missing[0]} has no value; give one, as {missing[0]}=...")
        return OmegaConf.to_container(made, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise Refusal(explain(error, overrides)) from None


def check_shape(override: str) -> None:
    """Every override names an existing group option or has the form key=value."""
    if override.startswith("-"):
        raise Refusal(f"unknown option {override}; settings are written key=value, and '{COMMAND} train --help' lists the options")
    if "=" not in override and not override.startswith("~"):
        raise Refusal(f"{override!r} is not a setting; write key=value, as seeds=4")
    key, _, value = override.partition("=")
    key = key.lstrip("+~")
    if key in groups() and not key.startswith("vmap") and value.strip("'\"") not in groups()[key] and override[0] not in "~":
        raise Refusal(f"{key}={value}: there is no such option{closest(value, groups()[key])}")


def explain(error: Exception, overrides: list[str]) -> str:
    """One line for a composition error: what, where, and what to type."""
    text = str(error) + " " + str(error.__cause__ or "")
    unknown = re.search(r"Key '([^']*)' is not in struct|Could not override '([^']*)'", text)
    if unknown:
        tried = next((o.partition("=")[0] for o in overrides if matches(o, unknown)), unknown.group(1) or unknown.group(2))
        return unknown_key(tried.lstrip("+~"), overrides)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"the command line cannot be read: {first}"


def matches(override: str, found: re.Match) -> bool:
    key = override.partition("=")[0].lstrip("+~")
    name = found.group(2) or found.group(1)
    return key == name or key.split(".")[-1] == name or key.split(".")[0] == name


def unknown_key(tried: str, overrides: list[str]) -> str:
    """'... (did you mean X? legal: ...)', looking for the whole path first, then for the same last word elsewhere."""
    keys = all_keys(overrides)
    parent = tried.rpartition(".")[0]
    leaf = tried.rpartition(".")[2]
    same_leaf = [k for k in keys if k.rpartition(".")[2] == leaf]
    similar_leaf = [k for k in keys if difflib.get_close_matches(leaf, [k.rpartition(".")[2]], n=1, cutoff=0.75)]
    near = same_leaf or difflib.get_close_matches(tried, keys, n=1, cutoff=0.6) or similar_leaf
    siblings = sorted(k for k in keys if k.rpartition(".")[0] == parent) or sorted(k for k in keys if "." not in k)
    guess = f"did you mean {' or '.join(near[:3])}? " if near else ""
    return f"unknown key {tried} ({guess}legal{' under ' + parent if parent else ''}: {', '.join(siblings)})"



def all_keys(overrides: list[str]) -> list[str]:
    """Dotted keys of the configuration that the typed group options give."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    choices = [o for o in overrides if o.partition("=")[0].lstrip("+") in groups()]
    with initialize_config_dir(str(CONFIGS), version_base="1.3", job_name="farlands"):
        made = OmegaConf.to_container(hydra_compose("train", overrides=normalise(choices)), resolve=False)
    return sorted({*flatten(made), *groups()})


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'agent.clip': 0.2, ...} of a nested dictionary."""
    flat = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, path + ".") if isinstance(value, dict) and value else {path: value}
    return flat
