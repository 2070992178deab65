"""How the model's modules fit together: one interface for backends, no circle of imports."""

from __future__ import annotations

import graphlib

import grimp
import pytest

from maskq_worker.model.backend import Backend
from maskq_worker.model.cuda.backend import CudaBackend
from maskq_worker.model.native_backend import NativeBackend
from maskq_worker.model.openvino.backend import OpenVINOBackend
from maskq_worker.model.transformers_backend import TransformersBackend


@pytest.mark.parametrize(
    "backend", [TransformersBackend, NativeBackend, CudaBackend, OpenVINOBackend]
)
def test_a_backend_implements_the_interface_and_inherits_from_no_other(
    backend: type[Backend],
) -> None:
    assert backend.__bases__ == (Backend,)
    assert not backend.__abstractmethods__  # type: ignore[attr-defined]  # of every ABC


@pytest.mark.parametrize("package", ["maskq_worker.model", "maskq_worker.batching"])
def test_modules_import_one_another_in_no_circle(package: str) -> None:
    graph = grimp.build_graph("maskq_worker", cache_dir=None)
    inside = {module for module in graph.modules if module.startswith(package)}
    imports = {
        module: graph.find_modules_directly_imported_by(module) & inside for module in inside
    }
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"modules import one another: {' -> '.join(error.args[1])}")
