"""Weights shared out over devices (FSDP2), for models that one of them has no room for; and whole again.

Zhao et al. 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel". Checkpoints are those
of one device: shares are put together to be saved, and cut again to go on, for any number of devices.
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

SHARDED = "fsdp"  # what trainer.strategy calls it
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-true")  # that Lightning's FSDP2 has


def sharded_settings(
    strategy: Any, optimizer: str, has_ema: bool, precision: str
) -> dict[str, ModelParallelStrategy | bool]:
    """What the Trainer needs for `trainer.strategy` fsdp; nothing for another one.

    Raises:
        ValueError: fsdp does not go with the others.
    """
    if strategy != SHARDED:
        return {}
    needs_whole = {"model.optimizer muon": optimizer == "muon", "callbacks.ema": has_ema}
    for name, does in needs_whole.items():
        if does:
            raise ValueError(f"{name} needs whole weights, which trainer.strategy fsdp shares out: use ddp")
    if precision not in PRECISIONS:
        raise ValueError(f"trainer.strategy fsdp has the precisions {', '.join(PRECISIONS)}, not {precision}")
    # What an evaluation put together in inference mode, training could not use.
    return {"strategy": ShardedStrategy(), "inference_mode": False}


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2 over all devices."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Every device has its own data, and its own share of the weights."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether the Trainer hands over the optimizer's state, as it does for one device."""
        return True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint as one device does: as data, and checked."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole weights, on rank 0."""
        assert self.lightning_module is not None
        return cast(dict[str, Any], whole(self.lightning_module.state_dict(), self.is_global_zero))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Tensor]:
        """The optimizer's whole state, on rank 0."""
        state = Strategy.optimizer_state(self, optimizer)
        return cast(dict[str, Tensor], whole(state, self.is_global_zero))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take a share of whole weights."""
        assert self.lightning_module is not None
        like = self.lightning_module.state_dict()
        weights = {name: share(tensor, like[name]) for name, tensor in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(weights, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take a share of an optimizer's whole state."""
        for optimizer, whole_state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                number: {name: share(value, parameters[number]) for name, value in values.items()}
                for number, values in whole_state["state"].items()
            }
            optimizer.load_state_dict({**whole_state, "state": state})


def whole(state: Any, is_global_zero: bool) -> Any:
    """Builtins within builtins, with each tensor put together in CPU memory of rank 0; None on other ranks.

    All ranks have to ask. No device has more than one whole tensor at a time.
    """
    if isinstance(state, dict):
        return {name: whole(part, is_global_zero) for name, part in state.items()}
    if not isinstance(state, DTensor):
        return state
    tensor = state.full_tensor()
    return tensor.cpu() if is_global_zero else None


def share(value: Any, like: Tensor) -> Any:
    """This rank's share of a whole tensor, if `like` is shared out and of its shape; else what it is."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    mesh = like.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, like.placements, src_data_rank=None)


def shard(gpt: GPT, mesh: DeviceMesh) -> None:
    """Share out a model's weights: a block is put together while it computes; all else, once a step.

    The token embedding, and the output head tied to it, are so in one unit.
    """
    if isinstance(gpt, FSDPModule):  # Lightning may ask twice
        return
    for block in gpt.h:
        fully_shard(block, mesh=mesh)
    fully_shard(gpt, mesh=mesh)
    register_fsdp_forward_method(gpt, "features")  # the loss calls it by itself


def whole_gpt(gpt: GPT, is_global_zero: bool) -> GPT | None:
    """A model with all of its weights, on rank 0: itself, or a copy in CPU memory of one that is shared out.

    All ranks have to ask.
    """
    if not isinstance(gpt, FSDPModule):
        return gpt if is_global_zero else None
    weights = whole(gpt.state_dict(), is_global_zero)
    if not is_global_zero:
        return None
    copy = GPT(gpt.config).eval()
    copy.load_state_dict(weights)
    return copy
