"""*Simulated* electrocardiograms in sinus rhythm and in a rhythm like atrial fibrillation: nobody in it exists.

A beat is made of the waves of neurokit2's ECGSYN (McSharry PE et al. IEEE Trans Biomed Eng 2003;50:289-294), drawn one
by one, whose heights and widths are each patient's own. From it both rhythms are made in the same way: a copy at each R
peak, its part after the QRS stretched by the square root of the interval since the beat before, as Bazett has it. What
differs is what differs in patients:

- sinus rhythm: intervals that sway with the breath; in some patients premature beats, earlier and without a P wave.
- like atrial fibrillation: intervals drawn independently of one another, beats without a P wave, and between them
  fibrillatory waves of 4-9 Hz, a sawtooth of three harmonics whose rate and height waver (after Stridh M, Sornmo L.
  IEEE Trans Biomed Eng 2001;48:105-111; from memory, not looked up).

Both have baseline wander, muscle noise and a tremor in the band of the fibrillatory waves; heart rates are drawn alike.
Some people fibrillate now and then and have recordings of both kinds. In some recordings an electrode is off. Every
number here is our own invention, and was not validated against any recording of a patient: it shows that the house
learns from recordings, and says nothing about how well anything finds atrial fibrillation.
"""

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEADS = ("I", "II", "V1")
HZ = 100
SAMPLES = 500
COLUMNS = ("id", "age_years", "sex", "site", "recorded_at", "recording", "rhythm")
RHYTHMS = ("sinus", "atrial_fibrillation")
SITES = ("north", "south")
NOISE_OF_SITE = (1.15, 0.85)
"""Each site's noise, of what is usual."""
MOST_RECORDINGS = 5
"""Of one patient."""
FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 365
SHARE_WHO_FIBRILLATE = 0.45
SHARE_NOW_AND_THEN = 0.35
"""Of those who fibrillate: only half of their recordings show it."""
SHARE_WITH_PREMATURE_BEATS = 0.35
"""Of the patients, whatever the rhythm."""
SHARE_OFF = 0.01
"""Of the recordings: a lead of nothing, which the contract refuses."""
WAVES = ("P", "Q", "R", "S", "T")
LEAD_MV = {
    "I": (0.08, -0.05, 0.7, -0.12, 0.2),
    "II": (0.13, -0.08, 1.0, -0.2, 0.3),
    "V1": (0.05, 0.0, 0.25, -0.8, 0.1),
}
"""The mean height of each wave in each lead."""
FIBRILLATION_MV = {"I": 0.009, "II": 0.018, "V1": 0.026}
"""Half the mean height of the fibrillatory waves in each lead."""
TREMORS = 3
"""Sine waves of 3-10 Hz in each lead's noise."""
WAVE_HZ = 250
WIDTHS = 4
"""Of each wave: so many shapes, of several widths, that patients' beats are put together from."""
WAVE_DEGREES = (-70, -15, 0, 15, 100)
WIDTH_RAD = (0.25, 0.1, 0.1, 0.1, 0.4)
"""Where in the cycle the waves lie in ECGSYN, and how wide they are, by its defaults in neurokit2."""
BEFORE_R_S = 0.35
AFTER_R_S = 0.6
ST_S = 0.06
"""From the R peak; what comes later is stretched."""
RR_S = (0.32, 1.6)
"""No interval is shorter or longer."""


@dataclass(frozen=True)
class Patient:
    """One simulated person, and the habits of the heart."""

    name: str
    age_years: float
    sex: str
    site: int
    beats: dict[bool, Array]
    """With a P wave and without: (leads, points) from BEFORE_R_S before the R peak on, mV."""
    fibrillates: float
    """The chance of a recording to show it."""
    rate_bpm: float
    irregularity: float
    """Of the intervals in fibrillation: the standard deviation of their logarithm."""
    breath: float
    """How far the intervals in sinus rhythm sway with the breath, of the mean."""
    premature: float
    """The chance of a beat in sinus rhythm to come early."""
    fibrillation: float
    """How high the fibrillatory waves are, of the mean."""


def study(patients: int, seed: int) -> dict[str, list[Any]]:
    """The *simulated* study's table, a row a recording: whose, where and when, the leads, and the rhythm.

    A recording is a base64 text of float32 millivolts, lead after lead.
    """
    dice = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    waves = _waves()
    for number in range(patients):
        patient = _patient(f"simulated-{number + 1:05d}", waves, dice)
        minutes = np.sort(dice.choice(DAYS * 24 * 60, int(dice.integers(1, MOST_RECORDINGS + 1)), replace=False))
        for minute in minutes.tolist():
            fibrillates = bool(dice.random() < patient.fibrillates)
            recording = record(patient, fibrillates, dice)
            if dice.random() < SHARE_OFF:
                recording[dice.integers(len(LEADS))] = 0
            rows["id"].append(patient.name)
            rows["age_years"].append(patient.age_years)
            rows["sex"].append(patient.sex)
            rows["site"].append(SITES[patient.site])
            rows["recorded_at"].append((FIRST_DAY + timedelta(minutes=minute)).isoformat())
            rows["recording"].append(b64encode(recording.astype("<f4").tobytes()).decode())
            rows["rhythm"].append(RHYTHMS[fibrillates])
    return rows


def _patient(name: str, waves: Array, dice: np.random.Generator) -> Patient:
    fibrillates = dice.random() < SHARE_WHO_FIBRILLATE
    now_and_then = dice.random() < SHARE_NOW_AND_THEN
    premature = dice.random() < SHARE_WITH_PREMATURE_BEATS
    return Patient(
        name=name,
        age_years=float(np.clip(np.round(dice.normal(70 if fibrillates else 66, 10)), 30, 95)),
        sex=str(dice.choice(["female", "male"])),
        site=int(dice.integers(len(SITES))),
        beats=_beats(waves, dice),
        fibrillates=(0.5 if now_and_then else 1.0) if fibrillates else 0.0,
        rate_bpm=float(np.clip(dice.normal(80, 16), 48, 140)),
        irregularity=float(dice.uniform(0.02, 0.18)),
        breath=float(np.clip(np.exp(dice.normal(np.log(0.035), 0.7)), 0.005, 0.15)),
        premature=float(dice.uniform(0.05, 0.3)) if premature else 0.0,
        fibrillation=float(np.exp(dice.normal(0, 0.5))),
    )


@cache
def _waves() -> Array:
    """ECGSYN's five waves, each by itself and WIDTHS times, narrow to wide: (waves, widths, points), 1 at the highest.

    ECGSYN adds its waves up, so that a beat is as well put together from them as drawn at once. `ecg_simulate` itself
    integrates with steps that may jump over a wave, and stretches what comes out to 1.6 mV; so its equations are
    integrated here.
    """
    from neurokit2.ecg.ecg_simulate import _ecg_simulate_derivsecgsyn as slopes
    from scipy.integrate import solve_ivp

    begin, end = round((1 - BEFORE_R_S) * WAVE_HZ), round((1 + AFTER_R_S) * WAVE_HZ)
    times = np.arange(end) / WAVE_HZ  # at 60 beats a minute the second R peak comes after one second
    angles = np.radians(WAVE_DEGREES)
    found = np.empty((len(WAVES), WIDTHS, end - begin))
    for wave in range(len(WAVES)):
        alone = np.zeros(len(WAVES))
        alone[wave] = 1000.0  # so high that ECGSYN's swaying baseline is nothing beside it
        for place, width in enumerate(np.linspace(0.75, 1.3, WIDTHS)):
            parts = (np.ones(len(times)), angles, WAVE_HZ, alone, width * np.array(WIDTH_RAD))
            solved = solve_ivp(slopes, (0, times[-1]), (1, 0, 0.04), t_eval=times, max_step=0.01, args=parts)
            drawn = solved.y[2, begin:]
            drawn = drawn - np.linspace(drawn[0], drawn[-1], len(drawn))  # begins and ends at nothing
            found[wave, place] = drawn / drawn.max()
    return found


def _beats(waves: Array, dice: np.random.Generator) -> dict[bool, Array]:
    """A patient's beats: heights and widths of the waves are this patient's own."""
    shapes = waves[np.arange(len(WAVES)), dice.integers(WIDTHS, size=len(WAVES))]
    height = np.exp(dice.normal(0, 0.25)) * np.exp(dice.normal(0, 0.25, len(WAVES)))
    height[WAVES.index("P")] *= dice.uniform(0.1, 1.0)  # in some it is hard to see
    mv = height * np.array(list(LEAD_MV.values())) * np.exp(dice.normal(0, 0.2, (len(LEADS), len(WAVES))))
    return {p: (mv * ([p] + [1] * (len(WAVES) - 1))) @ shapes for p in (True, False)}


def record(patient: Patient, fibrillates: bool, dice: np.random.Generator) -> Array:
    """One *simulated* recording of the patient, (leads, SAMPLES), in millivolts."""
    times = np.arange(SAMPLES) / HZ
    found = np.zeros((len(LEADS), SAMPLES))
    at, intervals, early = _intervals(patient, fibrillates, times[-1], dice)
    for peak, interval, premature in zip(at, intervals, early, strict=True):
        beats = patient.beats[not fibrillates and not premature]
        since = times - peak
        since = np.where(since > ST_S, ST_S + (since - ST_S) / np.sqrt(np.clip(interval, 0.4, 1.3)), since)
        place = (since + BEFORE_R_S) * WAVE_HZ
        for lead in range(len(LEADS)):
            found[lead] += np.interp(place, np.arange(beats.shape[1]), beats[lead], left=0, right=0)
    if fibrillates:
        found += _fibrillatory_waves(patient, times, dice)
    return found + _noise(patient, times, dice)


def _intervals(
    patient: Patient, fibrillates: bool, until: float, dice: np.random.Generator
) -> tuple[list[float], list[float], list[bool]]:
    """When each R peak comes, the interval before it, in s, and whether it comes early."""
    mean = 60 / float(np.clip(patient.rate_bpm * np.exp(dice.normal(0, 0.08)), 45, 145))
    breath_hz, phase = dice.uniform(0.18, 0.33), dice.uniform(0, 2 * np.pi)
    at, intervals, early = [], [], []
    time, debt = -dice.uniform(0, 1) * mean - mean, 0.0
    while time < until + mean:
        premature = False
        if fibrillates:
            interval = mean * np.exp(dice.normal(0, patient.irregularity))
        else:
            sway = patient.breath * np.sin(2 * np.pi * breath_hz * time + phase)
            interval, debt = mean * (1 + sway + dice.normal(0, 0.008)) + debt, 0.0
            premature = bool(dice.random() < patient.premature)
            if premature:  # and the next comes late
                early_by = dice.uniform(0.15, 0.4) * mean
                interval, debt = interval - early_by, early_by * dice.uniform(0.3, 1.0)
        interval = float(np.clip(interval, *RR_S))
        time += interval
        at.append(time)
        intervals.append(interval)
        early.append(premature)
    return at, intervals, early


def _fibrillatory_waves(patient: Patient, times: Array, dice: np.random.Generator) -> Array:
    rate = dice.uniform(4.5, 8) + 0.4 * np.sin(2 * np.pi * dice.uniform(0.1, 0.4) * times + dice.uniform(0, 2 * np.pi))
    phase = 2 * np.pi * np.cumsum(rate) / HZ + dice.uniform(0, 2 * np.pi)
    waver = np.sin(2 * np.pi * dice.uniform(0.1, 0.5) * times + dice.uniform(0, 2 * np.pi))
    wave = np.sum([np.sin(harmonic * phase) / harmonic for harmonic in (1, 2, 3)], axis=0) * (1 + 0.4 * waver)
    mv = np.array([[FIBRILLATION_MV[lead]] for lead in LEADS]) * np.exp(dice.normal(0, 0.2, (len(LEADS), 1)))
    found: Array = patient.fibrillation * mv * wave
    return found


def _noise(patient: Patient, times: Array, dice: np.random.Generator) -> Array:
    """Baseline wander, muscle noise, and a tremor in the band of the fibrillatory waves; (leads, samples), mV."""
    shape = (len(LEADS), 1)
    much = NOISE_OF_SITE[patient.site] * np.exp(dice.normal(0, 0.4))
    wander = 0.12 * np.sin(2 * np.pi * dice.uniform(0.15, 0.4, shape) * times + dice.uniform(0, 2 * np.pi, shape))
    muscle = 0.03 * dice.normal(0, 1, (len(LEADS), len(times)))
    tremor = np.zeros((len(LEADS), len(times)))
    for _ in range(TREMORS):
        phase = 2 * np.pi * dice.uniform(3, 10, shape) * times + dice.uniform(0, 2 * np.pi, shape)
        tremor += dice.uniform(0, 0.025, shape) * np.sin(phase)
    found: Array = much * (wander + muscle + tremor)
    return found
