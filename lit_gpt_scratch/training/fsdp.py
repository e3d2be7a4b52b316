"""Weights sharded over devices with FSDP2, for models that do not fit into one device's memory.

Zhao et al. 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel". Checkpoints are the
same as those of one device, and any number of devices can load them. Lightning's own full checkpoints index
the optimizer state by the order of the model's parameters, which is wrong for several parameter groups.
"""

from collections.abc import Mapping
from typing import Any, cast

from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from lit_gpt_scratch.model.gpt import GPT

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-true")  # supported by Lightning's FSDP2


def fsdp_trainer_options(
    strategy: Any, optimizer: str, has_ema: bool, precision: str
) -> dict[str, ModelParallelStrategy | bool]:
    """Return the Trainer options that `trainer.strategy` fsdp needs; an empty dict for other strategies.

    Raises:
        ValueError: An option is incompatible with fsdp.
    """
    if strategy != "fsdp":
        return {}
    for name, is_on in {"model.optimizer muon": optimizer == "muon", "callbacks.ema": has_ema}.items():
        if is_on:
            raise ValueError(f"{name} needs whole weights, but trainer.strategy fsdp shards them: use ddp")
    if precision not in PRECISIONS:
        raise ValueError(f"trainer.strategy fsdp has the precisions {', '.join(PRECISIONS)}, not {precision}")
    # Training cannot use weights that an evaluation gathered in inference mode.
    return {"strategy": FSDP2Strategy(), "inference_mode": False}


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's FSDP2 strategy over all devices; checkpoints are the same as in a run on one device."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Use all devices for data parallelism."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Return True: the Trainer restores the optimizer state, as on one device."""
        return True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Return the checkpoint at a path, read and checked as in a run on one device."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the module's state dict: full weights on rank 0, None for sharded weights on other ranks."""
        assert self.lightning_module is not None
        return cast(dict[str, Any], gather_full(self.lightning_module.state_dict(), self.is_global_zero))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimizer's state dict: full state on rank 0, None for sharded tensors on other ranks."""
        state = Strategy.optimizer_state(self, optimizer)
        return cast(dict[str, Any], gather_full(state, self.is_global_zero))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load this rank's shards of the full weights in a checkpoint."""
        assert self.lightning_module is not None
        current = self.lightning_module.state_dict()
        weights = {name: to_shard(tensor, current[name]) for name, tensor in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(weights, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this rank's shards of the full optimizer states in a checkpoint."""
        for optimizer, full in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                i: {name: to_shard(value, parameters[i]) for name, value in values.items()}
                for i, values in full["state"].items()
            }
            optimizer.load_state_dict({**full, "state": state})


def gather_full(state: Any, is_global_zero: bool) -> Any:
    """Return nested dicts with sharded tensors replaced: by full CPU tensors on rank 0, by None elsewhere.

    Collective: all ranks must call this function. Only one full tensor at a time is in a device's memory.
    """
    if isinstance(state, dict):
        return {name: gather_full(value, is_global_zero) for name, value in state.items()}
    if not isinstance(state, DTensor):
        return state
    tensor = state.full_tensor()
    return tensor.cpu() if is_global_zero else None


def to_shard(value: Any, like: Tensor) -> Any:
    """Return this rank's shard of `value` if `like` is a sharded tensor of the same shape, else `value`."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    mesh = like.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, like.placements, src_data_rank=None)


def shard_model(gpt: GPT, mesh: DeviceMesh) -> None:
    """Shard a model in place: one FSDP unit per block, and one unit for all other parameters.

    A token embedding and an output head that share their weight are thus in the same unit. The weights of a
    block are gathered while the block computes, and the other parameters once per step.
    """
    if isinstance(gpt, FSDPModule):  # Lightning may call configure_model twice
        return
    for block in gpt.h:
        fully_shard(block, mesh=mesh)
    fully_shard(gpt, mesh=mesh)
    register_fsdp_forward_method(gpt, "features")  # next_token_loss calls it directly


def gather_gpt(gpt: GPT, is_global_zero: bool) -> GPT | None:
    """Return a model with full weights on rank 0, and None on other ranks.

    A sharded model is copied to CPU memory; a model that is not sharded is returned without copying.
    Collective: all ranks must call this function.
    """
    if not isinstance(gpt, FSDPModule):
        return gpt if is_global_zero else None
    weights = gather_full(gpt.state_dict(), is_global_zero)
    if not is_global_zero:
        return None
    copy = GPT(gpt.config).eval()
    copy.load_state_dict(weights)
    return copy
