"""Says as JSON what a data config will make, before any sample is drawn.

    python -m datagen.describe --config configs/data/darcy_multiscale.py:small

`train.py` asks this process for the points and the fields of data that do not exist
yet: it cannot build the problem itself, because problems need float64.
"""

import json
import sys
from typing import Any

from configs import loading
from datagen.plan import PlanError, create_problem


def describe(config) -> dict[str, Any]:
    """What the manifest of the data set will say of its points and fields.

    Args:
        config: a data config.

    Returns:
        `name`, `coordinates` (axis -> numbers), `num_dims` (coordinates of a point),
        `fields` (dicts of name and time_varying), `steps` and `step_name`.
    """
    problem = create_problem(config["problem"])
    mesh = getattr(problem, "mesh", None)
    values = getattr(problem, "steps", None)
    return {
        "name": config["name"],
        "coordinates": {
            axis: [float(v) for v in problem.coordinates[axis]] for axis in problem.axes
        },
        "num_dims": len(problem.axes) if mesh is None else mesh.points.shape[1],
        "fields": [
            {"name": field.name, "time_varying": field.time_varying}
            for field in problem.fields
        ],
        "steps": [0.0] if values is None else [float(v) for v in values],
        "step_name": getattr(problem, "step_name", "time"),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    try:
        config, _ = loading.from_arguments(sys.argv[1:] if argv is None else argv)
        json.dump(describe(config), sys.stdout)
    except (loading.ConfigError, PlanError) as error:
        print("datagen:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
