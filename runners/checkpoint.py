"""Checkpoints: the whole truth of a run at one moment, written atomically, verified when read.

``checkpoints/<iteration>/`` holds the arrays (orbax) and ``meta.json``: the clock, what the loop remembers, and the name,
shape, dtype and CRC-32 of every array. orbax casts dtypes silently and cannot tell a changed structure from a damaged file;
the table can.

Large arrays (replay buffers) are cut into chunks, which lie beside the checkpoints under the hash of their content: what did not change since the
last checkpoint is not written again. Chunks that no checkpoint names are removed.
"""

from __future__ import annotations

import errno
import hashlib
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

LARGE, CHUNK = 2**23, 2**22  # bytes: arrays of at least so many are kept in chunks of so many
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
    try:
        table = [{"name": n, "shape": list(np.shape(x)), "dtype": str(np.asarray(x).dtype), **stored(folder, np.asarray(x))} for n, x in leaves]
        told = {"iteration": iteration, "remember": remember, "arrays": table, "host_crc": None if host is None else zlib.crc32(host)}
        write(draft, [leaf for leaf, row in zip(leaves, table, strict=True) if "crc" in row], json.dumps(told, indent=1), host)
    except Exception as error:  # orbax and tensorstore raise many kinds
        shutil.rmtree(draft, ignore_errors=True)
        remove_unnamed(folder)
        if isinstance(error, OSError):
            raise
        raise OSError(errno.EIO, f"{str(error).splitlines()[0][:200]}", str(target)) from None
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    sync(folder)
    for old in list_iterations(folder)[:-keep]:
        shutil.rmtree(folder / str(old), ignore_errors=True)
    remove_unnamed(folder)
    return target


def stored(folder: Path, array: np.ndarray) -> dict[str, Any]:
    """How the table tells that an array is whole: its checksum, or the names of its chunks, which are on disk then."""
    if array.nbytes < LARGE:
        return {"crc": crc(array)}
    place, flat = folder / "chunks", np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    place.mkdir(parents=True, exist_ok=True)
    pieces = [memoryview(flat[at : at + CHUNK]) for at in range(0, flat.size, CHUNK)]
    names = [hashlib.blake2b(piece, digest_size=16).hexdigest() for piece in pieces]
    new = {name: piece for name, piece in zip(names, pieces, strict=True) if not (place / name).exists()}
    room_for(place, sum(map(len, new.values())))
    for name, piece in new.items():
        draft = place / f".draft-{os.getpid()}"
        draft.write_bytes(piece)
        sync(draft)
        draft.rename(place / name)
    sync(place)
    return {"chunks": names}


def whole(folder: Path, row: dict[str, Any]) -> np.ndarray:
    """The array of a row of the table with chunks. Raises Damaged."""
    pieces = []
    for name in row["chunks"]:
        try:
            pieces.append((folder / "chunks" / name).read_bytes())
        except OSError as error:
            raise Damaged(f"{row['name']}: {error}") from None
        if hashlib.blake2b(pieces[-1], digest_size=16).hexdigest() != name:
            raise Damaged(f"{row['name']} is not what was written")
    return np.frombuffer(bytearray().join(pieces), np.dtype(row["dtype"])).reshape(row["shape"])


def remove_unnamed(folder: Path) -> None:
    """Delete chunks that no complete checkpoint names."""
    place = folder / "chunks"
    if not place.is_dir():
        return
    named = set()
    for iteration in list_iterations(folder):
        try:
            arrays = json.loads((folder / str(iteration) / "meta.json").read_text())["arrays"]
        except (OSError, ValueError, KeyError):
            return  # a damaged table may name any of them
        named |= {name for row in arrays for name in row.get("chunks", ())}
    for chunk in place.iterdir():
        if chunk.name not in named:
            chunk.unlink(missing_ok=True)


def room_for(place: Path, size: int) -> None:
    """Raises OSError when the disk has no room for so many bytes: orbax says it in a hundred lines."""
    if shutil.disk_usage(place).free < size + SPARE_BYTES:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for a checkpoint of {size:,} bytes", str(place.parent))


def write(draft: Path, leaves: list[tuple[str, Any]], meta: str, host: bytes | None) -> None:
    """The files of a checkpoint, on disk when this returns."""
    import orbax.checkpoint as ocp

    draft.mkdir(parents=True)
    size = sum(np.asarray(x).nbytes for _, x in leaves) + len(meta) + len(host or b"")
    room_for(draft, size)
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


def remembered(path: Path) -> dict[str, Any]:
    """What the loop remembered at a checkpoint, unchecked. Raises Damaged when it cannot be read."""
    try:
        return json.loads((path / "meta.json").read_text())["remember"]
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"{path}: {type(error).__name__}: {error}") from None


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
    small = [row for row in table if "chunks" not in row]
    shapes = {f"{i:05d}": jax.ShapeDtypeStruct(tuple(row["shape"]), np.dtype(row["dtype"])) for i, row in enumerate(small)}
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            arrays = checkpointer.restore((path / "arrays").absolute(), shapes)
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise Damaged(f"{path}: {str(error).splitlines()[0][:200]}") from None
    read = iter([np.asarray(arrays[f"{i:05d}"]) for i in range(len(small))])
    leaves = [whole(path.parent, row) if "chunks" in row else next(read) for row in table]
    for row, leaf in zip(table, leaves, strict=True):
        if "crc" in row and crc(leaf) != row["crc"] or str(leaf.dtype) != row["dtype"]:
            raise Damaged(f"{path}: {row['name']} is not what was written")
    host = None
    if meta.get("host_crc") is not None:
        host = (path / "host.bin").read_bytes() if (path / "host.bin").exists() else b""
        if zlib.crc32(host) != meta["host_crc"]:
            raise Damaged(f"{path}: host.bin is not what was written")
    return jax.tree.unflatten(jax.tree.structure(template), leaves), meta["remember"], host
