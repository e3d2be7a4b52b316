"""A look inside the model while it learns."""

import logging
import warnings
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lit_gpt_scratch.data.tokenizer import Tokenizer, encode_prompt, token_label
from lit_gpt_scratch.model.gpt import GPT, eval_mode
from lit_gpt_scratch.model.layers import attention_weights
from lit_gpt_scratch.training.parts import data_of, gpt_of, is_fit, tensorboards
from lit_gpt_scratch.training.sharding import whole_gpt

log = logging.getLogger(__name__)

N_TOKENS = 32  # of the validation text, where no sentence is given: what still can be read beside a map
PANELS_IN_A_ROW = 4


class Inspection(Callback):
    """Show the attention maps of a sentence in TensorBoard, a picture of each layer after each evaluation."""

    def __init__(self, sentence: str = "") -> None:
        """Remember the sentence.

        Args:
            sentence: What is looked at; nothing at all stands for the first tokens of the validation text.
        """
        self.sentence = sentence

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make tokens of the sentence.

        Raises:
            ValueError: They are more than a block.
        """
        self.is_on = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        if not self.is_on:
            log.warning("callbacks.inspection is for TensorBoard, which this run has not: nothing is shown")
            return
        data, block_size = data_of(trainer), gpt_of(pl_module).config.block_size
        if self.sentence:
            ids = encode_prompt(data.tokenizer, self.sentence, what="inspection.sentence")
        else:
            ids = data.val_set.tokens.ids[: min(N_TOKENS, block_size)]
        if len(ids) > block_size:
            raise ValueError(
                f"inspection.sentence has {len(ids)} tokens, and a block {block_size}: give a shorter one"
            )
        self.ids = torch.tensor([int(i) for i in ids])
        self.labels = token_labels(data.tokenizer, self.ids)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what each head of the model that has just been evaluated looks at."""
        if not is_fit(trainer) or not self.is_on:
            return
        gpt = whole_gpt(gpt_of(pl_module), trainer.is_global_zero)
        if gpt is None:
            return
        pictures = [drawn(weights, self.labels) for weights in attention_maps(gpt, self.ids)]
        for writer in tensorboards(trainer):
            for layer, picture in enumerate(pictures, start=1):
                tag = f"attention/layer_{layer:02}"
                writer.add_image(tag, picture, trainer.global_step, dataformats="HWC")


def token_labels(tokenizer: Tokenizer, ids: Tensor) -> list[str]:
    """Each token's text, in one line."""
    return [token_label(tokenizer, i) for i in ids.tolist()]


@torch.no_grad()
def attention_maps(gpt: GPT, ids: Tensor) -> list[Tensor]:
    """What each token of a sentence gathers from itself and those before it, for each layer.

    Args:
        gpt: The model.
        ids: The sentence, (T,).

    Returns:
        A layer's weights, (H, T, T).
    """
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


def drawn(weights: Tensor, labels: list[str]) -> npt.NDArray[np.uint8]:
    """A layer's attention maps as a picture.

    Args:
        weights: Of each head, (H, T, T).
        labels: The tokens' texts.

    Returns:
        Height, width and three colours.
    """
    # They take a while to import, and few runs need them.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_rows, n_columns = -(-len(weights) // PANELS_IN_A_ROW), min(len(weights), PANELS_IN_A_ROW)
    figure = Figure(figsize=(3.6 * n_columns, 3.8 * n_rows), layout="constrained")
    figure.suptitle("a row's token gathers from the columns' (shade: root of its share)", fontsize=8)
    plain = [label.replace("$", r"\$") for label in labels]  # two of them would make a formula
    for head, axes in enumerate(figure.subplots(n_rows, n_columns, squeeze=False).flat):
        if head >= len(weights):
            axes.set_visible(False)
            continue
        axes.imshow(weights[head].sqrt().numpy(), vmin=0, vmax=1, cmap="Blues")
        axes.set_title(f"head {head + 1}", fontsize=9)
        axes.set_xticks(range(len(plain)), plain, fontsize=5, rotation=90)
        axes.set_yticks(range(len(plain)), plain, fontsize=5)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():  # a script that the font lacks is shown as boxes
        warnings.simplefilter("ignore")
        canvas.draw()  # which learns how much room the labels take
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
