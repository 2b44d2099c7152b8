"""The package as a whole: what importing it costs, what it names, and the units of what it returns."""

from __future__ import annotations

import subprocess
import sys

import pytest

import depthflow
from depthflow import errors, schema

HEAVY = ("torch", "numba", "matplotlib", "sklearn", "dask", "zarr")


def test_import_is_light_and_silent():
    code = f"import sys, depthflow; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert run.stderr == ""


@pytest.mark.parametrize("module", ["datasets", "synthetic", "schema", "plot", "kernels", "errors"])
def test_public_modules_need_no_torch(module):
    code = f"import sys, depthflow; depthflow.{module}; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_every_public_name_is_there():
    for name in depthflow.__all__:
        assert getattr(depthflow, name) is not None


def test_names_that_are_functions_stay_functions():
    """A submodule of the same name would shadow the function once anything imported it."""
    code = (
        "import depthflow, depthflow.recording.forward, depthflow.measures.phases, depthflow.trajectories\n"
        "print(callable(depthflow.record), callable(depthflow.trajectory), callable(depthflow.phases))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True"] * 3


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.TrajectoryError, ValueError),
        (errors.ParameterError, ValueError),
        (errors.ModelError, TypeError),
        (errors.UnsupportedModelError, TypeError),
        (errors.RecordError, RuntimeError),
        (errors.StoreError, RuntimeError),
        (errors.SurrogateError, RuntimeError),
    ],
)
def test_each_error_is_also_the_builtin_one(error, builtin):
    assert issubclass(error, builtin)
    assert issubclass(error, errors.DepthflowError)


def test_every_variable_has_a_name_and_units():
    for meanings in (schema.VARIABLES, *schema.VARIABLES_OF.values()):
        for name, variable in meanings.items():
            assert variable.long_name, name
            assert variable.units in {"1", "rad", "rad/block", "1/block", "state unit", "s"}, name


def test_a_meaning_of_one_measures_own_is_another_than_the_common_one():
    for measure, meanings in schema.VARIABLES_OF.items():
        assert callable(getattr(depthflow, measure))
        for name, variable in meanings.items():
            assert variable != schema.VARIABLES[name], (measure, name)


def test_kernels_are_reachable_from_the_package():
    code = "import depthflow; print(callable(depthflow.kernels.lowrank.stable_rank), *depthflow.kernels.__all__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split()[:3] == ["True", "angular", "bessel"]
