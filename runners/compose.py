"""From the command line to a plain dictionary: Hydra composes the groups, settings are put in, mistakes get the closest legal answer.

Settings are written as in Hydra (``key=value``, ``+key=value``, ``~key``), with a stricter promise: what is accepted is there. Every given
value is in the result, so a setting that another one would hide is refused, as is a key that no file has.

No library function sees an OmegaConf object; this is the door.
"""

from __future__ import annotations

import copy
import difflib
import functools
import re
from pathlib import Path
from typing import Any

from envs.builder import Refusal, closest

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
COMMAND = "scripts/farlands"
PRESETS = ("experiment", "paper")  # groups that no run has by default: their files choose options and settings
DEBUG = {"total_steps": 2048, "segments": 4, "seeds": 2, "checkpoint.seconds": 0}  # what debug=true stands for, where nothing else is given
KEY = re.compile(r"(\+\+|\+|~)?([^=]*)(=.*)?", re.DOTALL)
PLAIN = re.compile(r"[^\[\]{}()'\",=$\\:]*")  # text that means nothing to Hydra's grammar


@functools.cache
def groups() -> dict[str, list[str]]:
    """Configuration groups and their options, read from the files."""
    found = {}
    for folder in sorted(p for p in CONFIGS.iterdir() if p.is_dir() and p.name != "claims"):
        found[folder.name] = sorted(str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml"))
    return found


def compose(overrides: list[str]) -> dict[str, Any]:
    """The resolved configuration. Raises Refusal with one readable line for anything wrong."""
    settings = [Setting(override) for override in overrides]
    for setting in settings:
        setting.check_form()
    made = base(choices(settings))
    given = [setting for setting in settings if setting.key not in groups()]
    opened = {key for key, value in flatten(made).items() if value == {}}
    for setting in given:
        apply(made, setting, opened)
    for setting in given:
        check_kept(made, setting, given)
    if made.get("debug") is True:
        for key, value in DEBUG.items():
            if not any(s.key == key or s.key.startswith(key + ".") or key.startswith(s.key + ".") for s in given):
                put(made, key, value)
    missing = sorted(key for key, value in flatten(made).items() if value == "???")
    if missing:
        raise Refusal(f"{missing[0]} has no value; give one, as {missing[0]}=...")
    return resolved(made, overrides)


class Setting:
    """One word of the command line: ``key=value``, ``+key=value``, or ``~key``."""

    def __init__(self, text: str):
        self.text = text
        prefix, self.key, rest = KEY.fullmatch(text).groups()
        self.adds, self.deletes = bool(prefix) and prefix != "~", prefix == "~"
        self.has_value, self.raw = rest is not None, (rest or "")[1:]

    @property
    def shown(self) -> str:
        return self.text if len(self.text) <= 100 else self.text[:97] + "..."

    def check_form(self) -> None:
        """Refuse what has not the form of a setting, whatever its key."""
        if self.text.startswith("-"):
            raise Refusal(f"unknown option {self.shown}; settings are written key=value, and '{COMMAND} train --help' lists the options")
        if not self.has_value and not self.deletes or not self.key.strip():
            raise Refusal(f"{self.shown!r} is not a setting; write key=value, as seeds=4")
        if self.key.startswith(("hydra.", "hydra/")):
            raise Refusal(f"{self.shown}: Hydra's own settings have no effect here; leave it out")
        if self.deletes and self.key in groups():
            raise Refusal(f"{self.shown}: {self.key} cannot be left out; choose one, as {self.key}={groups()[self.key][0]}")

    @functools.cached_property
    def value(self) -> Any:
        """The value, in Python. Raises Refusal when Hydra's grammar cannot read it, or when it is several values."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        raw = self.raw
        if not raw.isascii() and PLAIN.fullmatch(raw):
            raw = f"'{raw}'"  # Hydra wants quotes around letters beyond ASCII
        try:
            parsed = OverridesParser.create().parse_override(f"key={raw}")
            several = parsed.is_sweep_override()
            value = None if several else parsed.value()
        except (HydraException, ValueError, RecursionError) as error:
            raise Refusal(f"{self.shown!r} cannot be read: {unreadable(raw, error)}") from None
        if several:
            raise Refusal(f"{self.shown} is several values; for a list write {self.key}=[...], for a run with each: {COMMAND} train -m {self.shown}")
        check_keys(value, self.shown)
        return value


def check_keys(value: Any, shown: str) -> None:
    """Refuse dictionaries with keys that are not words."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(value, dict) and (not isinstance(key, str) or not key.isidentifier()):
            raise Refusal(f"{shown}: {key!r} is not a key; a dictionary is written {{name:value}}")
        check_keys(inner, shown)


def unreadable(raw: str, error: Exception) -> str:
    """Why a value cannot be read, and what to do about it."""
    if any(raw.count(a) != raw.count(b) for a, b in ("[]", "{}", "()")):
        return "its brackets do not match; write lists without spaces, as [64,64], or quote the whole setting"
    if raw.count("'") % 2 or raw.count('"') % 2:
        return "a quotation mark is not closed"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{first}; text with special characters needs quotes of its own, as 'run_dir=\"a=b\"'"


def choices(settings: list[Setting]) -> tuple[str, ...]:
    """The chosen options of groups, as Hydra wants them: ("env=gymnax", "+experiment=x"). Refuses options that do not exist."""
    chosen: dict[str, str] = {}
    for setting in settings:
        if setting.key not in groups():
            continue
        options = groups()[setting.key]
        if "," in setting.raw:
            raise Refusal(f"{setting.shown} is several options; for a run with each: {COMMAND} train -m {setting.shown}")
        if setting.raw.strip("'\"") not in options:
            raise Refusal(f"{setting.shown}: there is no such option{closest(setting.raw, options)}")
        option = setting.raw.strip("'\"")
        if chosen.setdefault(setting.key, option) != option:
            raise Refusal(f"{setting.key} is given twice, as {chosen[setting.key]} and as {option}; leave one out")
    return tuple(f"{'+' * (key in PRESETS)}{key}={option}" for key, option in chosen.items())


def base(chosen: tuple[str, ...]) -> dict[str, Any]:
    """A fresh copy of the configuration that the options alone give, interpolations left as they are."""
    return copy.deepcopy(_base(chosen))


@functools.lru_cache(maxsize=64)
def _base(chosen: tuple[str, ...]) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3", job_name="farlands"):
            return OmegaConf.to_container(hydra_compose("train", overrides=list(chosen)), resolve=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise Refusal(f"the files under {CONFIGS.name}/ cannot be composed for {' '.join(chosen)}: {str(error).splitlines()[0]}") from None


def apply(tree: dict[str, Any], setting: Setting, opened: set[str]) -> None:
    """Put one setting into ``tree``. Keys under ``opened`` (empty in the files, as vmap) may be new without a +."""
    *parents, last = setting.key.split(".")
    if setting.key.partition(".")[0] not in tree:
        raise Refusal(unknown_key(setting.key, tree))
    node, new = tree, setting.adds or any(setting.key.startswith(key + ".") for key in opened)
    for depth, parent in enumerate(parents):
        if parent not in node and not new or not parent:
            raise Refusal(unknown_key(setting.key, tree))
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise Refusal(f"{setting.shown}: {'.'.join(parents[: depth + 1])} is {node!r}, which has no keys of its own")
    if not last or last not in node and (setting.deletes or not new):
        raise Refusal(unknown_key(setting.key, tree))
    if setting.deletes:
        if setting.has_value and not same(node[last], setting.value):
            raise Refusal(f"{setting.shown}: {setting.key} is {node[last]!r}; to take it out, write ~{setting.key}")
        del node[last]
    else:
        merge(tree, node, setting, setting.key, setting.value, new or setting.key in opened)


def merge(tree: dict[str, Any], node: dict[str, Any], setting: Setting, key: str, value: Any, new: bool) -> None:
    """Put ``value`` where ``key`` leads, in ``node``; a dictionary is merged into the one that is there."""
    name = key.rpartition(".")[2]
    there = node.get(name)
    if not isinstance(there, dict):
        node[name] = value
        return
    if not isinstance(value, dict):
        inside = ", ".join(f"{key}.{k}" for k in there)
        raise Refusal(f"{setting.shown}: {key} holds {inside or 'keys of its own'}; set one of them, as {key}.{next(iter(there), 'name')}=...")
    for inner, given in value.items():
        if inner not in there and not new:
            raise Refusal(unknown_key(f"{key}.{inner}", tree))
        merge(tree, there, setting, f"{key}.{inner}", given, new)


def check_kept(tree: dict[str, Any], setting: Setting, others: list[Setting]) -> None:
    """Refuse a setting that another one hides: given twice, taken out, or given beside several values for the members."""
    wanted = {} if setting.deletes else flatten({setting.key: setting.value})
    nothing = object()
    for key, value in wanted.items():
        found = get(tree, key, nothing)
        if value != {} and not same(found, value):
            other = next((s.shown for s in others if s is not setting and (s.key + ".").startswith(setting.key + ".")), None)
            other = other or next((s.shown for s in others if s is not setting and setting.key.startswith(s.key + ".")), "another setting")
            raise Refusal(f"{setting.shown} and {other} are both given; leave one out")
        hiding = next((word for word in ("vmap", "zip") if get(tree, f"{word}.{key}", nothing) is not nothing), None)
        if hiding:
            raise Refusal(f"{setting.shown} has no effect beside {hiding}.{key}; leave one out")
    if setting.deletes and get(tree, setting.key, nothing) is not nothing:
        raise Refusal(f"{setting.shown} takes out what another setting gives; leave one out")


def same(a: Any, b: Any) -> bool:
    """Equal, and of one type: 1, 1.0 and true are three values."""
    return repr(a) == repr(b)


def resolved(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """``tree`` with its interpolations (``${total_steps}``) replaced by what they name."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if "${" not in repr(tree):
        return tree
    try:
        return OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        where = next((o for o in overrides if "${" in o), "an interpolation")
        reason = "it refers to itself" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise Refusal(f"{where!r} cannot be resolved: {reason}") from None


def unknown_key(tried: str, tree: dict[str, Any]) -> str:
    """'... (did you mean X? legal: ...)', looking for the whole path first, then for the same last word elsewhere."""
    keys = sorted({*flatten(tree), *groups()})
    parent, _, leaf = tried.rpartition(".")
    same_leaf = [k for k in keys if leaf and k.rpartition(".")[2] == leaf]
    similar_leaf = [k for k in keys if difflib.get_close_matches(leaf, [k.rpartition(".")[2]], n=1, cutoff=0.75)]
    near = same_leaf or difflib.get_close_matches(tried, keys, n=1, cutoff=0.6) or similar_leaf
    siblings = sorted(k for k in keys if parent and k.rpartition(".")[0] == parent) or sorted({k.partition(".")[0] for k in keys})
    inside = parent if parent and siblings[0].startswith(parent + ".") else ""
    guess = f"did you mean {' or '.join(near[:3])}? " if near else ""
    another = f"; an argument that no file shows is written +{tried}=..." if inside in groups() else ""
    return f"unknown key {tried} ({guess}legal{' under ' + inside if inside else ''}: {', '.join(siblings)}{another})"


def get(tree: dict[str, Any], key: str, default: Any = None) -> Any:
    for name in key.split("."):
        if not isinstance(tree, dict) or name not in tree:
            return default
        tree = tree[name]
    return tree


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for name in parents:
        tree = tree[name]
    tree[last] = value


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'agent.clip': 0.2, ...} of a nested dictionary."""
    flat = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, path + ".") if isinstance(value, dict) and value else {path: value}
    return flat
