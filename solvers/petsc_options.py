"""What can be told about a string of PETSc options without PETSc."""

EXAMPLE = "'petsc:-ksp_type cg -pc_type gamg'"
# What `PetscSolver` passes to PETSc itself, and the keyword that sets it.
OURS = {
    "-ksp_max_it": "maxiter=",
    "-ksp_rtol": "rtol=",
    "-ksp_atol": "rtol=, which is relative to ||b||",
}


def pairs_of(options: str) -> list[tuple[str, str]]:
    """Options and their values, "" for a flag.

    Raises:
        ValueError: for a word that is neither an option nor the value of one.
    """
    pairs = []
    for word in options.split():
        if word.startswith("-") and not _is_number(word):
            pairs.append((word, ""))
        elif pairs and not pairs[-1][1]:
            pairs[-1] = pairs[-1][0], word
        else:
            raise ValueError(
                f"PETSc options {options.strip()!r}: {word!r} is neither an option nor "
                f"the value of one; write for instance {EXAMPLE}"
            )
    return pairs


def method_options(options: str) -> dict[str, str]:
    """The options of a method `petsc:<options>` and their values.

    Raises:
        ValueError: if there are none, for a word that is no option, or for an option
            that is a keyword here.
    """
    pairs = dict(pairs_of(options))
    if not pairs:
        raise ValueError(
            f"method 'petsc:' needs PETSc options after it, for instance {EXAMPLE}"
        )
    for name in OURS.keys() & pairs:
        raise ValueError(
            f"PETSc option {name} would be overridden; leave it out and set "
            f"{OURS[name]}"
        )
    return pairs


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True
