"""TAXONS and STAX: novelty search, and SERENE, where nobody has said what behaviour is (Paolo et al., arXiv 1909.05508 and 2111.01919).

The end of an episode is drawn, an autoencoder learns from the pictures as the search goes on, and its code is the descriptor; its error, the surprise, is
a second drive, towards what it describes badly yet. It learns after chunks 1, 3, 6, 10, ... of exploring, from everything that is kept, and then everything
that is kept is described again. Both are ``exploration.serene`` with other defaults:

    taxons   no emitters; survivors by novelty or by surprise, drawn for each generation (the version in STAX's code; the original replaced worst by best)
    stax     emitters; survivors by Pareto fronts of novelty and surprise; five pictures (as plotted, ``STAX-P_multi``; their number is chosen here)

    TAXO-N, TAXO-S   exploration=taxons exploration.objectives=[novelty], [surprise]
    TAXONS-P         exploration=taxons exploration.select=pareto
    NT               exploration=taxons exploration.train=false exploration.objectives=[novelty]; as published by mistake: exploration.frozen=true
"""

from __future__ import annotations

from agents.variants import variant
from exploration.base import Population
from exploration.serene import serene

taxons = variant(serene, "taxons", __name__, "TAXONS.", descriptor="autoencoder", objectives=("novelty", "surprise"), select="random", exploit=False)
stax = variant(serene, "stax", __name__, "STAX.", descriptor="autoencoder", objectives=("novelty", "surprise"), frames=5)

__all__ = ["Population", "stax", "taxons"]
