"""Picture of `benchmarks.solvers` for the docs: who wins where.

uv run -m benchmarks.solver_figures --solvers out.json --out docs
"""

import argparse
import json
import pathlib

OURS = {  # method -> (colour, marker)
    "mg_pcg": ("C0", "o"),
    "fft_pcg": ("C2", "s"),
    "fast_direct": ("C4", "D"),
    "direct": ("C1", "^"),
    "auto": ("k", "|"),
}
PEERS = {  # how the methods of other codes are grouped
    "factorisation": ("mumps", "cholmod", "pardiso", "spsolve"),
    "algebraic multigrid": ("gamg", "pyamg"),
    "incomplete factors": ("icc",),
    "transform": ("dst",),
}
MARKERS = dict(zip(PEERS, "vPx*", strict=True))


def main(argv: list[str] | None = None) -> None:
    """Draws docs/solvers.png from the JSON of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--solvers", required=True, help="JSON of benchmarks.solvers")
    parser.add_argument("--out", default="docs", help="folder of the picture")
    args = parser.parse_args(argv)
    rows = json.loads(pathlib.Path(args.solvers).read_text())["rows"]
    draw(rows, pathlib.Path(args.out) / "solvers.png")


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Milliseconds per system of every method, one line per problem.

    Args:
        rows: as the benchmark writes them.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    problems = list(dict.fromkeys(row["problem"] for row in rows))
    figure = Figure(figsize=(9, 0.36 * len(problems) + 1.6), layout="constrained")
    ax = figure.subplots()
    for place, problem in enumerate(problems):
        here = [row for row in rows if row["problem"] == problem and row["accepted"]]
        _draw_line(ax, place, here)
    ax.set_yticks(
        range(len(problems)), [_label(rows, problem) for problem in problems], size=8
    )
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="milliseconds per system, set-up included, one core")
    ax.grid(alpha=0.3, axis="x", which="both")
    ax.spines[["top", "right"]].set_visible(False)
    _add_legend(ax)
    figure.suptitle(
        "Time to a true residual of 1e-8; number: best other code / best of ours",
        size=10,
    )
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


def _draw_line(ax, place, rows):
    """The methods of one problem, and by how much ours lead."""
    ours = {r["method"]: r["seconds"] for r in rows if r["method"] in OURS}
    peers = {}
    for group, words in PEERS.items():
        times = [
            row["seconds"]
            for row in rows
            if row["is_peer"] and any(word in row["method"] for word in words)
        ]
        if times:
            peers[group] = min(times)
    for group, seconds in peers.items():
        ax.plot(1e3 * seconds, place, MARKERS[group], color="0.45", ms=6)
    for method, seconds in ours.items():
        color, marker = OURS[method]
        ax.plot(1e3 * seconds, place, marker, color=color, ms=7, mew=1.5)
    if ours and peers:
        best, other = min(ours.values()), min(peers.values())
        ax.plot([1e3 * best, 1e3 * other], [place] * 2, color="0.8", lw=3, zorder=0)
        ax.annotate(
            f"{other / best:.1f}x",
            (1e3 * max([*ours.values(), *peers.values()]), place),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            size=8,
        )


def _label(rows, problem):
    row = next(row for row in rows if row["problem"] == problem)
    side, size = row["n"], row["num_unknowns"]
    dims = 3 if side**3 == size else 2
    words = [word for word in problem.split("_") if word not in ("3d", str(side))]
    return f"{' '.join(words)}, {side}" + {2: "²", 3: "³"}[dims]


def _add_legend(ax):
    for method, (color, marker) in OURS.items():
        ax.plot([], [], marker, color=color, label=method)
    for group, marker in MARKERS.items():
        ax.plot([], [], marker, color="0.45", label=f"best other {group}")
    ax.legend(
        fontsize=8, frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.42, 1)
    )


if __name__ == "__main__":
    main()
