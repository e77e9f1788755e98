"""Who the patient is: groupings that reports use, rarely inputs of a model."""

import numpy as np

from features.definitions import Array

BAND_EDGES_YEARS = np.array([18.0, 45.0, 55.0, 65.0, 75.0])
"""Ten-year bands around the median age of adults with suspected heart disease or cancer; our own convention."""


def age_band(age_years: Array) -> Array:
    """The lower edge, in years, of the age band: 18, 45, 55, 65 or 75. Shape (n,) in and out; missing stays missing."""
    band = BAND_EDGES_YEARS[np.clip(np.searchsorted(BAND_EDGES_YEARS, age_years, side="right") - 1, 0, None)]
    return np.where(np.isnan(age_years), np.nan, band)
