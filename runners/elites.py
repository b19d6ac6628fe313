"""``farlands elites RUN``: what a search over whole policies keeps, as a map and as a file; one of the policies as a video.

    scripts/farlands elites runs/NAME [member=0] [near=0.5,-0.3] [out=FILE.png] [fps=30]

The map shows, over the box of the descriptor, the returns of what the archive keeps, and beside it the best return that any evaluation had in each
cell. Where novelty is measured in something else than the world's descriptor (TAXONS, STAX, signatures), a second picture shows the two spaces side by side.
Genomes, returns and descriptors are written to RUN/elites/member-K.npz. ``near`` films an episode of the policy whose descriptor is nearest to
those numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from envs.builder import Integer, Refusal, closest
from exploration.base import Elites
from runners import play, spaces
from runners.base import Acting
from runners.policies import Played
from runners.stored import Stored, newest

SETTINGS: dict[str, Any] = {"member": 0, "near": None, "out": None, "fps": 30}
WHOLE = {"member": Integer(0), "fps": Integer(1, 240)}
COLOURS, EMPTY = "viridis", "#e8e8e8"


def elites(arguments: Sequence[str]) -> dict[str, Any]:
    """Draws and writes; returns the files and what is in them. Raises Refusal."""
    run, settings = parse(arguments)
    stored = newest(run, settings["member"], accepts(run))
    runner, state = stored.runner, stored.state
    kept = jax.tree.map(np.asarray, runner.elites(state))
    if not kept.filled.any():
        raise Refusal(f"{run}: nothing is kept yet; go on with: scripts/farlands resume {run}")
    told = {"run_dir": str(run), "member": settings["member"], "kept": int(kept.filled.sum()), "best": round(float(kept.fitness[kept.filled].max()), 6)}
    file = run / "elites" / f"member-{settings['member']}.npz"
    told["file"] = str(written(file, kept))
    box = runner.spec.info["descriptor"]
    if settings["near"] is not None:
        return told | filmed(run, settings, stored, kept, box)
    if box.shape != (2,):
        return told | {"picture": None, "why": f"a map needs a descriptor of two numbers; this one has {box.shape[0]}"}
    out = Path(settings["out"] or run / "pictures" / f"elites-{settings['member']}.png")
    cells = stored.experiment.config["runner"]["cells"]
    picture(out, kept, np.max(state.record.seen, axis=0).reshape(cells), box, stored.experiment.name)
    told |= {"picture": str(out)}
    if kept.code is None:
        return told
    beside = out.with_name(f"{out.stem}-spaces{out.suffix}")
    agree = spaces.picture(beside, kept.descriptor[kept.filled], kept.code[kept.filled], box, stored.experiment.name)
    return told | {"spaces": str(beside), "rank_correlation": None if agree is None else round(agree, 4)}


def accepts(run: Path):
    def check(runner, shapes) -> None:
        if getattr(runner, "elites", None) is None:
            raise Refusal(f"{run} is no search over policies; elites is for runs with runner=population")

    return check


def parse(arguments: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    runs = [a for a in arguments if "=" not in a]
    if len(runs) != 1:
        raise Refusal("elites takes one run directory and settings, as: scripts/farlands elites runs/NAME member=0 near=0.5,-0.3")
    found = dict(SETTINGS)
    for key, value in (a.split("=", 1) for a in arguments if "=" in a):
        if key not in SETTINGS:
            raise Refusal(f"elites {key}={value}: there is no setting {key!r}{closest(key, SETTINGS)}")
        if key in WHOLE and not (value.isdecimal() and WHOLE[key].accepts(int(value))):
            raise Refusal(f"elites {key}={value}: {key} must be {WHOLE[key].describe()}")
        found[key] = int(value) if key in WHOLE else value
    return Path(runs[0]), found


def written(file: Path, kept: Elites) -> Path:
    """Genomes f32[K, G], fitness f32[K], descriptor f32[K, d], and where there is one code f32[K, c], of what is kept."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".draft-{file.name}")
    names = [name for name in ("genomes", "fitness", "descriptor", "code") if getattr(kept, name) is not None]
    with open(draft, "wb") as stream:
        np.savez_compressed(stream, **{name: getattr(kept, name)[kept.filled] for name in names})
    draft.replace(file)
    return file


def picture(out: Path, kept: Elites, seen: np.ndarray, box, title: str) -> None:
    """The map. ``seen`` f32[cells]: best return in each cell, -inf where nothing ended."""
    low, high = box.low, box.high
    fitness, places = kept.fitness[kept.filled], kept.descriptor[kept.filled]
    shown = np.where(np.isfinite(seen), seen, np.nan)
    every = np.concatenate([fitness, shown[np.isfinite(shown)]])
    norm = Normalize(every.min(), every.max() if every.max() > every.min() else every.min() + 1)
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    order = np.argsort(fitness)
    marks = left.scatter(*places[order].T, c=fitness[order], cmap=COLOURS, norm=norm, s=max(2.0, min(14.0, 8000 / len(order))), linewidths=0)
    left.set_title(f"kept: {len(fitness):,}", fontsize=9)
    right.imshow(shown.T, origin="lower", extent=(low[0], high[0], low[1], high[1]), cmap=COLOURS, norm=norm, interpolation="nearest", aspect="auto")
    right.set_title(f"ever reached: {np.isfinite(seen).mean():.1%} of {seen.size:,} cells", fontsize=9)
    for axes in (left, right):
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="descriptor 1", ylabel="descriptor 2", facecolor=EMPTY, box_aspect=1)
    figure.colorbar(marks, ax=[left, right], label="return", shrink=0.85)
    figure.suptitle(title, fontsize=10, fontweight="bold")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)


def filmed(run: Path, settings: dict[str, Any], stored: Stored, kept: Elites, box) -> dict[str, Any]:
    """An episode of the policy nearest to ``near``."""
    try:
        near = np.array([float(number) for number in settings["near"].split(",")], np.float32)
        assert near.shape == box.shape and np.all(np.isfinite(near))
    except (ValueError, AssertionError):
        raise Refusal(f"elites near={settings['near']}: it must be {box.shape[0]} numbers with commas, as near={','.join(['0.5'] * box.shape[0])}") from None
    distance = np.where(kept.filled, np.linalg.norm((kept.descriptor - near) / (box.high - box.low), axis=-1), np.inf)
    at = int(np.argmin(distance))
    policy = np.asarray(stored.runner.agent.genome.decode(kept.genomes[at]))
    member, pictures = stored.experiment.members[settings["member"]], []
    for shown in play.steps_of(Played(member, stored.runner, Acting(policy, stored.state.bonus)), 0):
        pictures.append(play.enlarged(shown.picture))
        if shown.done:
            break
    out = Path(settings["out"] or run / "videos" / f"member-{settings['member']}-near-{settings['near']}.mp4")
    play.write(out, pictures, settings["fps"])
    return {"video": str(out), "descriptor": [round(float(x), 6) for x in kept.descriptor[at]], "return": round(float(kept.fitness[at]), 6)}
