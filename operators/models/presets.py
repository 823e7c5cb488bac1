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


_UNET = {"name": "unet", "in_channels": 1, "out_channels": 1}
_UNET_SOURCE = "LSM without its spectral blocks, the released code d5a0b40 for "
_LSM = {"name": "lsm", "in_channels": 1, "out_channels": 1}
_LSM_SOURCE = "Wu et al. (2023), released code d5a0b40: "
_NSL_SOURCE = "Neural-Solver-Library db942b7, coordinates among the channels: "
_IRREGULAR = {"name": "lsm_irregular", "out_channels": 1}
_MGNO = {"name": "mgno", "in_channels": 1, "out_channels": 1}
_MGNO_SOURCE = "He, Liu, Xu (2024), released code 3a68a90: "
_LI2021 = {
    "name": "fno",
    "out_channels": 1,
    "architecture": "li2021",
    "layout": "li2021",
    "endpoint": True,
}
_BATCH_NORM = {"norm": "batch", "activation": "relu"}
_LI2021_SOURCE = "Li et al. (2021), "
_LI2022 = _LI2021 | {"in_channels": 10, "architecture": "li2022"}
_LI2022_SOURCE = "Cao et al. (2025), released code 475c738, fno3d.py, "
_SFNO = {"name": "sfno", "in_channels": 1, "out_channels": 1}
_SFNO_RELEASED = _SFNO | {"compat": True}
_SFNO_SOURCE = "Cao et al. (2025), released code 475c738, sfno.py, "
_NEURALOP = {"name": "fno", "in_channels": 1, "out_channels": 1, "layout": "neuralop"}
_NEURALOP_SOURCE = "neuraloperator 2.0, "
_UNO2022 = {
    "name": "uno",
    "out_channels": 1,
    "architecture": "rahman2022",
    "layout": "li2021",
    "channels": 32,
    "lifting_channels": 16,
}
_UNO_FLOW = _UNO2022 | {
    "in_channels": 10,
    "coordinates": "periodic",
    "horizontal_skips": ((5, 1), (6, 0), (7, -1)),
}
_UNO_SOURCE = "Rahman et al. (2022), released code 19462d8, "

# Keys in alphabetical order; a name is <model>_<data>.
PRESETS: dict[str, Preset] = {
    "fno_burgers": Preset(
        _LI2021 | {"in_channels": 1, "modes": (16,), "channels": 64},
        549_569,
        _LI2021_SOURCE + "fourier_1d.py, without batch norm",
    ),
    "fno_burgers_batch_norm": Preset(
        _LI2021 | _BATCH_NORM | {"in_channels": 1, "modes": (16,), "channels": 64},
        550_081,
        _LI2021_SOURCE + "fourier_1d.py",
    ),
    "fno_darcy": Preset(
        _LI2021 | {"in_channels": 1, "modes": (12, 12), "channels": 32},
        2_368_001,
        _LI2021_SOURCE + "fourier_2d.py, without batch norm",
    ),
    "fno_darcy_batch_norm": Preset(
        _LI2021 | _BATCH_NORM | {"in_channels": 1, "modes": (12, 12), "channels": 32},
        2_368_257,
        _LI2021_SOURCE + "fourier_2d.py",
    ),
    "fno_navier_stokes": Preset(
        _LI2021 | {"in_channels": 10, "modes": (12, 12), "channels": 20},
        926_357,
        _LI2021_SOURCE + "fourier_2d_time.py, without batch norm",
    ),
    "fno_navier_stokes_3d": Preset(
        _LI2021 | {"in_channels": 10, "modes": (8, 8, 8), "channels": 20},
        6_558_377,
        _LI2021_SOURCE + "fourier_3d.py, without batch norm",
    ),
    "fno_navier_stokes_3d_batch_norm": Preset(
        _LI2021 | _BATCH_NORM | {"in_channels": 10, "modes": (8, 8, 8), "channels": 20},
        6_558_537,
        _LI2021_SOURCE + "fourier_3d.py",
    ),
    "fno_navier_stokes_3d_forced": Preset(
        _LI2022 | {"modes": (12, 12, 5), "channels": 20},
        9_224_137,
        _LI2022_SOURCE + "forced data; its projection has no activation",
    ),
    "fno_navier_stokes_3d_mcwilliams": Preset(
        _LI2022 | {"modes": (32, 32, 5), "channels": 10},
        16_386_997,
        _LI2022_SOURCE + "decaying turbulence; its projection has no activation",
    ),
    "fno_navier_stokes_8": Preset(
        _LI2021 | {"in_channels": 10, "modes": (8, 8), "channels": 20},
        414_357,
        _LI2021_SOURCE
        + "fourier_2d_time.py, modes of the published table, without batch norm",
    ),
    "fno_navier_stokes_8_batch_norm": Preset(
        _LI2021 | _BATCH_NORM | {"in_channels": 10, "modes": (8, 8), "channels": 20},
        414_517,
        _LI2021_SOURCE + "fourier_2d_time.py, modes of the published table",
    ),
    "fno_navier_stokes_batch_norm": Preset(
        _LI2021 | _BATCH_NORM | {"in_channels": 10, "modes": (12, 12), "channels": 20},
        926_517,
        _LI2021_SOURCE + "fourier_2d_time.py",
    ),
    "fno_neuralop_1d": Preset(
        _NEURALOP | {"modes": (16,), "channels": 64},
        345_665,
        _NEURALOP_SOURCE + "FNO, 1-D",
    ),
    "fno_neuralop_24": Preset(
        _NEURALOP | {"modes": (24, 24), "channels": 32},
        2_569_057,
        _NEURALOP_SOURCE + "FNO, 24 modes",
    ),
    "fno_neuralop_3d": Preset(
        _NEURALOP | {"modes": (8, 8, 8), "channels": 20},
        1_029_381,
        _NEURALOP_SOURCE + "FNO, 3-D",
    ),
    "fno_neuralop_cp": Preset(
        _NEURALOP
        | {"modes": (12, 12), "channels": 64, "factorization": "cp", "rank": 0.1},
        327_937,
        _NEURALOP_SOURCE + "FNO, CP weights",
    ),
    "fno_neuralop_darcy": Preset(
        _NEURALOP | {"modes": (8, 8), "channels": 24},
        191_881,
        _NEURALOP_SOURCE + "plot_FNO_darcy.py",
    ),
    "fno_neuralop_default": Preset(
        _NEURALOP | {"modes": (12, 12), "channels": 64},
        2_803_393,
        _NEURALOP_SOURCE + "docstring of FNO",
    ),
    "fno_neuralop_group_norm": Preset(
        _NEURALOP | {"modes": (12, 12), "channels": 64, "norm": "group"},
        2_804_417,
        _NEURALOP_SOURCE + "FNO, group norm",
    ),
    "fno_neuralop_medium": Preset(
        _NEURALOP | {"modes": (64, 64), "channels": 64, "projection_ratio": 4.0},
        69_265_345,
        _NEURALOP_SOURCE + "FNO_Medium2d",
    ),
    "fno_neuralop_no_mlp": Preset(
        _NEURALOP | {"modes": (12, 12), "channels": 64, "channel_mlp_expansion": 0.0},
        2_786_369,
        _NEURALOP_SOURCE + "FNO without channel MLP",
    ),
    "fno_neuralop_readme": Preset(
        _NEURALOP | {"in_channels": 2, "modes": (64, 64), "channels": 64},
        69_257_025,
        _NEURALOP_SOURCE + "README, FNO",
    ),
    "fno_neuralop_readme_tucker": Preset(
        _NEURALOP
        | {
            "in_channels": 2,
            "modes": (64, 64),
            "channels": 64,
            "factorization": "tucker",
            "rank": 0.1,
        },
        7_203_033,
        _NEURALOP_SOURCE + "README, TFNO",
    ),
    "fno_neuralop_separable": Preset(
        _NEURALOP | {"modes": (12, 12), "channels": 64, "separable": True},
        93_889,
        _NEURALOP_SOURCE + "FNO, separable",
    ),
    "fno_neuralop_small": Preset(
        _NEURALOP | {"modes": (16, 16), "channels": 24},
        671_113,
        _NEURALOP_SOURCE + "FNO_Small2d",
    ),
    "fno_neuralop_tucker": Preset(
        _NEURALOP
        | {"modes": (12, 12), "channels": 64, "factorization": "tucker", "rank": 0.1},
        362_017,
        _NEURALOP_SOURCE + "FNO, Tucker weights",
    ),
    "fno_nns_to_nos": Preset(
        _NEURALOP
        | {
            "modes": (64, 64),
            "channels": 62,
            "lifting_ratio": 4.13,
            "projection_ratio": 4.13,
        },
        65_013_187,
        _NEURALOP_SOURCE + "NNs-to-NOs 892ba1c",
    ),
    "lsm_airfoil": Preset(
        _LSM | {"in_channels": 2, "channels": 32}, 4_812_833, _LSM_SOURCE + "airfoil"
    ),
    "lsm_darcy": Preset(_LSM, 19_187_457, _LSM_SOURCE + "Darcy"),
    "lsm_elasticity_grid": Preset(
        _LSM | {"channels": 32}, 4_812_801, _LSM_SOURCE + "elasticity on a grid"
    ),
    "lsm_irregular_elasticity": Preset(
        _IRREGULAR | {"in_channels": 44, "code_channels": 42, "geofno_compat": True},
        6_043_939,
        _LSM_SOURCE + "elasticity at points, 5,402,785 + 63,746 with complex weights "
        "counted once (- 589,824) and a layer that is never used (+ 12,416)",
    ),
    "lsm_irregular_elasticity_nsl": Preset(
        _IRREGULAR
        | {
            "in_channels": 2,
            "geofno_compat": True,
            "coordinate_skips": False,
            "lifting_hidden": 64,
            "projection_hidden": 64,
        },
        6_054_787,
        _NSL_SOURCE + "elasticity, 5,466,339 with complex weights counted once "
        "(- 589,824) and a layer that is never used (+ 1,376)",
    ),
    "lsm_navier_stokes": Preset(
        _LSM | {"in_channels": 10}, 19_188_033, _LSM_SOURCE + "Navier-Stokes"
    ),
    "lsm_nsl_airfoil": Preset(
        _LSM
        | {
            "in_channels": 2,
            "channels": 32,
            "coordinates": "none",
            "lifting_hidden": 64,
            "projection_hidden": 64,
        },
        4_812_769,
        _NSL_SOURCE + "airfoil and pipe",
    ),
    "lsm_nsl_darcy": Preset(
        _LSM | {"in_channels": 3, "coordinates": "none", "lifting_hidden": 128},
        19_195_969,
        _NSL_SOURCE + "Darcy",
    ),
    "lsm_nsl_navier_stokes": Preset(
        _LSM
        | {
            "in_channels": 12,
            "coordinates": "none",
            "lifting_hidden": 128,
            "norm": "instance_affine",
        },
        19_197_121,
        _NSL_SOURCE + "Navier-Stokes",
    ),
    "lsm_pipe": Preset(
        _LSM | {"in_channels": 2, "channels": 48}, 10_804_913, _LSM_SOURCE + "pipe"
    ),
    "lsm_plasticity": Preset(
        _LSM | {"num_axes": 3, "out_channels": 4, "channels": 32},
        13_457_828,
        _LSM_SOURCE + "plasticity",
    ),
    "lsm_small": Preset(
        _LSM | {"channels": 16}, 1_211_265, _LSM_SOURCE + "width 16, for comparisons"
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
    "sfno_forced": Preset(
        _SFNO_RELEASED | {"width": 20, "modes": (12, 12, 5), "out_steps": 40},
        9_242_461,
        _SFNO_SOURCE + "forced data",
    ),
    "sfno_mcwilliams": Preset(
        _SFNO_RELEASED | {"width": 10, "modes": (32, 32, 5)},
        16_469_791,
        _SFNO_SOURCE + "decaying turbulence",
    ),
    "unet_airfoil": Preset(
        _UNET | {"in_channels": 2, "channels": 32}, 4_332_289, _UNET_SOURCE + "airfoil"
    ),
    "unet_darcy": Preset(_UNET, 17_310_913, _UNET_SOURCE + "Darcy"),
    "unet_elasticity_grid": Preset(
        _UNET | {"channels": 32}, 4_332_257, _UNET_SOURCE + "elasticity on a grid"
    ),
    "unet_navier_stokes": Preset(
        _UNET | {"in_channels": 10}, 17_311_489, _UNET_SOURCE + "Navier-Stokes"
    ),
    "unet_pipe": Preset(
        _UNET | {"in_channels": 2, "channels": 48}, 9_740_801, _UNET_SOURCE + "pipe"
    ),
    "unet_plasticity": Preset(
        _UNET | {"num_axes": 3, "out_channels": 4, "channels": 32},
        12_977_284,
        _UNET_SOURCE + "plasticity",
    ),
    "uno_darcy": Preset(
        {
            "name": "uno",
            "in_channels": 1,
            "out_channels": 1,
            "layout": "neuralop",
            "projection_channels": 64,
            "block_activation": "none",
        },
        1_405_761,
        "neuralop 2.0.0, examples/models/plot_UNO_darcy.py; on its 16 x 16 points "
        "245,760 never act, of modes that the inner grids do not resolve",
    ),
    "uno_darcy_2022": Preset(
        _UNO2022
        | {
            "in_channels": 1,
            "modes": ((18, 18), (8, 8), (8, 8), (8, 8), (18, 18)),
            "fractions": (0.5, 0.25, 0.25, 0.5, 1),
            "layer_channels": (64, 128, 128, 64, 32),
            "projection_channels": 32,
            "horizontal_skips": ((4, 0), (5, -1)),
            "norm": "instance_affine",
            "norm_layers": (1, 3),
            "endpoint": True,
            "domain_padding": 1 / 14,
        },
        16_393_665,
        _UNO_SOURCE + "UNO_9; there 5 zeros on 85 points, 25 on 421",
    ),
    "uno_navier_stokes": Preset(
        _UNO_FLOW
        | {
            "modes": tuple((m, m) for m in (22, 14, 6, 6, 6, 14, 22)),
            "fractions": (0.75, 0.5, 0.25, 0.25, 0.5, 0.75, 1),
            "layer_channels": (48, 96, 192, 192, 96, 48, 32),
            "projection_channels": 128,
        },
        30_478_033,
        _UNO_SOURCE + "navier_stokes_uno2d.py, UNO",
    ),
    "uno_navier_stokes_256": Preset(
        _UNO_FLOW
        | {
            "modes": ((32, 33), (8, 9), (4, 5), (4, 5), (4, 5), (8, 9), (32, 32)),
            "fractions": (1 / 4, 1 / 16, 1 / 32, 1 / 32, 1 / 16, 1 / 4, 1),
            "layer_channels": (64, 128, 256, 256, 128, 64, 32),
            "projection_channels": 96,
            "input_skip": True,
        },
        43_161_473,
        _UNO_SOURCE + "navier_stokes_uno2d.py, UNO_S256; on its 256 x 256 points "
        "4,980,736 never act, of modes at the Nyquist frequency of a layer's grid or "
        "above, the former of which the official code uses",
    ),
    "uno_navier_stokes_p": Preset(
        _UNO_FLOW
        | {
            "modes": tuple((m, m) for m in (14, 6, 3, 3, 3, 6, 14)),
            "fractions": (1 / 2, 1 / 4, 1 / 8, 1 / 8, 1 / 4, 1 / 2, 1),
            "layer_channels": (64, 128, 256, 256, 128, 64, 32),
            "projection_channels": 96,
            "input_skip": True,
        },
        13_244_289,
        _UNO_SOURCE + "navier_stokes_uno2d.py, UNO_P",
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
