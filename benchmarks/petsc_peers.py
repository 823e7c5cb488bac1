"""Options of PETSc's solvers that stand beside ours in several benchmarks."""

CG_ICC = "petsc:-ksp_type cg -pc_type icc"
CG_GAMG = "petsc:-ksp_type cg -pc_type gamg"
# Weak couplings dropped, so that no aggregate reaches across a jump: 7 times fewer
# iterations than the defaults. Smoothed aggregates win in 2-D, plain ones in 3-D.
# The threshold decides: 0.02 and 0.08 were the best of 0.001 ... 0.12 for each.
SOR = (
    "-mg_levels_ksp_type richardson -mg_levels_pc_type sor -mg_levels_ksp_max_it 1 "
    "-pc_gamg_reuse_interpolation 1"
)
CG_GAMG_JUMPS = f"{CG_GAMG} -pc_gamg_threshold 0.02 {SOR}"
CG_GAMG_PLAIN = f"{CG_GAMG} -pc_gamg_threshold 0.08 -pc_gamg_agg_nsmooths 0 {SOR}"
MUMPS = "petsc:-ksp_type preonly -pc_type cholesky -pc_factor_mat_solver_type mumps"
