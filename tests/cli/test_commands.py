"""The commands `validate`, `test` and `predict` after `fit`."""

import math
import random
from pathlib import Path

import pytest
import torch

from helpers.checkpoints import best_checkpoint, last_checkpoint
from helpers.command_line import ROOT, TINY, Run, two_devices
from helpers.marks import needs_gpt2_encoding
from lit_gpt_scratch.data.bpe import tokenizer_from_dict
from lit_gpt_scratch.data.corpus import HAMLET


def metrics(out: str) -> dict[str, float]:
    return {line.split()[0]: float(line.split()[1]) for line in out.splitlines() if "/" in line.split()[0]}


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt", ""])
def test_validate_reproduces_the_logged_losses(run: Run, finished: Path, name: str) -> None:
    done = run("validate", "--ckpt_path", finished / name)
    assert done.code == 0
    assert done.err == ""
    logged = torch.load(finished / (name or "best.ckpt"), weights_only=True)["evaluation"]
    assert metrics(done.out)["val/loss"] == pytest.approx(logged["val/loss"], abs=1e-5)
    assert metrics(done.out)["train/eval_loss"] == pytest.approx(logged["train/eval_loss"], abs=1e-5)
    assert {"val/perplexity", "val/bits_per_byte"} <= metrics(done.out).keys()
    assert f"step {logged['step']}" in done.out


def test_validate_test_and_predict_write_no_files(run: Run, finished: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    for command in ("validate", "test", "predict"):
        assert run(command, "--ckpt_path", finished).code == 0
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before
    assert not list(tmp_path.iterdir())


def test_test_evaluates_test_corpus_or_the_validation_part(run: Run, finished: Path, tmp_path: Path) -> None:
    on_val = run("test", "--ckpt_path", finished)
    assert "the validation part of hamlet: there is no data.test_corpus" in on_val.out
    validated = metrics(run("validate", "--ckpt_path", finished).out)
    assert metrics(on_val.out)["test/loss"] == pytest.approx(validated["val/loss"], abs=1e-6)
    assert metrics(on_val.out)["test/perplexity"] == pytest.approx(validated["val/perplexity"], abs=1e-4)

    (tmp_path / "own.txt").write_text("To sleep, to dream.\n")
    on_own = run("test", "--ckpt_path", finished, "--data.test_corpus", "own.txt")
    assert on_own.code == 0
    assert "own.txt" in on_own.out
    assert metrics(on_own.out)["test/loss"] != metrics(on_val.out)["test/loss"]


def test_text_with_characters_outside_the_vocabulary_is_rejected(run: Run, finished: Path) -> None:
    Path("other.txt").write_text("ЖЖЖ and more of it, again and again. " * 10, encoding="utf-8")
    for command, option in (
        ("validate", "--data.corpus"),
        ("test", "--data.test_corpus"),
        ("fit", "--data.corpus"),
    ):
        done = run(command, "--ckpt_path", finished, option, "other.txt", "--run_dir", "r")
        assert done.code == 2
        assert "the checkpoint's tokenizer does not fit" in done.err
        assert "'Ж'" in done.err
    rebuilt = run("fit", "--ckpt_path", finished, "--data.corpus", "other.txt", "--data.tokenizer", "char")
    assert rebuilt.code == 2
    assert "the checkpoint's tokenizer is not the one made from" in rebuilt.err


def test_command_line_overrides_config_which_overrides_checkpoint(run: Run, finished: Path) -> None:
    Path("mine.yaml").write_text("data: {val_fraction: 0.3}\n")

    def val_loss(*args: str) -> float:
        return metrics(run("validate", "--ckpt_path", finished, *args).out)["val/loss"]

    from_checkpoint = val_loss()
    assert val_loss("--config", "mine.yaml") != from_checkpoint
    overrides = ["--data.val_fraction", "0.1"]
    assert (
        val_loss("--config", "mine.yaml", *overrides)
        == val_loss(*overrides, "--config=mine.yaml")
        == from_checkpoint
    )

    # The same for fit; n_embd is only in the checkpoint, and is not the default.
    steps = ["--trainer.max_steps", "42", "--run_dir", "r"]
    overrides = ["--config", "mine.yaml", "--data.batch_size", "4"]
    assert run("fit", "--ckpt_path", finished, *overrides, *steps).code == 0
    trained = last_checkpoint("r")
    assert trained["hyper_parameters"]["n_embd"] == 32
    assert trained["hyper_parameters"]["dropout"] == 0.1
    assert trained["datamodule_hyper_parameters"]["val_fraction"] == 0.3
    assert trained["datamodule_hyper_parameters"]["batch_size"] == 4


def test_architecture_that_differs_from_the_checkpoint_is_rejected(run: Run, finished: Path) -> None:
    done = run("validate", "--ckpt_path", finished, "--model.n_layer", "3")
    assert done.code == 2
    assert "the checkpoint's model.n_layer is 2, not 3" in done.err


def test_learned_bpe_trains_validates_and_predicts(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LIT_GPT_CACHE", str(tmp_path / "cache"))
    tokenizer = ["--data.tokenizer", "bpe", "--data.vocab_size", "280", "--data.val_fraction", "0.3"]
    assert run("fit", *TINY, *tokenizer, "--run_dir", "r").code == 0
    checkpoint = best_checkpoint("r")
    assert checkpoint["hyper_parameters"]["vocab_size"] == 280
    monkeypatch.setenv("LIT_GPT_CACHE", str(tmp_path / "another"))  # the checkpoint has the tokenizer
    done = run("validate", "--ckpt_path", "r")
    assert done.code == 0
    logged, found = checkpoint["evaluation"], metrics(done.out)
    assert found["val/loss"] == pytest.approx(logged["val/loss"], abs=1e-5)
    val = tokenizer_from_dict(checkpoint["TextDataModule"]["tokenizer"]).encode(
        HAMLET[int(0.7 * len(HAMLET)) :]
    )
    n_bytes = len(HAMLET) - int(0.7 * len(HAMLET))
    bits = logged["val/loss"] / math.log(2) * (len(val) - 1) / n_bytes
    assert found["val/bits_per_byte"] == pytest.approx(bits, rel=0.02)  # the first token is no target
    written = run("predict", "--ckpt_path", "r", "--prompt", "To be ☃", "--max_new_tokens", "5")
    assert written.out.startswith("To be ☃")
    assert written.err == ""


@pytest.mark.slow
@needs_gpt2_encoding
def test_untrained_gpt2_generates_text_and_has_loss_ln_v(run: Run) -> None:
    config, prompt = ["--config", ROOT / "configs" / "gpt2.yaml"], "Hello, I am"
    greedy = ["--prompt", prompt, "--max_new_tokens", "6", "--temperature", "0"]
    done = run("predict", *config, *greedy)
    assert done.code == 0
    assert done.out.startswith(prompt)
    assert len(done.out) > len(prompt) + 6
    assert done.out == run("predict", *config, *greedy).out
    # Tied weights favour repetitions of the last token, which are rare in random words.
    Path("words.txt").write_text(" ".join(random.Random(1).choices(HAMLET.split(), k=40_000)))
    few = ["--data.corpus", "words.txt", "--data.batch_size", "2", "--trainer.limit_val_batches", "2"]
    loss = metrics(run("validate", *config, *few).out)["val/loss"]
    assert abs(loss - math.log(50257)) < 0.2


def test_a_part_of_the_validation_text_is_named(run: Run, finished: Path) -> None:
    out = run("validate", "--ckpt_path", finished, "--trainer.limit_val_batches", "1").out
    assert "the validation part of hamlet, a part of it: trainer.limit_val_batches is 1\n" in out
    assert "a part of it" not in run("validate", "--ckpt_path", finished).out


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn", "ddp_notebook"])
def test_strategies_that_fork_or_spawn_are_rejected_before_training(run: Run, strategy: str) -> None:
    done = run("fit", *TINY, *two_devices(strategy), "--run_dir", "r")
    assert done.code == 2
    assert "use ddp or fsdp" in done.err
    assert not Path("r").exists()


def test_warmup_that_does_not_end_is_reported(run: Run) -> None:
    done = run("fit", *TINY, "--trainer.max_steps", "10", "--run_dir", "r")
    assert done.code == 0
    assert "warning 10 steps of warmup leave none of 10 for decay" in done.out


def test_float16_on_a_cpu_is_reported_as_bfloat16(run: Run) -> None:
    done = run("fit", *TINY, "--precision", "16-mixed", "--run_dir", "r")
    assert "precision bf16-mixed (16-mixed is for GPUs)" in done.out
