"""Official configurations by name, with the parameter counts that they must have.

For each: what `operators.models.create` takes, and where the configuration and its
count come from. `python -m operators.models --preset NAME` prints the table.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Preset:
    """One official configuration.

    Attributes:
        hparams: `name` of the model and its keyword arguments.
        parameters: exact number of real parameters, complex ones counted twice.
        source: publication or released code, and what differs there.
    """

    hparams: dict[str, Any]
    parameters: int
    source: str


_MGNO = {"name": "mgno", "in_channels": 1, "out_channels": 1}
_MGNO_SOURCE = "He, Liu, Xu (2024), released code 3a68a90: "
_LI2021 = {"name": "fno", "layout": "li2021", "out_channels": 1}

# Keys in alphabetical order; a name is <model>_<data>.
PRESETS: dict[str, Preset] = {
    "fno_burgers": Preset(
        _LI2021 | {"in_channels": 1, "modes": (16,), "channels": 64},
        549_569,
        "Li et al. (2021), fourier_1d.py without batch norm",
    ),
    "fno_darcy": Preset(
        _LI2021 | {"in_channels": 1, "modes": (12, 12), "channels": 32},
        2_368_001,
        "Li et al. (2021), fourier_2d.py without batch norm",
    ),
    "mgno_darcy_rough": Preset(
        _MGNO | {"grid": (256, 256), "num_layers": 4},
        572_661,
        _MGNO_SOURCE + "Darcy rough and multiscale (published: 0.57 M)",
    ),
    "mgno_darcy_smooth": Preset(
        _MGNO | {"grid": (211, 211)}, 678_093, _MGNO_SOURCE + "Darcy smooth"
    ),
    "mgno_helmholtz": Preset(
        _MGNO
        | {
            "grid": (101, 101),
            "channels": 20,
            "num_layers": 4,
            "cycle": (*((1, 0),) * 4, (2, 0)),
            "widening": (1, 2, 3, 4, 5),
            "boundary": "reflect",
            "use_bias": True,
            "norm": "cycle",
            "skip": "none",
            "head": "cycle",
            "unused_first_A": True,
        },
        5_351_806,
        _MGNO_SOURCE + "Helmholtz; 11,241 of the first A of each cycle never act",
    ),
    "mgno_navier_stokes": Preset(
        _MGNO
        | {
            "grid": (64, 64),
            "channels": 32,
            "cycle": (*((1, 0),) * 3, *((2, 0),) * 2),
            "boundary": "periodic",
            "use_bias": True,
            "norm": "prolongation",
            "skip": "none",
            "residual": True,
        },
        2_885_194,
        _MGNO_SOURCE + "Navier-Stokes, as released not exactly periodic",
    ),
    "mgno_pipe": Preset(
        _MGNO
        | {
            "in_channels": 2,
            "grid": (128, 128),
            "cycle": (*((1, 0),) * 4, (1, 1), (2, 0)),
        },
        783_876,
        _MGNO_SOURCE + "pipe",
    ),
}


def get(name: str) -> Preset:
    """Returns the preset called `name`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}; known: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
