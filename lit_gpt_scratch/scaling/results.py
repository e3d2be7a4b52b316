"""Results of training runs, read from their last checkpoints."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lit_gpt_scratch.scaling.law import training_flops
from lit_gpt_scratch.training.checkpoint import read_checkpoint
from lit_gpt_scratch.training.metrics import bits_per_byte

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """Validation loss, text, vocabulary, optimizer and numbers of parameters and training tokens of a run."""

    name: str  # of the run's folder
    n_parameters: int  # including token embeddings; tied weights count once
    step: int  # optimizer steps
    n_tokens: int  # training tokens read, over all devices
    loss: float  # of the validation text, in nats per token
    bits_per_byte: float | None  # the same loss in bits per byte
    corpus: str  # name of the text
    corpus_sha256: str
    vocab_size: int
    optimizer: str

    @property
    def flops(self) -> float:
        """Training FLOPs, estimated as 6 N D for N parameters and D tokens."""
        return training_flops(self.n_parameters, self.n_tokens)


def read_result(folder: Path) -> RunResult:
    """Return the result of the run in a folder.

    Raises:
        ValueError: The run's last checkpoint cannot be read, or has no evaluation.
    """
    checkpoint = read_checkpoint(folder / "last.ckpt", mmap=True)
    data, weights = checkpoint["TextDataModule"], checkpoint["state_dict"]
    settings = checkpoint["hyper_parameters"]
    corpus, loss = data["corpus"], checkpoint["evaluation"].get("val/loss")
    if corpus is None or loss is None:
        raise ValueError(f"{folder} has no run with an evaluation")
    tied = {"gpt.lm_head.weight"} if settings["tie_weights"] else set()  # stored twice
    bytes_per_token = data.get("val", {}).get("bytes_per_token")
    return RunResult(
        name=folder.name,
        n_parameters=sum(weights[name].numel() for name in weights.keys() - tied),
        step=checkpoint["global_step"],
        n_tokens=checkpoint["n_tokens"],
        loss=loss,
        bits_per_byte=bits_per_byte(loss, bytes_per_token) if bytes_per_token else None,
        corpus=corpus["name"],
        corpus_sha256=corpus["sha256"],
        vocab_size=len(weights["gpt.wte.weight"]),
        optimizer=settings["optimizer"],
    )


def read_results(folder: Path) -> list[RunResult]:
    """Return the results of the runs in subfolders, by ascending FLOPs; log a warning for unreadable runs."""
    results = []
    for checkpoint in folder.glob("*/last.ckpt"):
        try:
            results.append(read_result(checkpoint.parent))
        except ValueError as error:
            log.warning("left out: %s", error)
    return sorted(results, key=lambda result: result.flops)
