"""Data sets on disk in minari's format: episodes in numpy, written, read back, and compared with a world.

    DIRECTORY/data/metadata.json main_data.hdf5

Every episode has one observation more than it has steps: the last one is the true successor of the last step. What is written is read back bit for bit.
The checksum is of the content (observations, actions, rewards, ends, infos), not of the files, which carry dates.
"""

from __future__ import annotations

import functools
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from gymnasium import spaces

from envs.base import PyTree, Spec
from envs.builder import Refusal, closest, extra_hint


class Episodes(NamedTuple):
    """E episodes of S steps in all, back to back."""

    obs: PyTree  # [S + E, ...]; of every episode one more than its steps
    action: np.ndarray  # [S, ...]
    reward: np.ndarray  # [S]
    terminated: np.ndarray  # bool[S]
    truncated: np.ndarray  # bool[S]
    info: dict[str, np.ndarray]  # [S, ...]; of the steps
    lengths: np.ndarray  # i64[E]


class DataSet(NamedTuple):
    observation: spaces.Space
    action: spaces.Space
    episodes: Episodes
    checksum: str  # eight hexadecimal digits


# --- files -------------------------------------------------------------------------------------------------------------


def refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise Refusal(f"{folder} exists already; give a folder that does not, or delete it")


def write(
    folder: Path, observation: spaces.Space, action: spaces.Space, parts: Iterable[Episodes], seeds: Sequence[int | None], told: Mapping[str, str]
) -> None:
    """Write ``parts``, one episode each, to a new folder; ``seeds`` are those that episodes were reset with, ``told`` goes into the metadata.

    Raises Refusal where the folder exists, or minari is not installed."""
    refuse_existing(folder)
    minari = library()
    folder = folder.resolve()  # minari's storage reads a relative one from within
    draft = folder.with_name(f".draft-{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "data").mkdir(parents=True)
    storage = minari.dataset.minari_storage.MinariStorage.new(draft / "data", observation, action, jpeg_encoding=False)
    storage.update_metadata({"dataset_id": identifier(folder.name), "minari_version": minari.__version__, **told})
    storage.update_episodes(buffer(minari, part, seed) for part, seed in zip(parts, seeds, strict=True))
    draft.rename(folder)


def buffer(minari: Any, part: Episodes, seed: int | None) -> Any:
    names = {"observations": part.obs, "actions": part.action, "rewards": part.reward, "infos": part.info}
    return minari.data_collector.EpisodeBuffer(seed=seed, terminations=part.terminated, truncations=part.truncated, **names)


def identifier(name: str) -> str:
    """``name`` as an id of minari's, which end in a version."""
    plain = re.sub(r"[^-\w]", "_", name)
    return plain if re.search(r"-v\d+$", plain) else f"{plain}-v0"


def place(path: str | Path) -> Path:
    """The folder with the files. Raises Refusal where there is none."""
    for folder in (Path(path) / "data", Path(path)):
        if (folder / "metadata.json").is_file():
            return folder
    raise Refusal(f"{path} is not a data set: it has no data/metadata.json; scripts/farlands export RUN DIRECTORY writes one")


def read(path: str | Path) -> DataSet:
    """The data set of a folder, kept in memory while its files stay as they are. Raises Refusal for one that cannot be read."""
    folder = place(path)
    return _read(folder, tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(folder.iterdir())))


@functools.lru_cache(maxsize=2)
def _read(folder: Path, stamp: tuple) -> DataSet:
    minari = library()
    try:
        storage = minari.dataset.minari_storage.MinariStorage.read(folder)
        found = [one(raw) for raw in storage.get_episodes(range(storage.total_episodes))]
    except (OSError, ValueError, KeyError, AssertionError, ImportError) as error:
        raise Refusal(f"{folder} cannot be read as a data set: {' '.join(str(error).split())[:200] or type(error).__name__}") from None
    found = [part for part in found if part.lengths[0]]
    if not found:
        raise Refusal(f"{folder} has no steps")
    names = set.intersection(*(set(part.info) for part in found))
    episodes = jax.tree.map(lambda *parts: np.concatenate(parts), *(p._replace(info={n: p.info[n] for n in sorted(names)}) for p in found))
    return DataSet(storage.observation_space, storage.action_space, episodes, checksum(episodes))


def one(raw: Mapping[str, Any]) -> Episodes:
    """An episode of minari's. Its infos may have a row for the reset as well; what is no array with a row per step is left out."""
    steps = len(raw["rewards"])
    arrays = {name: np.asarray(value) for name, value in (raw["infos"] or {}).items() if not isinstance(value, dict)}
    info = {name: x[len(x) - steps :] for name, x in arrays.items() if x.ndim and len(x) in (steps, steps + 1) and x.dtype.kind in "biuf"}
    ends = (np.asarray(raw["terminations"], bool), np.asarray(raw["truncations"], bool))
    return Episodes(raw["observations"], np.asarray(raw["actions"]), np.asarray(raw["rewards"]), *ends, info, np.asarray([steps]))


def checksum(episodes: Episodes) -> str:
    found = 0
    for array in jax.tree.leaves(episodes):
        found = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1), zlib.crc32(f"{array.dtype}{array.shape}".encode(), found))
    return f"{found:08x}"


def library() -> Any:
    """minari, with what it keeps files with. Raises Refusal where one of them is missing."""
    try:
        import h5py  # noqa: F401
        import minari
        import minari.data_collector
        import minari.dataset.minari_storage
    except ImportError as error:
        raise Refusal(f"data sets need the package {error.name!r}, which is not installed{extra_hint('minari')}") from None
    return minari


# --- worlds ------------------------------------------------------------------------------------------------------------


def fitted(data: DataSet, spec: Spec, path: str, info: Iterable[str] = ()) -> Episodes:
    """The episodes in the dtypes of the world's spaces, with the keys ``info`` of their infos. Raises Refusal where the spaces differ, or a key is missing."""
    for kind, there, here in (("observations", data.observation, spec.observation), ("actions", data.action, spec.action)):
        if difference := differ(there, here, bounds=kind == "actions"):
            raise Refusal(f"runner.data={path} is not of this world: its {kind} are {difference} in {spec.name!r}")
    lacking = [name for name in info if name not in data.episodes.info]
    if lacking:
        raise Refusal(f"runner.data={path} has no infos {lacking[0]!r}, which the bonus reads{closest(lacking[0], data.episodes.info)}")
    made = data.episodes
    info_of = {name: cast(made.info[name], spec.info[name]) for name in sorted(info)}
    return made._replace(obs=cast(made.obs, spec.observation), action=cast(made.action, spec.action), reward=np.float32(made.reward), info=info_of)


def cast(values: PyTree, space: spaces.Space) -> PyTree:
    if isinstance(space, spaces.Dict):
        return {name: cast(values[name], inner) for name, inner in space.spaces.items()}
    return np.asarray(values).astype(jax.dtypes.canonicalize_dtype(space.dtype), copy=False)


def differ(there: spaces.Space, here: spaces.Space, bounds: bool) -> str:
    """How two spaces differ, as "x there and y"; "" where data of the one are data of the other. Floats of any size count as the same."""
    if isinstance(there, spaces.Dict) and isinstance(here, spaces.Dict):
        if set(there.spaces) != set(here.spaces):
            return f"{sorted(there.spaces)} there and {sorted(here.spaces)}"
        return next(filter(None, (differ(there[name], here[name], bounds) for name in here.spaces)), "")
    told = f"{shown(there)} there and {shown(here)}"
    if type(there) is not type(here) or there.shape != here.shape:
        return told
    if isinstance(here, spaces.Discrete):
        return "" if (there.n, there.start) == (here.n, here.start) else told
    floats = [np.issubdtype(space.dtype, np.floating) for space in (there, here)]
    if not all(floats) and there.dtype != here.dtype:
        return told
    if bounds and not (np.allclose(there.low, here.low) and np.allclose(there.high, here.high)):
        return told
    return ""


def shown(space: spaces.Space) -> str:
    return " ".join(str(space).split())
