import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from operators import models
from operators.layers.cycle_settings import CycleSettings
from operators.layers.multigrid import VCycle
from operators.layers.resampling import resample

SIX_LEVELS = (*((1, 0),) * 5, (2, 0))
MIXED = ((2, 1), (1, 2), (0, 1), (2, 0))
BOUNDARIES = [
    ("zero", "official"), ("reflect", "official"), ("periodic", "official"),
    ("periodic", "wrap"),
]  # fmt: skip


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def v_cycle(grid, cycle, *, inputs=2, channels=3, dtype=jnp.float32, **settings):
    return VCycle(
        inputs, channels, settings=CycleSettings(cycle, **settings), grid=grid,
        param_dtype=dtype, rngs=nnx.Rngs(0),
    )  # fmt: skip


def filled(make):
    """The module of make() with other random parameters, drawn without compiling."""
    graph, state = nnx.split(nnx.eval_shape(make))
    leaves, tree = jax.tree.flatten(state)
    leaves = [
        jnp.asarray(0.4 * draw(*leaf.shape, seed=i), leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return nnx.merge(graph, jax.tree.unflatten(tree, leaves))


def num_parameters(module):
    return sum(p.size for p in jax.tree.leaves(nnx.state(module, nnx.Param)))


def count(**hparams):
    return num_parameters(
        nnx.eval_shape(lambda: models.create("mgno", rngs=nnx.Rngs(0), **hparams))
    )


# An independent evaluation: plain loops over levels, NumPy sums tap by tap.
def ends(u, width):
    return ((0, 0), *[(width, width)] * (u.ndim - 2), (0, 0))


def correlate(u, kernel, stride, mode):
    if mode is not None:
        u = np.pad(u, ends(u, 1), mode=mode)
    total = 0
    for taps in np.ndindex(*kernel.shape[:-2]):
        points = [
            slice(t, n - 2 + t, stride)
            for t, n in zip(taps, u.shape[1:-1], strict=True)
        ]
        total = total + u[(slice(None), *points)] @ kernel[taps]
    return total


def prolong(u, kernel, crop, wrap):
    if wrap:
        u, crop = np.pad(u, ends(u, 1), mode="wrap"), crop + 2
    coarse, sizes = u.shape[1:-1], kernel.shape[:-2]
    fine = [2 * (m - 1) + k for m, k in zip(coarse, sizes, strict=True)]
    out = np.zeros((len(u), *fine, kernel.shape[-1]))
    for taps in np.ndindex(*sizes):
        points = [slice(t, t + 2 * m, 2) for t, m in zip(taps, coarse, strict=True)]
        out[(slice(None), *points)] += u @ kernel[taps]
    return out[(slice(None), *(slice(crop, n - crop) for n in fine))]


def normalise(u, weights):
    axes = tuple(range(1, u.ndim))
    u = (u - u.mean(axes, keepdims=True)) / np.sqrt(u.var(axes, keepdims=True) + 1e-5)
    return u * weights["scale"] + weights["bias"]


def cycle_by_hand(module, f, boundary, wrap):
    weights = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module)))
    mode = {"zero": "constant", "reflect": "reflect", "periodic": "wrap"}[boundary]
    restriction = None if boundary == "reflect" else mode

    def smooth(steps, u, f):
        for i in sorted(steps):
            r = f
            if u is not None:
                r = f - correlate(u, steps[i]["A"]["kernel"], 1, mode)
            du = correlate(r, steps[i]["S"]["kernel"], 1, mode)
            u = du if u is None else u + du
        return u

    levels = len(weights["R"]) + 1
    u, us, fs = None, [], []
    for level in range(levels):
        if level:
            if "A" in weights:
                f = f - correlate(u, weights["A"][level - 1]["kernel"], 1, mode)
            u = correlate(u, weights["Pi"][level - 1]["kernel"], 2, restriction)
            f = correlate(f, weights["R"][level - 1]["kernel"], 2, restriction)
        u = smooth(weights["pre"].get(level, {}), u, f)
        us.append(u), fs.append(f)
    for level in range(levels - 2, -1, -1):
        crop = 0 if boundary == "reflect" else 1
        e = prolong(u, weights["P"][level]["kernel"], crop, wrap)
        points = [slice(n) for n in us[level].shape[1:-1]]
        u = us[level] + e[(slice(None), *points)]
        if "norms" in weights:
            u = normalise(u, weights["norms"][level])
        u = smooth(weights["post"].get(level, {}), u, fs[level])
    return u


@pytest.mark.parametrize(("boundary", "prolongation"), BOUNDARIES)
@pytest.mark.parametrize(
    ("sizes", "grid"), [("official", (32, 37)), ("crop", (35, 30))]
)
def test_cycle_equals_its_sums_and_is_linear(boundary, prolongation, sizes, grid):
    grid = (32, 40) if prolongation == "wrap" else grid
    with jax.enable_x64(True):
        cycle = filled(
            lambda: v_cycle(
                grid, MIXED, boundary=boundary, prolongation=prolongation,
                sizes=sizes, dtype=jnp.float64,
            )
        )  # fmt: skip
        apply = jax.jit(lambda cycle, f: cycle(f))
        f, g = draw(2, *grid, 2), draw(2, *grid, 2, seed=1)
        expected = cycle_by_hand(cycle, f, boundary, prolongation == "wrap")
        scale = np.abs(expected).max()
        out = apply(cycle, f)
        assert out.shape == (2, *grid, 3)
        np.testing.assert_allclose(out, expected, atol=1e-13 * scale)
        np.testing.assert_allclose(
            apply(cycle, 2 * f - 3 * g), 2 * out - 3 * apply(cycle, g),
            atol=1e-13 * scale,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("grid", "settings"),
    [
        (
            (9,),
            {"restriction": "residual", "norm": "prolongation", "widening": (1, 3, 2)},
        ),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ((20,), {"boundary": "periodic", "prolongation": "wrap"}),
                ((21,), {"boundary": "reflect", "unused_first_A": True}),
                ((7, 10, 9), {"sizes": "crop"}),
                ((12, 9), {"norm": "prolongation", "widening": (1, 2, 2)}),
            )
        ),
    ],
)
def test_cycle_in_other_forms_equals_its_sums(grid, settings):
    with jax.enable_x64(True):
        steps = ((1, 1), (1, 0), (2, 0))
        cycle = filled(lambda: v_cycle(grid, steps, dtype=jnp.float64, **settings))
        f = draw(2, *grid, 2)
        expected = cycle_by_hand(
            cycle, f, settings.get("boundary", "zero"), "prolongation" in settings
        )
        out = jax.jit(lambda cycle, f: cycle(f))(cycle, f)
        assert out.shape == (2, *grid, 3)
        np.testing.assert_allclose(out, expected, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("n", [64, 85, 101, 141, 211, 241, 256, 421])
@pytest.mark.parametrize("sizes", ["official", "crop"])
def test_output_has_the_grid_of_the_input(n, sizes):
    for boundary, prolongation in BOUNDARIES:
        levels = SIX_LEVELS[1:] if boundary == "reflect" else SIX_LEVELS
        if prolongation == "wrap" and n % 32:
            continue
        width = n + (32 if prolongation == "wrap" else 1)
        build = functools.partial(
            v_cycle, (n, width), levels, boundary=boundary, prolongation=prolongation,
            sizes=sizes,
        )  # fmt: skip
        x = jnp.ones((2, n, width, 2))
        out = nnx.eval_shape(lambda build=build, x=x: build()(x))
        assert out.shape == (2, n, width, 3)


@pytest.mark.parametrize(
    ("n", "levels", "boundary", "chain", "taps"),
    [
        (256, 6, "zero", (256, 128, 64, 32, 16, 8), (4, 4, 4, 4, 4)),
        (211, 6, "zero", (211, 106, 53, 27, 14, 7), (3, 4, 3, 3, 4)),
        (101, 5, "reflect", (101, 50, 24, 11, 5), (3, 4, 4, 3)),
        (421, 7, "periodic", (421, 211, 106, 53, 27, 14, 7), (3, 3, 4, 3, 3, 4)),
        (141, 6, "zero", (141, 71, 36, 18, 9, 5), (3, 3, 4, 4, 3)),
        (85, 6, "zero", (85, 43, 22, 11, 6, 3), (3, 3, 4, 3, 4)),
        (241, 6, "zero", (241, 121, 61, 31, 16, 8), (3, 3, 3, 3, 4)),
    ],
)
def test_chains_of_sizes(n, levels, boundary, chain, taps):
    settings = CycleSettings(((1, 0),) * levels, boundary=boundary)
    assert tuple(g[0] for g in settings.level_grids((n, n))) == chain
    assert tuple(k[1] for k in settings.prolongation_sizes((n, n))) == taps


def shift_error(cycle, n, steps):
    """How far a cycle in 1-D is from commuting with a shift, relative."""
    f = jnp.asarray(draw(2, n, 2), jnp.float32)
    apply = jax.jit(lambda f: cycle(f))
    out = apply(f)
    error = apply(jnp.roll(f, steps, 1)) - jnp.roll(out, steps, 1)
    return jnp.linalg.norm(error) / jnp.linalg.norm(out)


def test_exactly_periodic_with_wrap_and_no_odd_level_only():
    levels = ((1, 1),) * 3 + ((2, 0),)
    settings = {"boundary": "periodic", "sizes": "crop"}
    wrap = filled(lambda: v_cycle((32,), levels, prolongation="wrap", **settings))
    released = filled(lambda: v_cycle((32,), levels, **settings))
    assert shift_error(wrap, 40, 8) < 1e-6
    # Controls: as released, and the same parameters on grids that "wrap" refuses.
    assert shift_error(released, 40, 8) > 1e-3
    assert shift_error(wrap, 36, 8) > 1e-3  # 36 18 9 5
    for n in (36, 33):
        with pytest.raises(ValueError, match=r"multiples of 8 .* that fits is \(40,\)"):
            v_cycle((n,), levels, prolongation="wrap", **settings)
        assert nnx.eval_shape(lambda n=n: v_cycle((n,), levels, **settings))


def shape_on(x_shape, **hparams):
    """Shape of the output of a small model for an input of this shape."""
    hparams = {
        "in_channels": 1, "out_channels": 1, "channels": 2, "num_layers": 1,
        "cycle": ((1, 0), (1, 0)),
    } | hparams  # fmt: skip

    def apply():
        model = models.create("mgno", rngs=nnx.Rngs(0), **hparams)
        return model(jnp.ones(x_shape))

    return nnx.eval_shape(apply).shape


def test_wrap_refuses_odd_levels_of_other_grids_at_call():
    settings = {
        "grid": (16, 8), "cycle": ((1, 0), (1, 0), (2, 0)), "sizes": "crop",
        "boundary": "periodic", "prolongation": "wrap",
    }  # fmt: skip
    assert shape_on((1, 12, 8, 1), **settings) == (1, 12, 8, 1)
    with pytest.raises(ValueError, match=r"got \(14, 8\); the next .* is \(16, 8\)"):
        shape_on((1, 14, 8, 1), **settings)


def closed_form(inputs, outputs, channels, layers, cycle, taps):
    """Parameters of MgNO; `taps`: kernel entries of the prolongations."""
    total = channels * outputs
    pre, post = (sum(steps) for steps in zip(*cycle, strict=True))
    for f in [inputs, *[channels] * (layers - 1)]:
        smoothers = 9 * f * channels * (2 * (pre + post) - 1)  # the first has no A
        transfers = (len(cycle) - 1) * 9 * (channels**2 + f**2) + taps * channels**2
        total += smoothers + transfers + f * channels + channels
    return total


@pytest.mark.parametrize(
    ("grid", "layers", "sizes", "taps", "millions"),
    [
        ((256, 256), 4, "official", 5 * 16, 0.57),  # Darcy rough, the published total
        ((211, 211), 5, "official", 3 * 9 + 2 * 16, None),  # Darcy smooth
        ((211, 211), 5, "crop", 5 * 16, None),
        ((211, 256), 5, "official", 3 * 12 + 2 * 16, None),
    ],
)
def test_parameter_count(grid, layers, sizes, taps, millions):
    total = count(
        in_channels=1, out_channels=1, grid=grid, num_layers=layers, sizes=sizes
    )
    assert total == closed_form(1, 1, 24, layers, SIX_LEVELS, taps)
    if millions is not None:
        assert round(total / 1e6, 2) == millions


def test_parameter_count_of_a_pipe_model():
    cycle = (*((1, 0),) * 4, (1, 1), (2, 0))
    total = count(in_channels=2, out_channels=3, grid=(128, 128), cycle=cycle)
    assert total == closed_form(2, 3, 24, 5, cycle, 5 * 16)


FORMS = {
    "zero": {"residual": False},
    "reflect": {"boundary": "reflect"},
    "periodic": {"boundary": "periodic"},
    "navier_stokes": {
        "grid": (6, 10),
        "boundary": "periodic", "prolongation": "wrap", "norm": "prolongation",
        "skip": "none", "residual": True, "head": "mlp", "head_channels": 4,
        "out_channels": 2,
    },
    "helmholtz": {
        "boundary": "reflect", "widening": (1, 2), "norm": "cycle", "skip": "none",
        "head": "cycle", "unused_first_A": True, "num_layers": 1,
    },
    "residual_1d": {"grid": (9,), "restriction": "residual"},
    "zero_3d": {"grid": (4, 6, 5), "norm": "cycle", "norm_affine": "channel"},
}  # fmt: skip
FAST_FORMS = ("zero",)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, marks=() if form in FAST_FORMS else pytest.mark.slow)
        for form in FORMS
    ],
)
def test_gradient_reaches_every_parameter_that_acts(form):
    hparams = {
        "in_channels": 2, "out_channels": 3, "grid": (7, 10), "channels": 3,
        "num_layers": 2, "cycle": ((1, 1), (2, 0)), "use_bias": True,
    } | FORMS[form]  # fmt: skip
    model = filled(lambda: models.create("mgno", rngs=nnx.Rngs(0), **hparams))
    assert model.num_axes == len(hparams["grid"])
    assert model.out_channels == hparams["out_channels"]
    x, y = (
        jnp.asarray(draw(2, *hparams["grid"], c), jnp.float32)
        for c in (2, hparams["out_channels"])
    )
    graph, state = nnx.split(model)

    @jax.jit
    def gradient(state):
        return jax.grad(lambda s: jnp.sum((nnx.merge(graph, s)(x) - y) ** 2))(state)

    dead = set()
    for path, g in nnx.to_flat_state(gradient(state)):
        assert np.isfinite(g[...]).all(), path
        if np.abs(g[...]).max() == 0:
            dead.add(path[:-1])
    first = {(part, 0, "pre", 0, 0, "A") for part in ("cycles", "head")}
    assert dead == (first if form == "helmholtz" else set())


@pytest.mark.slow
def test_periodic_form_commutes_with_shifts():
    model = models.create(
        "mgno", rngs=nnx.Rngs(0), in_channels=1, out_channels=1, grid=(16, 24),
        channels=3, num_layers=2, cycle=((1, 1), (1, 0), (2, 0)), boundary="periodic",
        prolongation="wrap", use_bias=True, norm="prolongation",
        norm_affine="channel", skip="none", residual=True,
    )  # fmt: skip
    apply = jax.jit(lambda x: model(x))
    x = jnp.asarray(draw(1, 16, 24, 1), jnp.float32)

    def error(steps):
        def shift(u):
            return jnp.roll(u, (steps, -steps), (1, 2))

        return jnp.abs(apply(shift(x)) - shift(apply(x))).max()

    assert error(4) < 1e-5
    assert error(2) > 1e-3  # not a multiple of the coarsest mesh width


@pytest.mark.slow
def test_computes_in_the_precision_of_its_input():
    settings = {
        "in_channels": 1, "out_channels": 2, "grid": (17, 17), "channels": 3,
        "num_layers": 2, "cycle": ((1, 0), (1, 0)),
    }  # fmt: skip
    with jax.enable_x64(True):
        model = models.create(
            "mgno", rngs=nnx.Rngs(0), param_dtype="float64", **settings
        )
        x = jnp.asarray(draw(2, 17, 17, 1))
        assert jax.eval_shape(model, x).dtype == jnp.float64
        assert jax.eval_shape(model, x.astype(jnp.float32)).dtype == jnp.float32


def test_runs_on_other_grids_where_the_parameters_fit():
    hparams = {
        "in_channels": 1, "out_channels": 1, "channels": 2, "num_layers": 1,
        "cycle": ((1, 0),) * 3, "grid": (33, 33),
    }  # fmt: skip
    official = models.create("mgno", rngs=nnx.Rngs(0), **hparams)
    x = jnp.ones((1, 65, 33, 1))
    assert jax.eval_shape(official, x).shape == x.shape
    rebuild = r"--config\.model\.grid='\(64, 64\)'\), or with sizes=\"crop\", or "
    with pytest.raises(ValueError, match=f"for grid .*: build it with .*{rebuild}"):
        official(jnp.ones((1, 64, 64, 1)))
    crop = models.create("mgno", rngs=nnx.Rngs(0), sizes="crop", **hparams)
    x = jnp.ones((1, 64, 31, 1))
    assert jax.eval_shape(crop, x).shape == x.shape
    tied = models.create(
        "mgno", rngs=nnx.Rngs(0), sizes="crop", norm="cycle", **hparams
    )
    with pytest.raises(ValueError, match=r"scale every point .* norm_affine=\"channel"):
        tied(jnp.ones((1, 64, 31, 1)))


@pytest.mark.slow
def test_interpolates_to_its_grid_from_others():
    model = models.create(
        "mgno", rngs=nnx.Rngs(0), in_channels=1, out_channels=1, grid=(9,), channels=3,
        num_layers=1, cycle=((1, 0), (1, 0)), norm="cycle", residual=True,
        transfer="linear",
    )  # fmt: skip
    apply = jax.jit(lambda x: model(x))
    x = jnp.asarray(draw(2, 9, 1), jnp.float32)
    fine = resample(x, (17,), "linear")
    np.testing.assert_allclose(apply(fine)[:, ::2], apply(x), atol=1e-6)
    assert jax.eval_shape(model, jnp.ones((2, 6, 1))).shape == (2, 6, 1)


@pytest.mark.parametrize(
    ("grid", "boundary", "levels"),
    [
        ((211, 256), "zero", 6),
        ((421, 421), "zero", 7),
        ((85, 85), "zero", 4),
        ((101, 101), "reflect", 4),
        ((8, 64), "zero", 1),
        ((13,), "periodic", 2),
    ],
)
def test_number_of_levels_from_the_grid(grid, boundary, levels):
    def steps(cycle):
        settings = CycleSettings.fitted(cycle, grid, 7, boundary=boundary)
        assert settings.level_grids(grid)
        return settings.cycle

    expected = (*((1, 0),) * (levels - 1), (2, 0))
    assert steps(((1, 0), (2, 0))) == expected
    assert steps(((1, 0),) * 8 + ((2, 0),)) == expected


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"coarsest": 1}, "coarsest must be 0 or at least 2, got 1"),
        ({"transfer": "nearest"}, "transfer is 'nearest'; known: stencil, linear"),
        ({"grid": (9, 64)}, r"grid \(9, 64\) is too small for 6 levels"),
        ({"grid": ()}, "grid must hold the sizes of 1, 2 or 3 axes"),
        ({"boundary": "neumann"}, "boundary is 'neumann'; known: zero, reflect"),
        ({"sizes": "auto"}, "sizes is 'auto'; known: official, crop"),
        ({"prolongation": "wrap"}, "needs boundary \"periodic\", got 'zero'"),
        ({"cycle": ((0, 1), (1, 0))}, "at least one pre-smoothing step"),
        ({"cycle": ((1, 0), (1, 1))}, "no post-smoothing on the coarsest"),
        ({"cycle": ((1, 0), (0, 0))}, "whose restricted data would act on nothing"),
        ({"restriction": "full"}, "restriction is 'full'; known: data, residual"),
        ({"norm": "layer"}, "norm is 'layer'; known: none, prolongation, cycle"),
        ({"norm_affine": "point"}, "norm_affine is 'point'; known: grid"),
        ({"widening": (1, 2)}, r"each of the 6 levels, finest first, got \(1, 2\)"),
        ({"skip": "linear"}, "skip is 'linear'; known: pointwise, none"),
        ({"head": "conv"}, "head is 'conv'; known: linear, mlp, cycle"),
        ({"residual": True, "out_channels": 2}, "as many input as output channels"),
        ({"cycle": ((1,), (1, 0))}, r"one pair \(pre, post\)"),
        ({"activation": "swish"}, "activation is 'swish'; known: gelu"),
    ],
)
def test_rejects_settings_that_do_not_fit(hparams, message):
    hparams = {"in_channels": 1, "out_channels": 1, "grid": (64, 64)} | hparams
    with pytest.raises(ValueError, match=message):
        models.create("mgno", rngs=nnx.Rngs(0), **hparams)


@pytest.mark.parametrize(
    ("boundary", "fitting", "wrong"),
    [
        ("zero", ("linear", "cubic"), ("fourier",)),
        ("reflect", ("linear", "cubic"), ("fourier",)),
        ("periodic", ("fourier",), ("linear", "cubic")),
    ],
)
def test_interpolates_only_as_the_boundary_says(boundary, fitting, wrong):
    settings = {"grid": (12,), "boundary": boundary}
    for transfer in fitting:
        assert shape_on((1, 9, 1), transfer=transfer, **settings) == (1, 9, 1)
    for transfer in wrong:
        with pytest.raises(ValueError, match=f"'{boundary}', got '{transfer}'"):
            shape_on((1, 9, 1), transfer=transfer, **settings)
    known = " or ".join(f'"{transfer}"' for transfer in fitting)
    for norm in ("none", "cycle"):
        with pytest.raises(ValueError, match=f"with transfer={known}, for other"):
            shape_on((1, 9, 1), norm=norm, **settings)


def test_rejects_wrong_input_channels():
    model = models.create(
        "mgno", rngs=nnx.Rngs(0), in_channels=2, out_channels=1, grid=(8, 8),
        channels=2, num_layers=1, cycle=((1, 0), (1, 0)),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"\[batch, n1, n2, 2\], got \(1, 8, 8, 1\)"):
        model(jnp.ones((1, 8, 8, 1)))
    with pytest.raises(ValueError, match=r"\[batch, n1, n2, 2\], got \(1, 8, 2\)"):
        model(jnp.ones((1, 8, 2)))
