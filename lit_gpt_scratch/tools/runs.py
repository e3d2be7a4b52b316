"""Finished runs, as what they cost and what they came to."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lit_gpt_scratch.tools.scaling_law import Point, training_flops
from lit_gpt_scratch.training.checkpoint_io import read_checkpoint
from lit_gpt_scratch.training.metrics import bits_per_byte

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run as its last checkpoint tells of it.

    Args:
        name: Of its folder.
        n_parameters: Of its model, token table included.
        step: The last one.
        n_tokens: That it read.
        loss: Of the validation text, in nats per token.
        bits_per_byte: The same in bits per byte of text.
        corpus: The name of its text.
        corpus_sha256: That of the text.
        vocab_size: Of its tokenizer.
        optimizer: That trained it: of another one, the loss is another.
    """

    name: str
    n_parameters: int
    step: int
    n_tokens: int
    loss: float
    bits_per_byte: float | None
    corpus: str
    corpus_sha256: str
    vocab_size: int
    optimizer: str

    @property
    def point(self) -> Point:
        """What a law is fitted on."""
        return Point(self.n_parameters, self.n_tokens, self.loss)

    @property
    def flops(self) -> float:
        """What it cost."""
        return training_flops(self.n_parameters, self.n_tokens)


def run_of(folder: Path) -> Run:
    """The run of a folder.

    Raises:
        ValueError: Its last checkpoint cannot be read, or is not one of training.
    """
    checkpoint = read_checkpoint(folder / "last.ckpt", mmap=True)
    evaluation = checkpoint["evaluation"]
    corpus = checkpoint["TextDataModule"]["corpus"]
    if corpus is None or "val/loss" not in evaluation:
        raise ValueError(f"{folder} is not a run that was evaluated")
    weights = checkpoint["state_dict"]
    tied = checkpoint["hyper_parameters"]["tie_weights"]  # the head is stored twice, and counts once
    counted = [t.numel() for name, t in weights.items() if not (tied and name == "gpt.lm_head.weight")]
    bytes_per_token = checkpoint["TextDataModule"].get("val", {}).get("bytes_per_token")
    loss = evaluation["val/loss"]
    return Run(
        name=folder.name,
        n_parameters=sum(counted),
        step=checkpoint["global_step"],
        n_tokens=checkpoint["n_tokens"],
        loss=loss,
        bits_per_byte=bits_per_byte(loss, bytes_per_token) if bytes_per_token else None,
        corpus=corpus["name"],
        corpus_sha256=corpus["sha256"],
        vocab_size=len(weights["gpt.wte.weight"]),
        optimizer=checkpoint["hyper_parameters"]["optimizer"],
    )


def finished_runs(folder: Path) -> list[Run]:
    """The runs in a folder, in order of what they cost; what cannot be read is left out, and named."""
    runs = []
    for last in folder.glob("*/last.ckpt"):
        try:
            runs.append(run_of(last.parent))
        except ValueError as error:
            log.warning("left out: %s", error)
    return sorted(runs, key=lambda run: run.flops)
