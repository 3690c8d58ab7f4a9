"""Every name of TensorRT that mag_rt uses and how it calls it, as a list, and what a module lacks of it.

A method is listed with the parameters that it is given, in their order; whatever else it takes must have a default.
tests/mag_rt/test_tensorrt_contract.py holds the list against the bindings of NVIDIA's wheels: TensorRT 10 and 11 and
TensorRT-RTX. Doubles of the library in tests are held against it too. Run as a script it prints what the module
`tensorrt_bindings` lacks.
"""

import inspect
import json
import re
from typing import Any

BUILDING = """
__version__
ILogger.__init__() ILogger.Severity.WARNING
Builder.__init__(logger)
Builder.create_network(flags) Builder.create_builder_config() Builder.create_optimization_profile()
Builder.build_serialized_network(network, config)
NetworkDefinitionCreationFlag.STRONGLY_TYPED
OnnxParser.__init__(network, logger) OnnxParser.parse(model) OnnxParser.num_errors OnnxParser.get_error(index)
ParserError.desc() ParserError.node_name() ParserError.node_operator()
INetworkDefinition.num_inputs INetworkDefinition.get_input(index)
INetworkDefinition.num_outputs INetworkDefinition.get_output(index)
INetworkDefinition.num_layers INetworkDefinition.get_layer(index)
ILayer.name ILayer.type ILayer.get_input(index)
ITensor.name ITensor.shape ITensor.dtype
LayerType.CONVOLUTION LayerType.DECONVOLUTION LayerType.MATRIX_MULTIPLY LayerType.QUANTIZE
float32
IBuilderConfig.set_memory_pool_limit(pool, pool_size) MemoryPoolType.WORKSPACE
IBuilderConfig.clear_flag(flag) BuilderFlag.TF32
IOptimizationProfile.set_shape(input, min, opt, max) IBuilderConfig.add_optimization_profile(profile)
IBuilderConfig.create_timing_cache(serialized_timing_cache) IBuilderConfig.get_timing_cache()
IBuilderConfig.set_timing_cache(cache, ignore_mismatch)
ITimingCache.serialize()
IHostMemory.nbytes
"""
"""What mag_rt/engines.py uses."""

RUNNING = """
__version__
ILogger.__init__() ILogger.Severity.ERROR ILogger.Severity.INTERNAL_ERROR
Runtime.__init__(logger) Runtime.deserialize_cuda_engine(serialized_engine)
DataType.FLOAT DataType.HALF TensorIOMode.INPUT TensorIOMode.OUTPUT
ICudaEngine.num_io_tensors ICudaEngine.get_tensor_name(index)
ICudaEngine.get_tensor_mode(name) ICudaEngine.get_tensor_dtype(name) ICudaEngine.get_tensor_shape(name)
ICudaEngine.get_tensor_profile_shape(name, profile_index)
ICudaEngine.create_execution_context()
IExecutionContext.set_optimization_profile_async(profile_index, stream_handle)
IExecutionContext.set_input_shape(name, shape) IExecutionContext.get_tensor_shape(name)
IExecutionContext.set_tensor_address(name, memory) IExecutionContext.execute_async_v3(stream_handle)
"""
"""What mag_rt/backends/loaded_engine.py uses."""


def entries(text: str) -> list[str]:
    """The names of a list, methods with their parameters."""
    return re.findall(r"[\w.]+(?:\([^)]*\))?", text)


def lacking(trt: Any, text: str = BUILDING + RUNNING) -> list[str]:
    """The entries that a module does not have, or whose methods are called otherwise."""
    return [entry for entry in entries(text) if not _has(trt, entry)]


def _has(trt: Any, entry: str) -> bool:
    name, _, parameters = entry.partition("(")
    found = trt
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            return False
    if not entry.endswith(")"):
        return True
    given = re.findall(r"\w+", parameters)
    return any(
        list(takes)[: len(given)] == given and all(optional for optional in list(takes.values())[len(given) :])
        for takes in _overloads(found)
    )


def _overloads(method: Any) -> list[dict[str, bool]]:
    """The parameters of each overload without self, and whether it has a default."""
    if inspect.isfunction(method):
        parameters = list(inspect.signature(method).parameters.values())[1:]
        return [{each.name: each.default is not each.empty for each in parameters}]
    signatures = re.findall(r"\(self: [\w.]+(.*)\) ->", method.__doc__ or "")  # how pybind11 writes them
    return [
        {name: "=" in rest for name, rest in re.findall(r", (\w+): ((?:\[[^\]]*\]|[^,\[])*)", signature)}
        for signature in signatures
    ]


if __name__ == "__main__":
    import tensorrt_bindings

    flag = int(tensorrt_bindings.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    print(
        json.dumps(
            {
                "version": tensorrt_bindings.__version__,
                "lacking": lacking(tensorrt_bindings),
                "strongly typed": flag,
                "fp16 flag": hasattr(tensorrt_bindings.BuilderFlag, "FP16"),
            }
        )
    )
