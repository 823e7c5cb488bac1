"""Pictures of `benchmarks.recycling` and `benchmarks.recycling_scan` for the docs.

uv run -m benchmarks.recycling_figures --recycling out.json --scan scan.json --out docs
"""

import argparse
import json
import pathlib

SHOWN = {
    "cg": ("CG", "0.6", ":"),
    "gcrodr_cold": ("GCRO-DR, cold", "C3", ":"),
    "skr (unsorted)": ("GCRO-DR, recycled, unsorted", "C1", "-"),
    "skr (sorted)": ("GCRO-DR, recycled, sorted", "C0", "-"),
    "deflated_cg": ("deflated CG, one pool", "C2", "-"),
}
PANELS = {
    "composites_2d": "Inclusions of fixed layout",
    "composites_jittered": "Inclusions that move",
    "darcy_grf": "Smooth log-normal Darcy flow",
}


def main(argv: list[str] | None = None) -> None:
    """Draws the pictures from the JSON of the two benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recycling", required=True, help="JSON of the cases")
    parser.add_argument("--scan", required=True, help="JSON of the scan")
    parser.add_argument("--out", default="docs", help="folder of the pictures")
    args = parser.parse_args(argv)
    out = pathlib.Path(args.out)
    draw_sequences(_load(args.recycling), out / "recycling_sequences.png")
    draw_scan(_load(args.scan)["rows"], out / "recycling_scan.png")


def draw_sequences(content: dict, path: pathlib.Path) -> None:
    """Products with A along a sequence, one panel per case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(PANELS))
    for ax, (name, title) in zip(panels, PANELS.items(), strict=True):
        for label, (legend, color, style) in SHOWN.items():
            counts = content["curves"][name][label]
            places, values = zip(*counts, strict=True)
            few = len(counts) < len(content["curves"][name]["cg"])
            style = "o" if few else style
            ax.plot(places, values, style, color=color, label=legend, ms=3, lw=1.3)
        ax.set(title=title, xlabel="place in the sequence", yscale="log")
        ax.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("products with A per system")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def draw_scan(rows: list[dict], path: pathlib.Path) -> None:
    """Speed-up of the pool against contrast, size and number of systems."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    by_contrast, by_size, by_number = figure.subplots(1, 3)
    for dims, n, color in ((2, 128, "C0"), (3, 24, "C2")):
        ours = [row for row in rows if row["dims"] == dims]
        same_n = sorted(
            (row for row in ours if row["n"] == n), key=lambda row: row["contrast"]
        )
        same_contrast = sorted(
            (row for row in ours if row["contrast"] == 1e4), key=lambda row: row["n"]
        )
        _lines(by_contrast, same_n, "contrast", f"{dims}-D, n = {n}", color)
        _lines(by_size, same_contrast, "n", f"{dims}-D, contrast 1e4", color)
        for row in same_contrast:
            nums = [int(num) for num in row["speedup"]]
            label = f"{dims}-D, n = {row['n']}"
            style = {"color": color, "alpha": 0.4 + 0.2 * same_contrast.index(row)}
            by_number.plot(nums, row["speedup"].values(), "o-", label=label, **style)
    by_contrast.set(xscale="log", xlabel="largest contrast", ylabel="speed-up")
    by_size.set(xlabel="cells per axis")
    by_number.set(xlabel="systems per pool, harvest included")
    for ax in (by_contrast, by_size, by_number):
        ax.axhline(1, color="0.5", lw=0.8)
        ax.legend(fontsize=7, frameon=False)
        ax.grid(alpha=0.3)
    figure.suptitle(
        "Deflated CG with a pool: time against the best installable iterative peer "
        "(solid) and against CG + ICC(0) (dashed)",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def _lines(ax, rows, key, label, color):
    x = [row[key] for row in rows]
    ax.plot(x, [r["speedup_steady"] for r in rows], "o-", color=color, label=label)
    against_cg = [r["seconds"]["petsc_cg_icc"] / r["seconds_pool_later"] for r in rows]
    ax.plot(x, against_cg, "o--", color=color, alpha=0.5)


def _load(path: str) -> dict:
    return json.loads(pathlib.Path(path).read_text())


if __name__ == "__main__":
    main()
