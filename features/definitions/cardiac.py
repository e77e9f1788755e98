"""The heart under exercise."""

from features.definitions import Array


def heart_rate_reserve_used(max_heart_rate_bpm: Array, age_years: Array) -> Array:
    """Share of the age-predicted maximum heart rate that was reached in exercise, about 0.3-1.2.

    Shape (n,) in and out. A missing rate or age stays missing.
    Source: maximum heart rate 220 - age, Fox SM, Naughton JP, Haskell WL. Ann Clin Res 1971;3:404-432.
    """
    return max_heart_rate_bpm / (220 - age_years)
