import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers.diffusion import from_links
from solvers.multigrid import cycles, lines, symmetric
from solvers.multigrid.solver import MultigridPCG
from solvers.sequence import LinearSystem

RTOL = 1e-8


def swirl(shape, ratio, periodic=()):
    """Conductances whose strong axis changes from place to place; the operator.

    Their ratio is that of the axes where both sines below are large, 1 on the lines
    between such regions.
    """
    links = []
    for axis in range(len(shape)):
        faces = [n + (k == axis) for k, n in enumerate(shape)]
        waves = [np.sin(2 * np.pi * np.arange(n) / (n - 1)) for n in faces]
        field = np.clip(2 * functools.reduce(np.multiply.outer, waves), -1, 1)
        link = ratio**field if axis == 0 else np.ones(faces)
        if axis in periodic:
            ends = [(slice(None),) * axis + (i,) for i in (0, -1)]
            link[ends[1]] = link[ends[0]]
        links.append(link)
    return from_links(links, 0.0, periodic)


def halves(operator):
    """Couplings [*n] per offset, JAX."""
    return {
        o: jnp.asarray(operator.coefficients[0, ..., operator.offsets.index(o)])
        for o in symmetric.half(len(operator.grid_shape))
        if o in operator.offsets
    }


def iterations(operator, **settings):
    one = LinearSystem(operator, np.ones(operator.grid_shape))
    x, record = MultigridPCG(**settings).solve(one, rtol=RTOL, maxiter=200)
    assert record.converged, record.status
    r = operator.residual(x[None], one.rhs[None])
    assert np.linalg.norm(r) <= RTOL * np.linalg.norm(one.rhs)
    return record.iterations


@pytest.mark.parametrize("axis", [0, 1])
def test_a_sweep_solves_its_lines_exactly(axis):
    operator = swirl((6, 8), 100.0)
    stencil = symmetric.pad_to_even(halves(operator))
    sweep = [s for s in lines.zebra(stencil) if s.axis == axis][1]
    assert sweep.parity == (axis, 1 - axis)
    rng = np.random.default_rng(0)
    x, b = (jnp.pad(rng.standard_normal((6, 8)), 1) for _ in range(2))
    y = lines.smooth((sweep,), stencil, b, x)
    r = np.asarray(symmetric.window(b) - symmetric.apply(stencil, y))
    np.testing.assert_allclose(np.moveaxis(r, axis, 0)[:, 1::2], 0, atol=1e-12)
    changed = np.moveaxis(np.asarray(symmetric.window(y - x)), axis, 0)
    np.testing.assert_array_equal(changed[:, ::2], 0)
    assert abs(changed[:, 1::2]).min() > 0


@pytest.mark.parametrize(
    ("shape", "periodic"),
    [
        ((17, 14), ()),
        pytest.param((16, 12), (1,), marks=pytest.mark.slow),
        pytest.param((6, 7, 8), (), marks=pytest.mark.slow),
    ],
)
def test_cycle_with_lines_is_symmetric_and_positive(shape, periodic):
    operator = swirl(shape, 100.0, periodic)
    values = halves(operator)

    @jax.jit
    def run(u):
        hierarchy = cycles.build_hierarchy(values, periodic, line_smoother=True)
        return jax.vmap(functools.partial(cycles.v_cycle, hierarchy))(u)

    u = np.random.default_rng(0).standard_normal((6, *shape))
    gram = u.reshape(6, -1) @ np.asarray(run(u)).reshape(6, -1).T
    assert abs(gram - gram.T).max() <= 1e-12 * abs(gram).max()
    assert np.linalg.eigvalsh(gram).min() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "ratio", "periodic"),
    [((64, 60), 100.0, ()), ((40, 36), 1000.0, (0,))],
)
def test_lines_follow_anisotropy_that_changes_direction(shape, ratio, periodic):
    """Points with coarsening chosen for the whole grid are the negative control."""
    operator = swirl(shape, ratio, periodic)
    good = iterations(operator, variant="lines")
    assert good <= 15
    if ratio == 100.0 and not periodic:
        assert iterations(operator) > 3 * good
