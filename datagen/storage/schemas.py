"""JSON Schemas of plan, ledger record and manifest, and a check of what they use.

The schemas are plain JSON Schema (draft 2020-12). They are checked here and not by the
package jsonschema, whose import takes longer than opening a data set.
"""

import re
from typing import Any

SCHEMA_VERSION = 1
ORDERINGS = ("none", "greedy", "cells", "tree")

_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
_COUNTS = {"type": "object", "additionalProperties": _COUNT}
_VERSION = {"const": SCHEMA_VERSION}


def _record(properties: dict[str, Any], optional: dict[str, Any] | None = None) -> dict:
    return {
        "type": "object",
        "properties": properties | (optional or {}),
        "required": list(properties),
        "additionalProperties": False,
    }


# Times or frequencies of the stored steps of time-varying fields.
_STEPS = _record(
    {
        "name": {"type": "string"},
        "values": {"type": "array", "items": {"type": "number"}},
    }
)

# How linear systems are solved, `configs.common.solver`.
_LINEAR_SOLVER = _record(
    {
        "method": {"type": "string"},
        "rtol": {"type": "number", "exclusiveMinimum": 0},
        "accept_rtol": {"type": "number", "exclusiveMinimum": 0},
        "maxiter": _COUNT,
        "stop": {"enum": ["residual", "discretisation"]},
        "estimate_errors": {"type": "boolean"},
        "error_every": _COUNT,
        "ordering": {"enum": ["auto", *ORDERINGS]},
        "preconditioner": {"type": "string"},
        "frozen": {"type": "boolean"},
        "m": {"type": "integer", "minimum": 1},
        "k": _COUNT,
        "guess": {"enum": ["none", "projection"]},
        "window": {"type": "integer", "minimum": 1},
        "fallbacks": {"type": "array", "items": {"type": "string"}},
    }
)

# How samples are integrated in time, `configs.common.time_stepping`.
_TIME_STEPPING = _record(
    {
        "scheme": {"type": "string"},
        "dt": {"type": "number", "minimum": 0},
        "cfl": {"type": "number", "minimum": 0},
        "dtype": {"enum": ["float32", "float64"]},
        "batch_size": {"type": "integer", "minimum": 1},
        "accept": {"type": "number", "exclusiveMinimum": 0},
        "halvings": _COUNT,
    }
)

PLAN = _record(
    {
        "schema_version": _VERSION,
        "plan_sha256": _SHA256,
        "order_sha256": _SHA256,
        "config": _record(
            {
                "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]*$"},
                "seed": _COUNT,
                "splits": _record({"train": _COUNT, "valid": _COUNT, "test": _COUNT}),
                "shard_size": {"type": "integer", "minimum": 1},
                "problem": {"type": "object", "required": ["name"]},
                "solver": {
                    "if": {"required": ["scheme"]},
                    "then": _TIME_STEPPING,
                    "else": _LINEAR_SOLVER,
                },
                "storage": _record({"dtype": {"enum": ["float32", "float64"]}}),
            }
        ),
        "equation": {"type": "string"},
        "settings": {"type": "object"},
        "grid": _record(
            {
                "axes": {"type": "array", "items": {"type": "string"}},
                "shape": {"type": "array", "items": _COUNT},
            }
        ),
        "fields": {
            "type": "array",
            "items": _record(
                {
                    "name": {"type": "string"},
                    "time_varying": {"type": "boolean"},
                    "units": {"type": "string"},
                    "description": {"type": "string"},
                }
            ),
        },
        "steps": _STEPS,
        "solver": _record(
            {
                "method": {"type": "string"},
                "settings": {"type": "object"},
                "preconditioner": {"type": "string"},
                "ordering": {"enum": list(ORDERINGS)},
                "rtol": {"type": "number"},
                "accept_rtol": {"type": "number"},
                "maxiter": {"type": ["integer", "null"]},
                "carries": {"type": "boolean"},
                "fallbacks": {
                    "type": "array",
                    "items": _record(
                        {"method": {"type": "string"}, "settings": {"type": "object"}}
                    ),
                },
            },
            {
                "discretisation": _NUMBERS,  # where it is asked for
                # Not in the first data sets: how "auto" was decided.
                "choice": _record(
                    {
                        "asked": {"type": "string"},
                        "method": {"type": "string"},
                        "settings": {"type": "object"},
                        "reason": {"type": "string"},
                        "calibrated": {"type": "boolean"},
                        "costs": {"type": "object"},
                    }
                ),
            },
        ),
        "sort": _record({"method": {"type": "string"}}, {"parents_sha256": _SHA256}),
        "sort_statistics": {"type": "object", "additionalProperties": _NUMBERS},
        "random": _record({"generator": {"type": "string"}, "streams": _COUNTS}),
        "shards": {
            "type": "array",
            "items": _record(
                {
                    "id": {"type": "string"},
                    "split": {"enum": ["train", "valid", "test"]},
                    "start": _COUNT,
                    "stop": _COUNT,
                    "file": {"type": "string"},
                }
            ),
        },
        "code": _record(
            {
                "version": {"type": "string"},
                "commit": {"type": "string"},
                "dirty": {"type": "boolean"},
            }
        ),
        "created_at": {"type": "string"},
    },
    {
        # Columns of `quality` beyond those of every set: name -> description.
        "quality": {"type": "object", "additionalProperties": {"type": "string"}},
    },
)

LEDGER = _record(
    {
        "schema_version": _VERSION,
        "plan_sha256": _SHA256,
        "shard": {"type": "string"},
        "split": {"enum": ["train", "valid", "test"]},
        "file": {"type": "string"},
        "bytes": _COUNT,
        "sha256": _SHA256,
        "content_sha256": _SHA256,
        "num_samples": _COUNT,
        "num_accepted": _COUNT,
        "quarantined": {"type": "array", "items": _COUNT},
        "iterations_mean": {"type": "number"},
        "true_residual_max": {"type": "number"},
        "moments": {"type": "object"},
        "attempts": _COUNT,
        "engine": {"type": "string"},
        "adopted": {"type": "boolean"},
        "host": {"type": "string"},
        "cpu": {"type": "string"},
        "job_id": {"type": "string"},
        "start": {"type": "string"},
        "end": {"type": "string"},
        "cpu_s": {"type": "number"},
        "wall_s": {"type": "number"},
    },
    {  # not in the first data sets
        "rungs": _COUNTS,
        "workers": _COUNT,
        "solve_s": {"type": "number"},
        "method": {"type": "string"},
        "reason": {"type": "string"},
    },
)

MANIFEST = _record(
    {
        "schema_version": _VERSION,
        "manifest_sha256": _SHA256,
        "name": {"type": "string"},
        "equation": {"type": "string"},
        "plan_sha256": _SHA256,
        "files": {
            "type": "array",
            "items": _record(
                {
                    "path": {"type": "string"},
                    "shard": {"type": "string"},
                    "split": {"enum": ["train", "valid", "test"]},
                    "n": _COUNT,
                    "accepted": _COUNT,
                    "bytes": _COUNT,
                    "sha256": _SHA256,
                    "content_sha256": _SHA256,
                }
            ),
        },
        "counts": {
            "type": "object",
            "additionalProperties": _record(
                {"planned": _COUNT, "accepted": _COUNT, "quarantined": _COUNT}
            ),
        },
        "fields": PLAN["properties"]["fields"],
        "coordinates": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "number"}},
        },
        "boundaries": {
            "type": "array",
            "items": _record(
                {
                    "axis": {"type": "string"},
                    "bc_type": {"enum": ["WALL", "OPEN", "PERIODIC"]},
                    "detail": {"type": "string"},
                }
            ),
        },
        "scalars": _NUMBERS,
        "dtype": {"enum": ["float32", "float64"]},
        "true_residual": _NUMBERS,
        "iterations": _NUMBERS,
        "ladder": _COUNTS,
        "versions": {"type": "object"},
        "formats": {"type": "array", "items": {"type": "string"}},
        "costs": _record({"cpu_seconds": {"type": "number"}}),
        "code": PLAN["properties"]["code"],
    },
    {  # not in the first data sets
        "fallbacks": _COUNTS,
        "recycling": _COUNTS,
        "algebraic_error": _NUMBERS,
        "discretisation_error": _NUMBERS,
        "steps": _STEPS,
        "solver": PLAN["properties"]["solver"],
        "quality": {"type": "object", "additionalProperties": _NUMBERS},
    },
)

_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def violation(value: Any, schema: dict[str, Any], where: str = "") -> str:
    """The first thing in which `value` breaks the schema, or "".

    Knows the keywords that the schemas above use, no others.
    """
    name = where or "it"
    if "if" in schema:
        branch = "else" if violation(value, schema["if"]) else "then"
        return violation(value, schema[branch], where)
    if "const" in schema and value != schema["const"]:
        return f"{name} is {value!r}, expected {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{name} is {value!r}, expected one of {schema['enum']}"
    if "type" in schema and not _has_type(value, schema["type"]):
        return f"{name} is {value!r}, expected {schema['type']}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return f"{name} is {value!r}, expected {schema['pattern']}"
    if isinstance(value, int | float):
        if value < schema.get("minimum", value):
            return f"{name} is {value}, expected at least {schema['minimum']}"
        if "exclusiveMinimum" in schema and not value > schema["exclusiveMinimum"]:
            return f"{name} is {value}, expected above {schema['exclusiveMinimum']}"
    if isinstance(value, list):
        for i, item in enumerate(value):
            if found := violation(item, schema.get("items", {}), f"{where}[{i}]"):
                return found
    return _object_violation(value, schema, where) if isinstance(value, dict) else ""


def _object_violation(value: dict, schema: dict[str, Any], where: str) -> str:
    properties = schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in value:
            return f"{where or 'it'} has no {key!r}"
    for key, item in value.items():
        inner = properties.get(key, schema.get("additionalProperties", {}))
        if inner is False:
            return f"{where or 'it'} has an unknown key {key!r}"
        if found := violation(item, inner, f"{where}.{key}" if where else key):
            return found
    return ""


def _has_type(value: Any, names: str | list[str]) -> bool:
    names = [names] if isinstance(names, str) else names
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, _TYPES[name]) for name in names)
