"""Checkpoints: the whole truth of a run at one moment, written atomically, verified when read.

``checkpoints/<iteration>/`` holds the arrays (orbax) and ``meta.json``: the clock, what the loop remembers, and the name,
shape, dtype and CRC-32 of every array. orbax casts dtypes silently and cannot tell a changed structure from a damaged file;
the table can.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.builder import Refusal

SPARE_BYTES = 2**18  # what a checkpoint takes beside its arrays, generously


class Damaged(Exception):
    """The files are not what was written."""


def flatten(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1)) if array.size else 0


def save(folder: Path, iteration: int, tree: Any, remember: dict[str, Any], keep: int, host: bytes | None = None) -> Path:
    """Write checkpoint ``iteration`` and prune all but the newest ``keep``. ``tree`` holds numpy arrays; ``host`` is what worlds on the
    host left (``host.bin``). Raises OSError when the disk does not take it; nothing is left of the attempt."""
    target, draft = folder / str(iteration), folder / f".draft-{iteration}-{os.getpid()}"
    for leftover in folder.glob(".draft-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    leaves = flatten(tree)
    table = [{"name": n, "shape": list(np.shape(x)), "dtype": str(np.asarray(x).dtype), "crc": crc(np.asarray(x))} for n, x in leaves]
    told = {"iteration": iteration, "remember": remember, "arrays": table, "host_crc": None if host is None else zlib.crc32(host)}
    try:
        write(draft, leaves, json.dumps(told, indent=1), host)
    except Exception as error:  # orbax and tensorstore raise many kinds
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError):
            raise
        raise OSError(errno.EIO, f"{str(error).splitlines()[0][:200]}", str(target)) from None
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    sync(folder)
    for old in list_iterations(folder)[:-keep]:
        shutil.rmtree(folder / str(old), ignore_errors=True)
    return target


def write(draft: Path, leaves: list[tuple[str, Any]], meta: str, host: bytes | None) -> None:
    """The files of a checkpoint, on disk when this returns."""
    import orbax.checkpoint as ocp

    draft.mkdir(parents=True)
    size = sum(np.asarray(x).nbytes for _, x in leaves) + len(meta) + len(host or b"")
    if shutil.disk_usage(draft).free < size + SPARE_BYTES:  # orbax says it in a hundred lines
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for a checkpoint of {size:,} bytes", str(draft.parent))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((draft / "arrays").absolute(), {f"{i:05d}": np.asarray(x) for i, (_, x) in enumerate(leaves)})
    if host is not None:
        (draft / "host.bin").write_bytes(host)
        sync(draft / "host.bin")
    (draft / "meta.json").write_text(meta)
    sync(draft / "meta.json")


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def list_iterations(folder: Path) -> list[int]:
    """Iterations with a complete checkpoint, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / "meta.json").is_file())


def load(path: Path, template: Any) -> tuple[Any, dict[str, Any], bytes | None]:
    """(tree of numpy arrays shaped like ``template``, what the loop remembered, what worlds on the host left).

    Raises Damaged when the files are not what was written, Refusal when they belong to another program."""
    import orbax.checkpoint as ocp

    try:
        meta = json.loads((path / "meta.json").read_text())
        table = meta["arrays"]
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"{path}: {type(error).__name__}: {error}") from None
    wanted = [(name, list(leaf.shape), str(np.dtype(leaf.dtype))) for name, leaf in flatten(template)]
    found = [(row["name"], row["shape"], row["dtype"]) for row in table]
    if wanted != found:
        odd = next((w, f) for w, f in zip_longest(wanted, found) if w != f)
        here, there = (f"{part[0]} {part[2]}{part[1]}" if part else "nothing" for part in odd)
        raise Refusal(f"{path} was written by another program: it has {there} where this one has {here}; start over with overwrite=true, or use that version")
    shapes = {f"{i:05d}": jax.ShapeDtypeStruct(tuple(row["shape"]), np.dtype(row["dtype"])) for i, row in enumerate(table)}
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            arrays = checkpointer.restore((path / "arrays").absolute(), shapes)
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise Damaged(f"{path}: {str(error).splitlines()[0][:200]}") from None
    leaves = [np.asarray(arrays[f"{i:05d}"]) for i in range(len(table))]
    for row, leaf in zip(table, leaves, strict=True):
        if crc(leaf) != row["crc"] or str(leaf.dtype) != row["dtype"]:
            raise Damaged(f"{path}: {row['name']} is not what was written")
    host = None
    if meta.get("host_crc") is not None:
        host = (path / "host.bin").read_bytes() if (path / "host.bin").exists() else b""
        if zlib.crc32(host) != meta["host_crc"]:
            raise Damaged(f"{path}: host.bin is not what was written")
    return jax.tree.unflatten(jax.tree.structure(template), leaves), meta["remember"], host
