"""Why recycling pays or not: do the smallest eigenvectors stay where they are?

    uv run -m benchmarks.recycling_spectra --json out.json

For pairs of neighbours of a sorted sequence, and for pairs drawn at random: Y are the k
eigenvectors of A_1 M_1^-1 of smallest modulus, the best that a system can hand on, Q
the kq smallest of A_2 M_2^-1, and C = range(A_2 M_1^-1 Y).

delta is the sine of the largest angle from Q to C (Parks et al. 2006, theorem 3.1): 0
if the space handed on is still right, 1 if it misses a direction altogether. The spread
is the largest modulus of the eigenvalues of A_2 M_2^-1 over the smallest, which bounds
the steps: as it is, after taking out the space handed on (the projector of deflated
CG), and after taking out the k vectors of the second system itself, the best possible.
"""

import argparse
import dataclasses
from typing import Any

from benchmarks import timing

K = 20
NUM_WANTED = 9
COLUMNS = ("delta", "spread", "handed on", "ideal")


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
        {"n": 32, "coefficient": "lognormal"},
        "icc0",
    ),
    "helmholtz_grf": Family(
        "Helmholtz, independent media",
        "helmholtz",
        {"n": 31, "wavelengths": 2.0, "source_width": 0.05},
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
    parser.add_argument("--pairs", type=int, default=4, help="pairs of each kind")
    parser.add_argument("--json", default=None, help="output file")
    args = parser.parse_args(argv)
    rows = []
    print(f"{'family':20} {'pairs':10} " + " ".join(f"{c:>9}" for c in COLUMNS))
    for name, family in FAMILIES.items():
        for row in measure(name, family, args.num, args.pairs):
            values = " ".join(f"{row[column]:9.3g}" for column in COLUMNS)
            print(f"{name:20} {row['pairs']:10} {values}", flush=True)
            rows.append(row)
    timing.write_json(args.json, title=main.__doc__, rows=rows)
    return rows


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
        results = np.array(
            [
                compare(*(problem.system(samples[i]) for i in pair), family)
                for pair in chosen
            ]
        )
        medians = dict(zip(COLUMNS, np.median(results, axis=0).tolist(), strict=True))
        rows.append(
            {
                "family": name,
                "title": family.title,
                "preconditioner": family.preconditioner,
                "k": K,
                "kq": NUM_WANTED,
                "pairs": kind,
                "num_pairs": num_pairs,
                **medians,
            }
        )
    return rows


def compare(first, second, family: Family) -> tuple[float, float, float, float]:
    """The four columns for one pair of systems."""
    import numpy as np

    from solvers.krylov import ritz

    B, M = dense(first, family.preconditioner)
    X = M(smallest(B)[0])  # before M follows the next matrix
    B, _ = dense(second, family.preconditioner)
    Q, moduli = smallest(B)
    AX = second.to_csr() @ X
    # A (I - X (X^H A X)^-1 X^H A): the images of X become zeros of the spectrum.
    deflated = B - AX @ np.linalg.solve(X.conj().T @ AX, X.conj().T @ B)
    rest = np.sort(np.abs(np.linalg.eigvals(deflated)))[K:]
    return (
        ritz.delta(Q[:, :NUM_WANTED], AX),
        moduli[-1] / moduli[0],
        rest[-1] / rest[0],
        moduli[-1] / moduli[K],
    )


def dense(system, preconditioner: str):
    """A M^-1 as a dense matrix, and v -> M^-1 v."""
    import numpy as np

    from solvers import preconditioners

    A = system.to_csr()
    M = preconditioners.create(preconditioner)
    M.update(system)
    return A @ M(np.eye(A.shape[0], dtype=system.dtype)), M


def smallest(B):
    """Orthonormal basis of the K eigenvectors of smallest modulus; all moduli, sorted.

    The columns are nested: the first kq span the invariant subspace of the kq smallest.
    """
    import numpy as np

    values, vectors = np.linalg.eig(B)
    order = np.argsort(np.abs(values))
    Q, _ = np.linalg.qr(vectors[:, order[:K]])
    return Q, np.abs(values)[order]


if __name__ == "__main__":
    main()
