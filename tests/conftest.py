"""Shared test settings: every test runs in the precision of its directory."""

import pathlib

import jax
import pytest

ROOT = pathlib.Path(__file__).parent
DOUBLE_PRECISION = ("solvers", "datagen")  # directories whose tests need float64

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def _precision(request):
    """Sets JAX's 64-bit mode as the entry points of that part of the code do."""
    folder = request.path.relative_to(ROOT).parts[0]
    jax.config.update("jax_enable_x64", folder in DOUBLE_PRECISION)
    yield
    jax.config.update("jax_enable_x64", False)
