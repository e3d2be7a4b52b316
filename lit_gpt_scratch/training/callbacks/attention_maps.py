"""Show attention maps in TensorBoard during training."""

import logging
import warnings
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lit_gpt_scratch.data.tokenizers import encode_prompt, token_label
from lit_gpt_scratch.model.gpt import GPT, eval_mode
from lit_gpt_scratch.model.layers import attention_weights
from lit_gpt_scratch.training.fsdp import gather_gpt
from lit_gpt_scratch.training.trainer_state import get_data, get_gpt, is_fitting, tensorboard_writers

log = logging.getLogger(__name__)

DEFAULT_N_TOKENS = 32  # length of the default sentence; more labels would be unreadable
MAX_COLUMNS = 4


class Inspection(Callback):
    """Show the attention maps of a sentence in TensorBoard, an image per layer after each evaluation."""

    def __init__(self, sentence: str = "") -> None:
        """Set the sentence.

        Args:
            sentence: Text whose attention maps are shown; if empty, the first tokens of the validation text,
                at most 32.
        """
        self.sentence = sentence

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tokenize the sentence.

        Raises:
            ValueError: The sentence has more tokens than model.block_size.
        """
        self.is_on = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        if not self.is_on:
            log.warning("callbacks.inspection needs a TensorBoard logger, which is missing: nothing is shown")
            return
        data, block_size = get_data(trainer), get_gpt(pl_module).config.block_size
        if self.sentence:
            ids = encode_prompt(data.tokenizer, self.sentence, source="inspection.sentence")
        else:
            ids = data.val_set.tokens.ids[: min(DEFAULT_N_TOKENS, block_size)]
        if len(ids) > block_size:
            raise ValueError(
                f"inspection.sentence has {len(ids)} tokens, but model.block_size is {block_size}: shorten it"
            )
        self.ids = torch.tensor([int(i) for i in ids])
        self.labels = [token_label(data.tokenizer, i) for i in self.ids.tolist()]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the attention maps of the evaluated model."""
        if not is_fitting(trainer) or not self.is_on:
            return
        gpt = gather_gpt(get_gpt(pl_module), trainer.is_global_zero)
        if gpt is None:
            return
        images = [plot_attention(weights, self.labels) for weights in attention_maps(gpt, self.ids)]
        for writer in tensorboard_writers(trainer):
            for layer, image in enumerate(images, start=1):
                tag = f"attention/layer_{layer:02}"
                writer.add_image(tag, image, trainer.global_step, dataformats="HWC")


@torch.no_grad()
def attention_maps(gpt: GPT, ids: Tensor) -> list[Tensor]:
    """Return the attention weights (H, T, T) of each layer for token ids (T,)."""
    maps: list[Tensor] = []

    def add_map(attention: Any, inputs: tuple[Any, ...]) -> None:
        q, k, _ = attention.heads(*inputs[:2])
        maps.append(attention_weights(q.float(), k.float())[0].cpu())

    hooks = [block.attn.register_forward_pre_hook(add_map) for block in cast(Any, gpt.h)]
    try:
        with eval_mode(gpt):
            gpt.features(ids[None].to(gpt.wte.weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def plot_attention(weights: Tensor, labels: list[str]) -> npt.NDArray[np.uint8]:
    """Return an image (height, width, 3) of a layer's attention weights (H, T, T), with T token labels."""
    # Imported late: matplotlib takes a while, and few runs need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_rows, n_columns = -(-len(weights) // MAX_COLUMNS), min(len(weights), MAX_COLUMNS)
    figure = Figure(figsize=(3.6 * n_columns, 3.8 * n_rows), layout="constrained")
    figure.suptitle("attention weights of row tokens to column tokens (shade: square root)", fontsize=8)
    escaped = [label.replace("$", r"\$") for label in labels]  # matplotlib parses $...$ as a formula
    for head, axes in enumerate(figure.subplots(n_rows, n_columns, squeeze=False).flat):
        if head >= len(weights):
            axes.set_visible(False)
            continue
        axes.imshow(weights[head].sqrt().numpy(), vmin=0, vmax=1, cmap="Blues")
        axes.set_title(f"head {head + 1}", fontsize=9)
        axes.set_xticks(range(len(escaped)), escaped, fontsize=5, rotation=90)
        axes.set_yticks(range(len(escaped)), escaped, fontsize=5)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():  # about characters that the font lacks
        warnings.simplefilter("ignore")
        canvas.draw()  # the first drawing measures the labels for the layout
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
