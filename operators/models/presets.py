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
}


def get(name: str) -> Preset:
    """Returns the preset called `name`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}; known: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
