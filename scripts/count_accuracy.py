"""How well a bonus counted, from finished runs on the visual grid: ``.venv/bin/python scripts/count_accuracy.py RUN...``.

The bonus is asked for every cell that was visited, as it stands at the end of the run, and held against 1/sqrt(N), N being the exact number of visits (the
warm-up's not among them). R is their correlation over cells, the goal left out, as the coin flip network's authors have it (arXiv 2306.03186,
code); RMSE the root of the mean squared difference, which means something for bonuses on that scale only. Mean and deviation over seeds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from envs.builder import build  # noqa: E402
from envs.visual_grid import observer  # noqa: E402
from exploration.intrinsic import intrinsic  # noqa: E402
from exploration.laws.play import reaching  # noqa: E402
from runners import checkpoint  # noqa: E402
from runners.checks import parted  # noqa: E402
from runners.experiment import experiment  # noqa: E402
from runners.rundir import read_config  # noqa: E402
from runners.train import assemble  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    print("| run | seeds | R | RMSE |\n|---|---|---|---|")
    for run in parser.parse_args().runs:
        found = agreements(run)
        (r, rmse), (r_spread, rmse_spread) = found.mean(0), found.std(0)
        print(f"| {run.name} | {len(found)} | {r:.3f} ± {r_spread:.3f} | {rmse:.3f} ± {rmse_spread:.3f} |", flush=True)


def agreements(run: Path) -> np.ndarray:
    """(R, RMSE) of every member, f64[members, 2]."""
    config = read_config(run)
    batch, runner, _ = assemble(experiment(config), "vmap")
    batch.plan()
    newest = checkpoint.list_iterations(run / "checkpoints")[-1]
    states, _ = checkpoint.load(run / "checkpoints" / str(newest), batch.template())[0]
    spec, (entry, stream) = runner.env.spec._replace(lanes=config["runner"]["lanes"]), parted("exploration", config["exploration"])
    bonus = intrinsic(spec, build(entry, spec), **stream).bonus
    env = config["env"]
    cells = jnp.stack(jnp.divmod(jnp.arange(env["size"] ** 2), env["size"]), axis=-1)
    observe, _ = observer(env["observation"], env["size"], env["pixels"])
    steps = reaching(jax.vmap(observe)(cells))
    score = jax.jit(lambda state: bonus.score(state, steps))  # as it is, not normalised

    def agreement(member: int) -> tuple[float, float]:
        state = jax.tree.map(lambda x: jnp.asarray(x[member]), states.bonus)
        visits = states.record.visits[member].reshape(-1)
        seen = (visits > 0) & (np.arange(visits.size) < visits.size - 1)
        paid, exact = np.asarray(score(state))[seen], 1 / np.sqrt(visits[seen])
        return float(np.corrcoef(paid, exact)[0, 1]), float(np.sqrt(np.mean((paid - exact) ** 2)))

    return np.array([agreement(member) for member in range(batch.members)])


if __name__ == "__main__":
    main()
