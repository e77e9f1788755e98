"""A *simulated* study of cancer screening from blood: nobody in it exists, and the truth of every patient is known.

One blood sample a person: cell-free DNA as counts of short and long fragments in bins of the genome, a histogram of
fragment lengths, methylation at markers of cell types, and molecules with a variant at the loci of a panel. A share of
the DNA, the tumour fraction, comes from a tumour that gained and lost chromosome arms, has shorter fragments, the
methylation of its tissue, and variants; the rest comes from blood and a few other tissues. Every number here is our own
invention, of the order of what is published, unless a source stands beside it. It shows that planted truth is found
again and that the house carries such data; it says nothing about how well any test finds cancer.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bins import arm_shares, gc_corrected
from features.definitions import cfdna

Array = NDArray[np.float64]

ORIGINS = ("none", "colorectal", "lung", "pancreatic")
STAGES = ("I", "II", "III", "IV")
MEDIAN_TUMOUR_FRACTION = {"I": 0.002, "II": 0.007, "III": 0.025, "IV": 0.08}
SPREAD_OF_LOG10_FRACTION = 0.45
MOST_OF_A_TUMOUR = 0.6
SHARE_OF_STAGE = (0.3, 0.25, 0.25, 0.2)
SHARE_WITH_CANCER = 0.45
"""Of a case-control study, as such studies have; in screening it is one in a hundred."""

SHORT_ARMS = ("13p", "14p", "15p", "21p", "22p")
"""Of acrocentric chromosomes: nothing there is mapped well."""
ARMS = tuple(name for pair in range(1, 23) for name in (f"{pair}p", f"{pair}q") if name not in SHORT_ARMS)
"""The arms of GRCh38's autosomes, by name; their bins are invented, alike in number for a long arm and a short one."""
BINS_OF_AN_ARM = 4
ARM_CHANGES = {
    "colorectal": {"7p": 1, "7q": 1, "8q": 1, "13q": 1, "20q": 1, "8p": -1, "17p": -1, "18p": -1, "18q": -1},
    "lung": {"1q": 1, "3q": 1, "5p": 1, "8q": 1, "3p": -1, "9p": -1, "17p": -1, "19p": -1},
    "pancreatic": {"1q": 1, "8q": 1, "6q": -1, "9p": -1, "17p": -1, "18q": -1},
}
"""Copies gained or lost of two, of arms that are often named for these cancers; written from memory, not looked up."""
SHARE_OF_CHANGES = 0.75
"""Each of its kind's changes is there in this share of the tumours."""

CELL_TYPES = {
    "granulocyte": 0.45,
    "monocyte": 0.15,
    "lymphocyte": 0.15,
    "erythroblast": 0.12,
    "endothelium": 0.08,
    "hepatocyte": 0.03,
    "colon_epithelium": 0.005,
    "lung_epithelium": 0.01,
    "pancreatic_duct": 0.005,
}
"""The mean share of each in healthy plasma."""
OF_BLOOD = ("granulocyte", "monocyte", "lymphocyte", "erythroblast")
CELL_OF_ORIGIN = {
    "colorectal": "colon_epithelium",
    "lung": "lung_epithelium",
    "pancreatic": "pancreatic_duct",
}
MARKERS_OF_A_TYPE = 10
METHYLATION_DEPTH = 600
HOW_ALIKE_PEOPLE_ARE = 120.0
"""Concentration of the Dirichlet distribution that healthy people's shares of cell types are drawn from."""

LOCI = ("APC", "BRAF", "CDKN2A", "DNMT3A", "EGFR", "KRAS_G12", "KRAS_G13", "PIK3CA", "SMAD4", "STK11", "TET2", "TP53")
LOCI_OF_ORIGIN = {
    "colorectal": ("APC", "BRAF", "KRAS_G12", "KRAS_G13", "PIK3CA", "SMAD4", "TP53"),
    "lung": ("BRAF", "CDKN2A", "EGFR", "KRAS_G12", "STK11", "TP53"),
    "pancreatic": ("CDKN2A", "KRAS_G12", "SMAD4", "TP53"),
}
LOCI_OF_AGE = ("DNMT3A", "TET2", "TP53")
"""Where clonal haematopoiesis, of blood cells and not of a tumour, leaves variants; one person in twelve here."""
SHARE_WITH_CLONES = 1 / 12
BLANK_FRACTION = 2e-4
VARIANT_DEPTH = 10_000
SHARE_WITHOUT_VARIANTS_TEST = 0.06

FRAGMENTS_IN_BINS = 18e6
FRAGMENTS_OF_KNOWN_SIZE = 400_000
SIZES_BP = np.arange(cfdna.FIRST_SIZE_BP, 250)

OF_THE_GENOME = 1709
"""Seed of the invented genome and of the people behind its references: the same whichever study is drawn."""
PEOPLE_IN_PANEL = 200
DIGITS = 7


@dataclass(frozen=True)
class Genome:
    """What is the same in every sample: (B,) arrays a bin, the methylation of pure cells (K, M), the blanks (V,)."""

    arm: NDArray[np.str_]
    gc: Array
    coverage: Array
    healthy_profile: Array
    tumour_profile: Array
    beta: Array
    blank: Array


@cache
def genome() -> Genome:
    """The invented genome, always the same."""
    dice = np.random.default_rng(OF_THE_GENOME)
    arm = np.array([name for name in ARMS for _ in range(BINS_OF_AN_ARM)])
    n = len(arm)
    beta = dice.uniform(0.75, 0.95, (len(CELL_TYPES), len(CELL_TYPES) * MARKERS_OF_A_TYPE))
    for place in range(len(CELL_TYPES)):  # a marker is methylated everywhere but in its own cells
        own = slice(place * MARKERS_OF_A_TYPE, (place + 1) * MARKERS_OF_A_TYPE)
        beta[place, own] = dice.uniform(0.03, 0.15, MARKERS_OF_A_TYPE)
    return Genome(
        arm,
        np.round(np.clip(dice.normal(0.42, 0.035, n), 0.33, 0.55), 4).astype(np.float64),
        dice.uniform(0.85, 1.1, n),
        dice.normal(0, 0.08, n),
        dice.normal(0, 0.2, n),
        np.round(beta, 3),
        BLANK_FRACTION * dice.uniform(0.5, 1.5, len(LOCI)),
    )


def sample(tumour_fraction: Array, origin: NDArray[np.str_], seed: int) -> dict[str, Array]:
    """*Simulated* blood samples with these tumour fractions (n,) of tumours of this `origin` (n,), as measured.

    By the contract's names: counts (n, B), sizes (n, L), betas (n, M), molecules (n, V), and (n,) of single numbers.
    """
    dice = np.random.default_rng(seed)
    return {
        **_bins(tumour_fraction, origin, dice),
        **_sizes(tumour_fraction, dice),
        **_methylation(tumour_fraction, origin, dice),
        **_variants(tumour_fraction, origin, dice),
        **_mitochondria(tumour_fraction, dice),
    }


def study(patients: int, seed: int) -> dict[str, list[Any]]:
    """The *simulated* study's table, a row a person: who they are, their sample, and what was found out later."""
    dice = np.random.default_rng(seed)
    sick = dice.random(patients) < SHARE_WITH_CANCER
    origin = np.where(sick, dice.choice(ORIGINS[1:], patients), ORIGINS[0])
    stage = np.where(sick, dice.choice(STAGES, patients, p=SHARE_OF_STAGE), "")
    fraction = np.zeros(patients)
    for name, median in MEDIAN_TUMOUR_FRACTION.items():
        of_stage = stage == name
        drawn = np.log10(median) + dice.normal(0, SPREAD_OF_LOG10_FRACTION, int(of_stage.sum()))
        fraction[of_stage] = np.minimum(10**drawn, MOST_OF_A_TUMOUR)
    age = np.clip(np.round(dice.normal(np.where(sick, 64, 60), 9)), 40, 90)
    untested = dice.random(patients) < SHARE_WITHOUT_VARIANTS_TEST
    table: dict[str, list[Any]] = {
        "id": [f"simulated-{number + 1:05d}" for number in range(patients)],
        "genome_build": ["GRCh38"] * patients,
        "kit": ["simulated-1"] * patients,
        "age_years": age.tolist(),
        "sex": dice.choice(["female", "male"], patients).tolist(),
    }
    measured = sample(fraction, origin, int(dice.integers(2**31)))
    table |= {name: values.tolist() for name, values in measured.items()}
    for name in ("variant_reads", "variant_depth"):
        table[name] = [None if gone else cell for gone, cell in zip(untested.tolist(), table[name], strict=True)]
    table["origin"] = origin.tolist()
    table["stage"] = [name or None for name in stage.tolist()]
    return table


def references() -> dict[str, dict[str, Any]]:
    """The constant tables that the definitions read, worked out from *simulated* healthy people: file to content."""
    known = genome()
    nobody = np.zeros(PEOPLE_IN_PANEL)
    healthy = sample(nobody, np.full(PEOPLE_IN_PANEL, ORIGINS[0]), OF_THE_GENOME + 1)
    short, long = healthy["short_fragments"], healthy["long_fragments"]
    shares = arm_shares(gc_corrected(short + long, known.gc), known.arm, np.array(ARMS))
    profile = cfdna.fragmentation_profile(short, long, {"gc": known.gc}).mean(axis=0)
    blanks = _blanks(np.random.default_rng(OF_THE_GENOME + 2))
    about = f"simulated: made by pipelines/liquid_biopsy.py, of {PEOPLE_IN_PANEL} simulated healthy people"
    return {
        "cfdna_healthy_panel_simulated": {
            "about": about,
            "genome_build": "GRCh38 (the names of its arms; bins and GC are invented)",
            "arm": known.arm.tolist(),
            "gc": known.gc.tolist(),
            "ratio_profile": _rounded(profile),
            "arms": list(ARMS),
            "arm_share_mean": _rounded(shares.mean(axis=0)),
            "arm_share_sd": _rounded(shares.std(axis=0, ddof=1)),
        },
        "cell_type_atlas_simulated": {
            "about": "simulated: invented methylation of pure cells, made by pipelines/liquid_biopsy.py",
            "cell_type": list(CELL_TYPES),
            "of_blood": [int(name in OF_BLOOD) for name in CELL_TYPES],
            "beta": known.beta.tolist(),
        },
        "variant_blanks_simulated": {
            "about": about,
            "locus": list(LOCI),
            "mean": _rounded(blanks.mean(axis=0)),
            "sd": _rounded(blanks.std(axis=0, ddof=1)),
        },
    }


def write_references(folder: Path) -> list[Path]:
    """Write the references as JSON files, which the spec names with their SHA-256; their paths."""
    paths = []
    for name, content in references().items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def arm_changes(origin: NDArray[np.str_], dice: np.random.Generator) -> Array:
    """Copies that each tumour (n,) gained or lost of each arm, (n, A) in the order of ARMS."""
    copies = np.zeros((len(origin), len(ARMS)))
    for name, changes in ARM_CHANGES.items():
        of_kind = np.flatnonzero(origin == name)
        for arm, change in changes.items():
            there = dice.random(len(of_kind)) < SHARE_OF_CHANGES
            copies[of_kind[there], ARMS.index(arm)] = change
    return copies


def _bins(fraction: Array, origin: NDArray[np.str_], dice: np.random.Generator) -> dict[str, Array]:
    known, n = genome(), len(fraction)
    arm_of_bin = np.array([ARMS.index(name) for name in known.arm])
    tumour_copies = 1 + arm_changes(origin, dice)[:, arm_of_bin] / 2
    healthy_ratio = 0.22 * np.exp(dice.normal(0, 0.1, (n, 1))) * (1 + known.healthy_profile)
    tumour_ratio = 0.45 * (1 + known.tumour_profile)
    f = fraction[:, None]
    healthy_short, tumour_short = healthy_ratio / (1 + healthy_ratio), tumour_ratio / (1 + tumour_ratio)
    short = (1 - f) * healthy_short + f * tumour_copies * tumour_short
    long = (1 - f) * (1 - healthy_short) + f * tumour_copies * (1 - tumour_short)
    x = (known.gc - 0.42) / 0.05
    slope, bend = dice.normal(0, 0.12, (n, 1)), dice.normal(-0.05, 0.04, (n, 1))
    further = dice.normal(0, 0.03, (n, 1))  # short fragments depend on GC a little otherwise
    depth = FRAGMENTS_IN_BINS / len(known.arm) * np.exp(dice.normal(0, 0.2, (n, 1))) * known.coverage
    found = {}
    for name, share, tilt in (("short_fragments", short, slope + further), ("long_fragments", long, slope)):
        uneven = np.exp(dice.normal(0, 0.005, share.shape))
        found[name] = dice.poisson(depth * share * uneven * np.exp(tilt * x + bend * x**2)).astype(np.float64)
    return found


def _sizes(fraction: Array, dice: np.random.Generator) -> dict[str, Array]:
    n = len(fraction)
    healthy = _of_lengths(0.14 * np.exp(dice.normal(0, 0.12, (n, 1))), 0.15)
    tumour = _of_lengths(np.full((n, 1), 0.45), 0.3)
    f = fraction[:, None]
    return {"fragment_sizes": dice.poisson(FRAGMENTS_OF_KNOWN_SIZE * ((1 - f) * healthy + f * tumour)).astype(float)}


def _of_lengths(short: Array, rhythm: float) -> Array:
    """A distribution over SIZES_BP with this share (n, 1) of fragments cut within the nucleosome, every 10.4 bp."""
    whole = np.exp(-0.5 * ((SIZES_BP - 167) / 13) ** 2)
    cut = np.exp(-0.5 * ((SIZES_BP - 138) / 24) ** 2)
    cut *= 1 + rhythm * np.cos(2 * np.pi * (SIZES_BP - 143) / cfdna.HELIX_BP) * (SIZES_BP < cfdna.SHORT_BELOW_BP)
    found: Array = (1 - short) * whole / whole.sum() + short * cut / cut.sum()
    return found


def _methylation(fraction: Array, origin: NDArray[np.str_], dice: np.random.Generator) -> dict[str, Array]:
    mixture = mix(
        fraction, origin, dice.dirichlet(HOW_ALIKE_PEOPLE_ARE * np.array(list(CELL_TYPES.values())), len(fraction))
    )
    beta = np.clip(mixture @ genome().beta, 0, 1)
    return {"methylation_betas": np.round(dice.binomial(METHYLATION_DEPTH, beta) / METHYLATION_DEPTH, 4)}


def mix(fraction: Array, origin: NDArray[np.str_], healthy: Array) -> Array:
    """Shares of the cell types (n, K) where the tumour's share of its own cell comes on top of `healthy` ones."""
    mixture = (1 - fraction)[:, None] * healthy
    for name, cell in CELL_OF_ORIGIN.items():
        mixture[:, list(CELL_TYPES).index(cell)] += np.where(origin == name, fraction, 0)
    return mixture


def _variants(fraction: Array, origin: NDArray[np.str_], dice: np.random.Generator) -> dict[str, Array]:
    n = len(fraction)
    allele_fraction = np.zeros((n, len(LOCI)))
    for row in range(n):
        if origin[row] in LOCI_OF_ORIGIN:
            mutated = dice.choice(LOCI_OF_ORIGIN[str(origin[row])], min(dice.poisson(1.3), 3), replace=False)
            clonal = dice.uniform(0.6, 1.0, len(mutated))
            allele_fraction[row, [LOCI.index(name) for name in mutated]] = fraction[row] / 2 * clonal
        if dice.random() < SHARE_WITH_CLONES:
            allele_fraction[row, LOCI.index(dice.choice(LOCI_OF_AGE))] += 10 ** dice.uniform(-3, -2)
    depth = np.round(VARIANT_DEPTH * np.exp(dice.normal(0, 0.15, (n, len(LOCI)))))
    return {"variant_reads": _reads(allele_fraction, depth, dice), "variant_depth": depth}


def _reads(allele_fraction: Array, depth: Array, dice: np.random.Generator) -> Array:
    noise = genome().blank * dice.gamma(8, 1 / 8, depth.shape)
    found: Array = dice.poisson(depth * (allele_fraction + noise)).astype(np.float64)
    return found


def _blanks(dice: np.random.Generator) -> Array:
    """Allele fractions (n, V) that the assay finds where there is no variant."""
    depth = np.full((PEOPLE_IN_PANEL, len(LOCI)), float(VARIANT_DEPTH))
    return np.asarray(_reads(np.zeros(depth.shape), depth, dice) / depth)


def _mitochondria(fraction: Array, dice: np.random.Generator) -> dict[str, Array]:
    nuclear = np.round(20e6 * np.exp(dice.normal(0, 0.2, len(fraction))))
    share = 4e-4 * np.exp(dice.normal(0, 0.5, len(fraction))) * (1 + 4 * fraction)
    return {
        "mitochondrial_fragments": dice.poisson(nuclear * share).astype(np.float64),
        "nuclear_fragments": nuclear,
    }


def _rounded(values: Array) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


if __name__ == "__main__":
    for written in write_references(Path("configs/references")):
        print(written)
