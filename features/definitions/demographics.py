"""Who the patient is: groupings that reports use, rarely inputs of a model."""

import numpy as np

from features.definitions import Array

BAND_EDGES_YEARS = np.array([18.0, 45.0, 55.0, 65.0, 75.0])
"""Ten-year bands around the median age of adults with suspected heart disease or cancer; our own convention."""


CHILD_BAND_EDGES_YEARS = np.array([0.0, 2.0, 6.0, 12.0, 18.0])
"""Infants and toddlers, early and middle childhood, adolescence, adults, in whole years of age.

Source: Williams K et al, Standard 6: age groups for pediatric trials, doi:10.1542/peds.2012-0055I; its three stages
before the second birthday are one here.
"""


def age_band(age_years: Array) -> Array:
    """The lower edge, in years, of the age band: 18, 45, 55, 65 or 75. Shape (n,) in and out; missing stays missing."""
    band = BAND_EDGES_YEARS[np.clip(np.searchsorted(BAND_EDGES_YEARS, age_years, side="right") - 1, 0, None)]
    return np.where(np.isnan(age_years), np.nan, band)


def child_age_band(age_years: Array) -> Array:
    """The lower edge, in years, of a child's age band: 0, 2, 6, 12, or 18 for an adult. Missing stays missing."""
    band = np.searchsorted(CHILD_BAND_EDGES_YEARS, age_years, side="right") - 1
    return np.where(np.isnan(age_years), np.nan, CHILD_BAND_EDGES_YEARS[np.clip(band, 0, None)])
