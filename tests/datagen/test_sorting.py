"""Orders of samples against brute force, published step lengths and lower bounds."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse.csgraph
from scipy.spatial import distance

from datagen import ordering, sorting
from datagen.cli import main
from datagen.plan import load_plan
from datagen.random_fields import low_modes


def points(num, dims=5, seed=0):
    return np.random.default_rng(seed).standard_normal((num, dims))


def greedy_by_brute_force(features):
    table = distance.cdist(features, features)
    path, left = [0], set(range(1, len(features)))
    while left:
        path.append(min(left, key=lambda i: (table[path[-1], i], i)))
        left.remove(path[-1])
    return path


def fields(num, points=50, seed=0):
    """exp of the periodic random fields of Wang et al. (2024) as their code draws them.

    Covariance amplitudes sqrt(2) sigma (4 pi^2 |k|^2 + tau^2)^(-alpha / 2), alpha 2.5,
    tau 7, sigma = tau^1.5; the real part of the inverse transform.
    """
    rng = np.random.default_rng(seed)
    k = np.fft.fftfreq(points, 1 / points)
    squares = 4 * np.pi**2 * (k[:, None] ** 2 + k**2) + 49
    amplitudes = points**2 * np.sqrt(2) * 7**1.5 * squares**-1.25
    amplitudes[0, 0] = 0
    xi = rng.standard_normal((2, num, points, points)) / np.sqrt(2)
    return np.exp(np.fft.ifft2(amplitudes * (xi[0] + 1j * xi[1])).real)


@pytest.fixture(scope="module")
def flows():
    return fields(2000).reshape(2000, -1)


@pytest.mark.parametrize(("num", "dims"), [(1, 3), (2, 3), (3, 1), (60, 1), (300, 5)])
def test_the_greedy_path_is_exact(num, dims):
    features = points(num, dims)
    found = sorting.order(features, "greedy").order
    assert found.tolist() == greedy_by_brute_force(features)


def test_blocks_and_short_lists_do_not_change_the_path(monkeypatch):
    features = points(400, 3)
    whole = sorting.order(features, "greedy").order
    monkeypatch.setattr(sorting, "NUM_NEIGHBOURS", 3)
    monkeypatch.setattr(sorting, "BLOCK_BYTES", 16 * 400 * 7)
    np.testing.assert_array_equal(sorting.order(features, "greedy").order, whole)


@pytest.mark.parametrize("method", ["greedy", "cells", "tree"])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_of_equally_near_samples_the_lowest_comes_first(method, offset, monkeypatch):
    monkeypatch.setattr(sorting, "CELL_SIZE", 70)
    features = np.repeat(points(4, 2), 50, axis=0) + offset
    found = sorting.order(features, method).order
    groups = found // 50
    assert (np.diff(groups) != 0).sum() == 3  # each place once
    for group in range(4):
        ours = found[groups == group]
        if method == "greedy":
            np.testing.assert_array_equal(ours, np.sort(ours))
    if method == "greedy":  # a lattice: every step has rivals
        lattice = np.stack(np.meshgrid(np.arange(9), np.arange(11)), -1).reshape(-1, 2)
        found = sorting.order(lattice, "greedy").order
        assert found.tolist() == greedy_by_brute_force(lattice)


@pytest.mark.parametrize("method", sorting.METHODS)
def test_every_sample_comes_once_and_again_the_same(method, monkeypatch):
    monkeypatch.setattr(sorting, "CELL_SIZE", 50)
    monkeypatch.setattr(sorting, "MAX_GREEDY", 100)
    features = points(500)
    first = sorting.order(features, method)
    assert np.sort(first.order).tolist() == list(range(500))
    second = sorting.order(features, method)
    np.testing.assert_array_equal(first.order, second.order)
    if method == "none":
        assert first.order.tolist() == list(range(500))
    else:
        length = sorting.path_length(features, first)
        assert length.nearest <= length.ordered < 0.6 * length.unsorted


def test_the_tree_is_the_minimum_spanning_tree():
    features = points(300)
    table = distance.cdist(features, features)
    expected = scipy.sparse.csgraph.minimum_spanning_tree(table).sum()
    found = sorting.order(features, "tree")
    children = np.flatnonzero(found.parents >= 0)
    assert len(children) == 299
    assert found.order[0] == 0
    length = table[children, found.parents[children]].sum()
    assert length == pytest.approx(expected, rel=1e-12)
    place = np.argsort(found.order)
    assert (place[found.parents[children]] < place[children]).all()


def test_few_branching_points_of_a_tree_wait_at_any_time():
    """Smaller subtrees first: at most log2(N) states are kept."""
    found = sorting.order(points(1000, 2), "tree")
    place = np.argsort(found.order)
    last_use = np.zeros(1000, int)
    children = np.flatnonzero(found.parents >= 0)
    np.maximum.at(last_use, place[found.parents[children]], place[children])
    waiting = [(last_use[:i] > i).sum() for i in range(1000)]
    assert max(waiting) <= np.log2(1000)


def fourier(flows):
    """Lowest Fourier coefficients of the fields, as real numbers."""
    images = flows.reshape(-1, 50, 50)
    low = np.fft.fft2(images, norm="ortho")[:, *np.ix_(*2 * [np.arange(-3, 3)])]
    return np.concatenate([low.real, low.imag], axis=1).reshape(len(flows), -1)


def test_published_step_lengths(flows):
    """Mean steps of 2000 fields: random 13.23, greedy 7.68, tree 7.02, nearest 6.96.

    Sorted by 6 x 6 Fourier modes and measured on the whole fields, with own seeds; the
    figures come from a measurement with others.
    """
    modes = fourier(flows)
    length = sorting.path_length(flows, sorting.order(modes, "greedy"))
    assert length.unsorted == pytest.approx(13.23, rel=0.03)
    assert length.ordered == pytest.approx(7.68, rel=0.03)
    assert length.nearest == pytest.approx(6.96, rel=0.03)
    tree = sorting.path_length(flows, sorting.order(modes, "tree"))
    assert tree.ordered == pytest.approx(7.02, rel=0.03)
    assert tree.ordered < length.ordered


@pytest.mark.slow
def test_whole_fields_are_sorted_as_published(flows):
    length = sorting.path_length(flows, sorting.order(flows, "greedy"))
    assert length.ordered == pytest.approx(7.68, rel=0.02)


def test_low_cosine_modes_of_the_logarithm_are_enough(flows):
    images = np.log(flows).reshape(-1, 50, 50)
    modes = np.stack([low_modes(image, "cells", 8) for image in images])
    found = sorting.order(modes, "greedy")
    assert sorting.path_length(flows, found).ordered < 1.06 * 7.68


def test_cells_are_nearly_as_good_as_the_exact_path(flows, monkeypatch):
    monkeypatch.setattr(sorting, "CELL_SIZE", 600)
    found = sorting.order(fourier(flows), "cells")
    assert sorting.path_length(flows, found).ordered < 1.04 * 7.68


@pytest.mark.parametrize(
    ("features", "method", "message"),
    [
        (np.ones((3, 2)), "gredy", "unknown ordering 'gredy'; known: none, greedy"),
        (np.ones(3), "greedy", "shape"),
        (np.array([[1.0], [np.nan]]), "greedy", "finite"),
    ],
)
def test_bad_input_is_refused(features, method, message):
    with pytest.raises(ValueError, match=message):
        sorting.order(features, method)


def test_no_table_of_all_distances_is_made():
    features = points(6000, 36)
    tracemalloc.start()
    sorting.order(features, "greedy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000**2 * 8 / 1.2  # several blocks of 64 MB live at a time


def test_work_on_cells_grows_like_the_number_of_samples(monkeypatch):
    """Numbers whose distances are looked at, counted: no clock."""
    monkeypatch.setattr(sorting, "CELL_SIZE", 250)
    rows = []
    squares, neighbours = sorting._squares, sorting._neighbours
    monkeypatch.setattr(
        sorting, "_squares", lambda a, b: rows.append(len(a)) or squares(a, b)
    )
    monkeypatch.setattr(
        sorting,
        "_neighbours",
        lambda f, num: rows.append(len(f) ** 2) or neighbours(f, num),
    )
    work = []
    for num in (1000, 4000):
        rows.clear()
        sorting.order(points(num, 4), "cells")
        work.append(sum(rows))
    assert 3 < work[1] / work[0] < 5.5
    rows.clear()
    sorting.order(points(4000, 4), "greedy")
    assert sum(rows) > 3 * work[1]


@pytest.mark.parametrize("method", ["greedy", "cells", "tree"])
@pytest.mark.parametrize("exponent", [600, 1020, -600, -1000])
def test_no_size_of_features_overflows(method, exponent, monkeypatch):
    monkeypatch.setattr(sorting, "CELL_SIZE", 50)
    features = np.round(points(150) * 2**30) / 2**30  # powers of 2 keep every digit
    extreme = np.ldexp(features, exponent)
    plain, found = sorting.order(features, method), sorting.order(extreme, method)
    np.testing.assert_array_equal(found.order, plain.order)
    if method == "tree":
        np.testing.assert_array_equal(found.parents, plain.parents)
    expected = sorting.path_length(features, plain)
    lengths = sorting.path_length(extreme, found)
    np.testing.assert_allclose(np.ldexp(lengths, -exponent), expected, rtol=1e-12)


def test_the_longest_steps_stay_finite():
    features = np.array([[1.7e308], [-1.7e308], [1.6e308]])
    assert sorting.order(features, "greedy").order.tolist() == [0, 2, 1]
    lengths = sorting.path_length(features, sorting.order(features, "greedy"))
    assert np.isfinite(lengths).all()


@pytest.mark.parametrize("method", ["greedy", "cells", "tree"])
def test_samples_without_finite_features_come_last(method):
    features = points(40, 2)

    def features_of(sample):
        if sample in (0, 33):
            raise ZeroDivisionError("no such sample")
        bad = {7: np.inf, 8: np.nan}.get(sample, 1.0)
        return features[sample] * bad

    shards = [("train", 0, 20), ("train", 20, 30), ("valid", 30, 32), ("test", 32, 40)]
    found = ordering.order_samples(features_of, shards, method)
    assert found.order[27:30].tolist() == [0, 7, 8]
    assert found.order[39] == 33
    assert np.sort(found.order[:30]).tolist() == list(range(30))
    counts = {k: v.get("not_sortable") for k, v in found.statistics.items()}
    assert counts == {"train": 3, "valid": None, "test": 1}
    good = [i for i in range(30) if i not in (0, 7, 8)]
    expected = np.array(good)[sorting.order(features[good], method).order]
    np.testing.assert_array_equal(found.order[:27], expected)
    if method == "tree":
        assert found.parents[27:30].tolist() == [26, 27, 28]
        assert (found.parents < np.arange(40)).all()
    nothing = ordering.order_samples(lambda i: 1 / 0, shards, method)
    assert nothing.order.tolist() == list(range(40))
    assert nothing.statistics["train"]["not_sortable"] == 30


def test_an_order_that_is_none_is_not_written(monkeypatch):
    wrong = sorting.Ordering(np.array([0, 0, 2]), None)
    monkeypatch.setattr(sorting, "order", lambda features, method: wrong)
    with pytest.raises(RuntimeError, match="samples of train were sorted wrongly"):
        ordering.order_samples(points(3).__getitem__, [("train", 0, 3)], "greedy")


def test_splits_are_sorted_by_themselves_and_parents_stay_in_their_shard():
    features = points(100, 2)
    shards = [("train", 0, 40), ("train", 40, 70), ("valid", 70, 80), ("test", 80, 100)]
    found = ordering.order_samples(features.__getitem__, shards, "tree")
    for start, stop in ((0, 70), (70, 80), (80, 100)):
        assert np.sort(found.order[start:stop]).tolist() == list(range(start, stop))
    for _, start, stop in shards:
        parents = found.parents[start:stop]
        assert parents[0] == -1
        assert (parents[1:] >= start).all()
        assert (parents[1:] < np.arange(start + 1, stop)).all()
    assert found.order[0] == 0
    # A parent beyond the shard is replaced by the nearest one before the sample.
    places = np.arange(41, 70)
    steps = np.linalg.norm(
        features[found.order[places]] - features[found.order[found.parents[places]]],
        axis=1,
    )
    assert steps.mean() < 2 * found.statistics["train"]["mean_step"]
    assert set(found.statistics) == {"train", "valid", "test"}


def test_without_sorting_no_sample_is_drawn():
    found = ordering.order_samples(None, [("train", 0, 5)], "none")
    assert found.order.tolist() == [0, 1, 2, 3, 4]
    assert found.parents is None
    assert found.statistics == {}


def test_draws_that_overflow_do_not_stop_a_plan(tmp_path, capsys):
    """exp of a field of standard deviation 400 is infinite in most samples."""
    root = tmp_path / "set"
    command = ["plan", "--config", "configs/data/darcy_3d.py:quick", "--out", str(root)]
    command += ["--config.problem.log_std=400.0", "--config.problem.n=9"]
    assert main([*command, "--config.solver.method=skr"]) == 0
    statistics = load_plan(root).content["sort_statistics"]
    assert statistics["train"]["not_sortable"] > 0
    assert (
        "order of train: by id, no sample has finite features"
        in capsys.readouterr().out
    )
