"""Methylation of cell-free DNA: which cells it comes from.

`methylation_betas` are shares of methylated reads, 0-1, at the markers of the reference `cell_type_atlas`, in its
order: `cell_type` (K,), the methylation of each in pure cells, `beta` (K, M), and `of_blood` (K,), 1 where the cells
are blood's.
"""

from collections.abc import Callable

import numpy as np

from features.bins import total
from features.definitions import Array, Profile, Reference


def cell_type_fractions(methylation_betas: Profile, cell_type_atlas: Reference) -> Profile:
    """For each cell type of the atlas, the share of the DNA that comes from it, 0-1, together 1. (n, M) in, (n, K) out.

    Non-negative least squares, then divided by the sum.
    Source: Moss J et al. Nat Commun 2018;9:5068, doi:10.1038/s41467-018-07466-6.
    """
    weights = _weights(methylation_betas, cell_type_atlas)
    whole = total(weights)
    return np.asarray(weights / np.where(whole > 0, whole, np.nan)[:, None])


def share_not_of_blood(methylation_betas: Profile, cell_type_atlas: Reference) -> Array:
    """The share of the DNA that comes from other cells than those of blood, 0-1. (n, M) in, (n,) out.

    Source: as `cell_type_fractions`.
    """
    fractions = cell_type_fractions(methylation_betas, cell_type_atlas)
    return total(fractions * (1 - cell_type_atlas["of_blood"].astype(np.float64)))


def atlas_misfit(methylation_betas: Profile, cell_type_atlas: Reference) -> Array:
    """How far the sample lies from every mixture of the atlas: root mean square of what is left, 0-1. (n, M) in.

    Large where the sample was measured with another laboratory's kit, or holds cells that the atlas lacks. Missing
    where no cell type fits at all, as of betas that are 0 throughout. Our own summary of the fit in
    `cell_type_fractions`.
    """
    weights, beta = _weights(methylation_betas, cell_type_atlas), cell_type_atlas["beta"]
    left = methylation_betas.copy()
    for cell_type in range(len(beta)):
        left = left - weights[:, cell_type, None] * beta[cell_type]
    return np.where(total(weights) > 0, np.sqrt(total(left * left) / left.shape[1]), np.nan)


def _weights(betas: Profile, atlas: Reference) -> Profile:
    """The non-negative weights (n, K) whose mixture of the atlas lies nearest each row; a row that misses is NaN."""
    from scipy.optimize import nnls

    pure = np.ascontiguousarray(atlas["beta"].T)
    found = np.full((len(betas), pure.shape[1]), np.nan)
    for row in np.flatnonzero(np.isfinite(betas).all(axis=1)).tolist():
        found[row] = nnls(pure, np.array(betas[row]))[0]  # a copy: the same memory layout in whatever batch
    return found


def _cell_types(cell_type_atlas: Reference) -> tuple[str, ...]:
    return tuple(cell_type_atlas["cell_type"].tolist())


PARTS: dict[str, Callable[..., tuple[str, ...]]] = {"cell_type_fractions": _cell_types}
