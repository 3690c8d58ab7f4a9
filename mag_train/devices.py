"""Where a run computes: devices, processes and precision, through Lightning Fabric."""

from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def launch(precision: Precision, devices: int = 1, num_nodes: int = 1) -> Fabric:
    """Fabric on the best kind of device here: GPUs when there are any, else the CPU.

    With more than one device in all each gets a process, which runs the same command from its beginning: started here,
    or by torchrun or a cluster. They talk through NCCL between GPUs, through gloo between CPUs.
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    fabric = Fabric(
        accelerator=kind,
        devices=devices,
        num_nodes=num_nodes,
        strategy=SideBySide() if devices * num_nodes > 1 else "auto",
        plugins=[] if precision == "32-true" else [ExactInput(precision, kind)],
    )
    fabric.launch()
    return fabric


class SideBySide(DDPStrategy):
    """Processes that share gradients where the algorithm says so, in `average_over_processes`.

    DistributedDataParallel shares them in hooks of the backward pass. It takes a network through which gradients only
    pass, as each of ours is in some step of the iteration, for one that forgot to use its parameters, and refuses.
    """

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        return module


def average_over_processes(fabric: Fabric, network: nn.Module) -> None:
    """Give every process the mean over the processes of the network's gradients and batch norm statistics.

    In one message. Each process normalises by its own pictures; what is learnt of them for later use is shared.
    """
    if fabric.world_size == 1:
        return
    tensors = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    tensors += [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    mean = fabric.all_reduce(torch.cat([tensor.flatten() for tensor in tensors]), reduce_op="mean")
    assert isinstance(mean, Tensor)
    parts = torch.split(mean, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def of_each_process(fabric: Fabric, state: Tensor) -> Tensor:
    """A tensor of every process, stacked: processes x its shape, on the CPU."""
    states = [state] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(states, state)
    return torch.stack(states).cpu()


class ExactInput(MixedPrecision):
    """Mixed precision that leaves a network's input in float32, and gradient scaling to each optimiser's own scaler.

    Fabric's own rounds the input to the low precision first: near white, a bfloat16 step is half a grey level, and
    traces of a splice are smaller than that. Autocast lowers what each layer can bear by itself. And it has one scaler
    for all, so an overflow in one of four networks would lower the scale of the other three.
    """

    def __init__(self, precision: Literal["bf16-mixed", "16-mixed"], device: str) -> None:
        super().__init__(precision, device)
        self.scaler = None

    def convert_input(self, data: Any) -> Any:
        return data
