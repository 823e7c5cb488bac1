"""Lagrange elements of degree 1 and 2 on triangles: matrices and loads."""

import functools

import numpy as np
import scipy.sparse as sp
import skfem
from skfem.models.poisson import laplace

from datagen.problems.meshes import Mesh, node_mesh

ELEMENTS = {1: skfem.ElementTriP1, 2: skfem.ElementTriP2}


class ElementSpace:
    """Continuous functions of degree 1 or 2 on every triangle; unknowns at the nodes.

    Args:
        triangles: the mesh.
        degree: 1 or 2.
        regions: [num_cells] region of every cell, 0, 1, ...; None: all 0.

    Attributes:
        basis: the basis of scikit-fem; its numbering of nodes is used throughout.
        mesh: nodes and cells as they are stored.
        points: [num_nodes, 2].

    Raises:
        ValueError: for another degree.
    """

    def __init__(
        self,
        triangles: skfem.MeshTri,
        degree: int,
        regions: np.ndarray | None = None,
    ):
        if degree not in ELEMENTS:
            raise ValueError(f"degree is {degree}; known: {[*ELEMENTS]}")
        self.basis = skfem.Basis(triangles, ELEMENTS[degree]())
        num_cells = triangles.t.shape[1]
        self._regions = np.zeros(num_cells, int) if regions is None else regions
        self.mesh: Mesh = node_mesh(self.basis, self._regions)
        self.points = self.mesh.points

    @property
    def num_nodes(self) -> int:
        """Nodes, those on the boundary included."""
        return len(self.points)

    def edge_load(self, condition) -> np.ndarray:
        """Integrals of phi_i over a part of the boundary, [num_nodes].

        Args:
            condition: from midpoints [2, n] of boundary edges to bool [n].
        """
        edges = self.basis.mesh.facets_satisfying(condition, boundaries_only=True)
        basis = skfem.FacetBasis(self.basis.mesh, self.basis.elem, facets=edges)
        return skfem.LinearForm(lambda v, _: v).assemble(basis)

    @functools.cached_property
    def quadrature_points(self) -> np.ndarray:
        """Points [num_quadrature, 2] at which `load` takes the source."""
        return np.asarray(self.basis.global_coordinates()).reshape(2, -1).T

    def load(self, f: np.ndarray) -> np.ndarray:
        """Integrals of f phi_i over the domain, [num_nodes] or [num_nodes, k].

        Args:
            f: [num_quadrature] or [num_quadrature, k] values at `quadrature_points`.
        """
        return self._weights @ f

    @functools.cached_property
    def _weights(self) -> sp.csr_array:
        """phi_i(x_q) w_q, [num_nodes, num_quadrature]."""
        dx = self.basis.dx  # [num_cells, points per cell]
        columns = np.arange(dx.size).reshape(dx.shape)
        rows, values = [], []
        for local, dofs in zip(self.basis.basis, self.basis.element_dofs, strict=True):
            rows.append(np.broadcast_to(dofs[:, None], dx.shape))
            values.append(np.broadcast_to(np.asarray(local[0]), dx.shape) * dx)
        entries = (np.stack(rows), np.broadcast_to(columns, (len(rows), *dx.shape)))
        data = (np.stack(values).ravel(), tuple(e.ravel() for e in entries))
        return sp.coo_array(data, shape=(self.num_nodes, dx.size)).tocsr()

    def stiffness(self) -> sp.csr_array:
        """Integrals of grad phi_i . grad phi_j, all nodes, [num_nodes, num_nodes]."""
        return sp.csr_array(laplace.assemble(self.basis))

    def region_stiffness(self, free: np.ndarray) -> "RegionStiffness":
        """What sums up the matrices of piecewise constant coefficients.

        Args:
            free: numbers of the nodes that are unknowns; the others are left out.
        """
        return RegionStiffness(self.basis, self._regions, free)


class RegionStiffness:
    """A(a) = sum_j a_j A_j, where A_j has the integrals over region j alone.

    The pattern is that of the whole; every entry belongs to few regions, so that a
    matrix costs one small sparse product. All matrices share their index arrays.

    Args:
        basis: a basis of scikit-fem.
        regions: [num_cells] region of every cell.
        free: numbers of the nodes that are unknowns.
    """

    def __init__(self, basis: skfem.Basis, regions: np.ndarray, free: np.ndarray):
        number = np.full(basis.N, -1)
        number[free] = np.arange(len(free))
        dofs = number[basis.element_dofs]  # [nodes per cell, num_cells]
        local = range(len(dofs))
        gradients = [basis.basis[i][0].grad for i in local]  # [2, num_cells, points]
        keys, values, owners = [], [], []
        for i in local:
            for j in local:
                both = (dofs[i] >= 0) & (dofs[j] >= 0)
                # The products commute, so that A comes out exactly symmetric.
                value = np.sum((gradients[i] * gradients[j]).sum(0) * basis.dx, axis=1)
                keys.append((dofs[i] * len(free) + dofs[j])[both])
                values.append(value[both])
                owners.append(np.asarray(regions)[both])
        # Sorted keys are the row-major order of a CSR matrix.
        keys, entries = np.unique(np.concatenate(keys), return_inverse=True)
        rows = keys // len(free)
        self.indices = (keys % len(free)).astype(np.int32)
        self.indptr = np.searchsorted(rows, np.arange(len(free) + 1)).astype(np.int32)
        shape = (len(keys), int(np.max(regions)) + 1)
        triplets = (np.concatenate(values), (entries, np.concatenate(owners)))
        self._parts = sp.coo_array(triplets, shape=shape).tocsr()

    def matrix(self, values: np.ndarray) -> sp.csr_array:
        """A for the coefficient values [num_regions], [num_free, num_free]."""
        shape = (len(self.indptr) - 1,) * 2
        data = self._parts @ values
        return sp.csr_array((data, self.indices, self.indptr), shape=shape)


class OnMesh:
    """A problem whose fields live on the nodes of `_space`, an `ElementSpace`."""

    @property
    def mesh(self) -> Mesh:
        """Nodes and cells; regions are the materials."""
        return self._space.mesh

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """Numbers of the nodes; `mesh.points` says where they lie."""
        return {"node": np.arange(self._space.num_nodes, dtype=np.float64)}
