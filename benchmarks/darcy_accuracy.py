"""How accurate the Darcy data are: the tables of docs/data.md.

    uv run -m benchmarks.darcy_accuracy            # about four minutes on one core
    uv run -m benchmarks.darcy_accuracy --num 2    # a look

Prints the observed order for a known solution, the statistics of the sampled fields
and solutions, the discretisation error against a grid of 841 x 841 nodes, the distance
between the two modes and what the spline of mode fno_compat does to the coefficient.
"""

import argparse

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from datagen import problems
from datagen.problems.base import Problem, Sample
from datagen.problems.darcy import diffusion_operator
from solvers.sequence import LinearSystem, create


def rng(sample_id: int) -> np.random.Generator:
    """Random stream of one sample of this benchmark."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([7, sample_id])))


def solve(problem: Problem, sample: Sample) -> np.ndarray:
    """Stored solution of one sample, by the sparse direct solver."""
    x, record = create("direct").solve(problem.system(sample), rtol=1e-8)
    if not record.converged:
        raise RuntimeError(record.status)
    return problem.fields_from_solution(sample, x)["solution"]


def manufactured(shape: tuple[int, int], face_mean: str) -> float:
    """Largest error for u = sin(pi x) sin(2 pi y), a = 2 + x + y^2."""
    x, y = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    (sx, cx), (sy, cy) = ((np.sin(t), np.cos(t)) for t in (np.pi * x, 2 * np.pi * y))
    a = 2 + x + y**2
    f = 5 * np.pi**2 * a * sx * sy - np.pi * cx * sy - 4 * np.pi * y * sx * cy
    spacing = (1 / (shape[0] - 1), 1 / (shape[1] - 1))
    operator = diffusion_operator(a, spacing, face_mean)
    u, _ = create("direct").solve(LinearSystem(operator, f[1:-1, 1:-1]), rtol=1e-10)
    return float(np.abs(u - (sx * sy)[1:-1, 1:-1]).max())


def statistics(num: int, **settings) -> str:
    """Means over `num` samples of the moments of u and of the share of phase 1."""
    problem = problems.create("darcy", **settings)
    rows, edges = [], []
    for i in range(num):
        sample = problem.sample(rng(i))
        u = solve(problem, sample)
        phase = np.mean(sample["coefficient"] >= max(problem.values or (1.0,)))
        rows.append([u.mean(), u.std(), u.max(), phase])
        edges.append(np.abs(np.concatenate([u[0], u[-1], u[:, 0], u[:, -1]])).mean())
    mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
    low, high = np.min(rows, axis=0)[3], np.max(rows, axis=0)[3]
    return (
        f"mean u {mean[0]:.5f} (spread {spread[0]:.5f}), std inside {mean[1]:.5f}, "
        f"max {mean[2]:.4f}, edge {np.mean(edges):.1e}, "
        f"share of phase 1 {mean[3]:.3f} ({low:.2f} to {high:.2f})"
    )


def relative(u: np.ndarray, reference: np.ndarray) -> float:
    """Relative L2 distance of two fields at the same points."""
    return float(np.linalg.norm(u - reference) / np.linalg.norm(reference))


def discretisation(num: int, num_modes: int, **settings) -> dict[int, list[float]]:
    """Relative L2 errors against 841 nodes for the very same fields."""
    errors: dict[int, list[float]] = {43: [], 85: [], 211: [], 421: []}
    settings = {"num_modes": num_modes, **settings}
    fine = problems.create("darcy", n=841, **settings)
    for i in range(num):
        reference = solve(fine, fine.sample(rng(i)))
        for n, found in errors.items():
            problem = problems.create("darcy", n=n, **settings)
            stride = 840 // (n - 1)
            u = solve(problem, problem.sample(rng(i)))
            found.append(relative(u, reference[::stride, ::stride]))
    return errors


def between_modes(num: int, n: int, face_mean: str, **settings) -> list[float]:
    """Distances of the clean solution from fno_compat's for the same arrays a."""
    compatible = problems.create("darcy", n=n, mode="fno_compat", **settings)
    clean = problems.create("darcy", n=n, face_mean=face_mean, **settings)
    distances = []
    for i in range(num):
        sample = compatible.sample(rng(i))
        distances.append(relative(solve(clean, sample), solve(compatible, sample)))
    return distances


def between_means(num: int, n: int) -> list[float]:
    """Distances of the two face means in mode clean, for the same fields."""
    harmonic = problems.create("darcy", n=n)
    arithmetic = problems.create("darcy", n=n, face_mean="arithmetic")
    samples = [harmonic.sample(rng(i)) for i in range(num)]
    return [relative(solve(arithmetic, s), solve(harmonic, s)) for s in samples]


def overshoot(num: int, n: int) -> str:
    """What the spline of mode fno_compat does to the face coefficients."""
    problem = problems.create("darcy", n=n, mode="fno_compat")
    inside, rim, indefinite = [], [], 0
    for i in range(num):
        A = problem.system(problem.sample(rng(i))).operator
        sides = -A.coefficients[0, ..., 1:] / (n - 1) ** 2
        inside.append(sides[1:-1, 1:-1])
        # Faces to edge nodes stand in the diagonal only: what the row sums leave,
        # corners left out, where there are two of them.
        excess = A.coefficients[0, ..., 0] / (n - 1) ** 2 - sides.sum(axis=-1)
        edges = [excess[0], excess[-1], excess[:, 0], excess[:, -1]]
        rim.append(np.concatenate([edge[1:-1] for edge in edges]))
        indefinite += num_negative_pivots(A.to_csr()) > 0
    return (
        f"faces inside {np.min(inside):.2f} to {np.max(inside):.2f}, at the edge "
        f"{np.min(rim):.2f} to {np.max(rim):.2f}; negative ones per sample: inside "
        f"{np.sum(np.array(inside) < 0) / 2 / num:.1f}, at the edge "
        f"{np.sum(np.array(rim) < 0) / num:.1f}; indefinite matrices {indefinite}"
    )


def num_negative_pivots(A: sp.csr_array) -> int:
    """Negative eigenvalues of a symmetric A, by the pivots of LU without row swaps."""
    settings = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0}
    lu = spla.splu(A.tocsc(), options={"SymmetricMode": True}, **settings)
    if not np.array_equal(lu.perm_r, lu.perm_c):
        raise RuntimeError("SuperLU swapped rows: the signs of its pivots say nothing")
    return int(np.sum(lu.U.diagonal() < 0))


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, help="samples per figure, at most")
    limit = parser.parse_args().num or 10**9
    for face_mean in ("harmonic", "arithmetic"):
        shapes = [(17, 25), (33, 49), (65, 97), (129, 193)]
        errors = [manufactured(shape, face_mean) for shape in shapes]
        orders = np.log2(np.divide(errors[:-1], errors[1:]))
        print(
            f"manufactured, {face_mean}: {shapes}: errors {np.array(errors)}, ", end=""
        )
        print(f"orders {np.round(orders, 3)}")
    rough = {"tau": 5.0, "values": (12.0, 2.0)}
    lognormal = {"coefficient": "lognormal"}
    for title, num, settings in (
        ("smooth, clean, 211", 80, {"n": 211}),
        ("smooth, fno_compat, 211", 80, {"n": 211, "mode": "fno_compat"}),
        ("smooth, clean, 421", 6, {"n": 421}),
        ("smooth, fno_compat, 421", 6, {"n": 421, "mode": "fno_compat"}),
        ("rough, clean, 257", 40, {"n": 257, **rough}),
        ("rough, fno_compat, 256", 40, {"n": 256, "mode": "fno_compat", **rough}),
        ("lognormal, clean, 211", 40, {"n": 211, **lognormal}),
    ):
        num = min(num, limit)
        print(f"{title}, {num} samples: {statistics(num, **settings)}", flush=True)
    for title, settings in (
        ("smooth, harmonic", {}),
        ("smooth, arithmetic", {"face_mean": "arithmetic"}),
        ("rough, harmonic", rough),
        ("lognormal, harmonic", lognormal),
    ):
        errors = discretisation(min(4, limit), 421, **settings)
        row = ", ".join(f"{n}: {np.mean(e):.3%}" for n, e in errors.items())
        print(f"error against 841 nodes, {title}: {row}", flush=True)
    for face_mean in ("arithmetic", "harmonic"):
        for n in (85, 211, 421):
            distances = between_modes(min(6, limit), n, face_mean)
            print(f"clean {face_mean} - fno_compat, {n}: {np.mean(distances):.2%}")
    for n in (129, 421):
        distances = between_means(min(4, limit), n)
        print(f"arithmetic - harmonic, {n}: {np.mean(distances):.2%}")
    for n in (85, 211, 421):
        num = min(20, limit)
        print(f"fno_compat, {n}, {num} samples: {overshoot(num, n)}", flush=True)


if __name__ == "__main__":
    main()
