"""What a search has learnt to measure novelty in, beside the world's own descriptor: a picture, and how much the two agree.

Every policy that is kept has a colour by where it is in the true space; in the learnt space, seen along its first two principal components, colours that run
smoothly into each other mean that neighbours have stayed neighbours. The number is Spearman's rank correlation between the distances of all pairs in one
space and in the other (of at most ``PAIRED`` policies, drawn at random): 1 where what is far in one is far in the other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

PAIRED = 500


def rank_correlation(places: np.ndarray, codes: np.ndarray) -> float | None:
    """Of f32[K, d] and f32[K, c]; None for fewer than three, or where all distances in one of the spaces are the same."""
    chosen = np.random.default_rng(0).permutation(len(places))[:PAIRED]
    upper = np.triu_indices(len(chosen), 1)
    if len(chosen) < 3:
        return None
    from scipy.stats import rankdata  # half a second that only this should cost

    ranks = []
    for points in (places[chosen].astype(np.float64), codes[chosen].astype(np.float64)):
        ranks.append(rankdata(np.sqrt(np.sum(np.square(points[:, None] - points[None]), axis=-1))[upper]))
    if min(np.ptp(rank) for rank in ranks) == 0:
        return None
    return float(np.corrcoef(ranks)[0, 1])


def along_principal_components(codes: np.ndarray) -> tuple[np.ndarray, float]:
    """(f64[K, 2] of f32[K, c], the share of the variance that these two directions have)."""
    centred = codes.astype(np.float64) - codes.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    seen = centred @ directions[:2].T
    seen = np.pad(seen, ((0, 0), (0, 2 - seen.shape[1])))
    total = np.sum(np.square(sizes))
    return seen, float(np.sum(np.square(sizes[:2])) / total) if total > 0 else 1.0


def colours(places: np.ndarray, box) -> np.ndarray:
    """RGB [K, 3] by the first two numbers of the descriptor: red grows along the first, blue along the second."""
    share = np.clip((places[:, :2] - box.low[:2]) / (box.high[:2] - box.low[:2]), 0, 1)
    return np.stack([0.1 + 0.85 * share[:, 0], np.full(len(share), 0.35), 0.1 + 0.85 * share[:, 1]], axis=-1)


def picture(out: Path, places: np.ndarray, codes: np.ndarray, box, title: str) -> float | None:
    """The two spaces of K policies side by side; returns their rank correlation. ``places`` f32[K, d] with d >= 2, ``codes`` f32[K, c]."""
    found, (seen, share), colour = rank_correlation(places, codes), along_principal_components(codes), colours(places, box)
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    size = max(2.0, min(14.0, 8000 / len(places)))
    for axes, points, names in zip(figure.subplots(1, 2), (places, seen), (("descriptor 1", "descriptor 2"), ("component 1", "component 2")), strict=True):
        axes.scatter(points[:, 0], points[:, 1], c=colour, s=size, linewidths=0)
        axes.set(xlabel=names[0], ylabel=names[1], box_aspect=1)
    left, right = figure.axes
    left.set(xlim=(box.low[0], box.high[0]), ylim=(box.low[1], box.high[1]))
    left.set_title("the world's descriptor", fontsize=9)
    agree = "" if found is None else f"\nrank correlation of distances with the true ones {found:.2f}"
    right.set_title(f"what novelty is measured in: {codes.shape[1]} numbers, {share:.0%} of the variance{agree}", fontsize=9)
    figure.suptitle(title, fontsize=10, fontweight="bold")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    return found
