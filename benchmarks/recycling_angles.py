"""Why recycling pays or not: do the smallest eigenvectors stay where they are?

    uv run -m benchmarks.recycling_angles --json out.json

For pairs of neighbours of a sorted sequence, and for pairs drawn at random: C spans
A_2 M_2^-1 Y with Y the k eigenvectors of A_1 M_1^-1 of smallest modulus, which is the
best that recycling can hand on, and Q the kq smallest of A_2 M_2^-1. The sine of the
largest angle from Q to C is the delta of the theory (Parks et al. 2006, theorem 3.1):
near 0 the space is still right, near 1 it misses a direction altogether. Beside it the
number of outlying eigenvalues, those below a tenth of the median modulus.
"""

import argparse
import dataclasses
from typing import Any

from benchmarks import timing

K = 20
NUM_WANTED = (5, 10, 16)


@dataclasses.dataclass(frozen=True)
class Family:
    """Systems small enough for dense matrices."""

    title: str
    problem: str
    settings: dict[str, Any]
    preconditioner: str


FAMILIES = {
    "composites": Family(
        "fixed layout, contrasts 1e3...1e4",
        "composites",
        {"n": 30, "num_inclusions": 3, "contrasts": (1e3, 1e4)},
        "icc0",
    ),
    "composites_jittered": Family(
        "moving inclusions, contrasts 1e3...1e4",
        "composites",
        {"n": 30, "num_inclusions": 3, "contrasts": (1e3, 1e4), "layout": "jittered"},
        "icc0",
    ),
    "darcy_grf": Family(
        "smooth log-normal Darcy",
        "darcy",
        {"n": 34, "coefficient": "lognormal"},
        "icc0",
    ),
    "helmholtz_grf": Family(
        "Helmholtz, independent media",
        "helmholtz",
        {"n": 33, "wavelengths": 3.0},
        "lu",
    ),
    "convection_grf": Family(
        "convection-diffusion, independent velocities",
        "convection_diffusion",
        {"n": 32},
        "ilu0",
    ),
}


def main(argv: list[str] | None = None) -> list[dict]:
    """Prints the table and writes the JSON; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=40, help="samples to sort")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of each kind")
    parser.add_argument("--json", default=None, help="output file")
    args = parser.parse_args(argv)
    rows = []
    print(f"{'family':22} {'pairs':10} {'outliers':>8} " + _header())
    for name, family in FAMILIES.items():
        for row in measure(name, family, args.num, args.pairs):
            deltas = " ".join(f"{row['delta'][kq]:9.3f}" for kq in NUM_WANTED)
            print(f"{name:22} {row['pairs']:10} {row['outliers']:8.1f} {deltas}")
            rows.append(row)
    timing.write_json(args.json, title=main.__doc__, rows=rows)
    return rows


def _header() -> str:
    return " ".join(f"delta({kq})".rjust(9) for kq in NUM_WANTED)


def measure(name: str, family: Family, num: int, num_pairs: int) -> list[dict]:
    """Medians over pairs of one family: neighbours in the sorted order, and random."""
    import numpy as np

    from datagen import problems, sorting
    from datagen.plan import sample_rng

    problem = problems.create(family.problem, **family.settings)
    samples = [problem.sample(sample_rng(1, i)) for i in range(num)]
    features = np.stack([problem.features(sample) for sample in samples])
    order = sorting.order(features, method="greedy").order
    rng = np.random.default_rng(0)
    # Places all along the path: its head is the easy part.
    places = np.linspace(0, num - 2, num_pairs).astype(int)
    pairs = {
        "neighbours": [(order[p], order[p + 1]) for p in places],
        "random": [rng.choice(num, 2, replace=False) for _ in range(num_pairs)],
    }
    rows = []
    for kind, chosen in pairs.items():
        results = [
            angles(*(problem.system(samples[i]) for i in pair), family.preconditioner)
            for pair in chosen
        ]
        deltas, outliers = zip(*results, strict=True)
        rows.append(
            {
                "family": name,
                "title": family.title,
                "preconditioner": family.preconditioner,
                "pairs": kind,
                "num_pairs": num_pairs,
                "outliers": float(np.median(outliers)),
                "delta": {
                    kq: float(np.median([d[kq] for d in deltas])) for kq in NUM_WANTED
                },
            }
        )
    return rows


def angles(first, second, preconditioner: str) -> tuple[dict[int, float], int]:
    """The deltas from one system to the next, and the outliers of the second."""
    import numpy as np

    from solvers.krylov import ritz

    Y = smallest(dense(first, preconditioner))[0]
    B = dense(second, preconditioner)
    Q, values = smallest(B)
    C, _ = np.linalg.qr(B @ Y)
    moduli = np.abs(values)
    outliers = int((moduli < 0.1 * np.median(moduli)).sum())
    return {kq: ritz.delta(Q[:, :kq], C) for kq in NUM_WANTED}, outliers


def dense(system, preconditioner: str):
    """A M^-1 as a dense matrix."""
    import numpy as np

    from solvers import preconditioners

    A = system.to_csr()
    M = preconditioners.create(preconditioner)
    M.update(system)
    return A @ M(np.eye(A.shape[0], dtype=system.dtype))


def smallest(B):
    """Orthonormal basis of the K eigenvectors of smallest modulus, and all values.

    The columns are nested: the first kq span the invariant subspace of the kq smallest.
    """
    import numpy as np

    values, vectors = np.linalg.eig(B)
    chosen = vectors[:, np.argsort(np.abs(values))[:K]]
    Q, _ = np.linalg.qr(chosen)
    return Q, values


if __name__ == "__main__":
    main()
