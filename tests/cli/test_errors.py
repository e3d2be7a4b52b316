"""Invalid input exits with 2 and one line, and writes no files."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.command_line import TINY, Result, Run


def assert_one_line_error(done: Result, message: str) -> None:
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.n_layre", "3"], "unrecognized arguments: --model.n_layre 3; did you mean model.n_layer?"),
        (["--modle.n_layer", "3"], "did you mean model.n_layer?"),
        (["--model.n_layer", "three"], 'Parser key "model.n_layer": Expected int. Got value: three'),
        (["--model.activation", "relu"], "Literal['gelu', 'gelu_tanh']"),
        (["--model.n_layer", "-1"], "model.n_layer must be at least 1, not -1"),
        (["--data.batch_size", "0"], "data.batch_size must be at least 1, not 0"),
        (["--data.micro_batch_size", "0"], "data.micro_batch_size must be at least 1, not 0"),
        (["--data.val_fraction", "1"], "data.val_fraction must lie between 0 and 1, not 1"),
        (["--data.tokenizer", "wordpiece"], "data.tokenizer 'wordpiece' is none of char, byte, bpe, "),
        (["--data.tokenizer", "cl100k"], "did you mean cl100k_base?"),
        (
            ["--data.tokenizer", "bpe", "--data.vocab_size", "5000000000"],
            "at most 4294967296, not 5000000000",
        ),
        (["--model.block_size", "400"], "hamlet is too short"),
        (["--data.corpus", "nothing.txt"], "no such text: 'nothing.txt'"),
        (["--data.corpus", "."], "no .txt, .md, .jsonl, .parquet file, compressed or not, in the folder ."),
        (["--eval_every", "0"], '"eval_every": must be > 0, not 0'),
        (["--save_every", "-5"], '"save_every": must be > 0, not -5'),
        (["--step_control.max_norm", "0"], "step_control.max_norm must be above 0"),
        (["--samples.temperature", "-1"], "temperature must be 0 (greedy) or above"),
        (["--trainer.max_steps", "-1"], "set trainer.max_steps or model.decay_steps"),
        (["--trainer.accelerator", "cuda"], "CUDA"),
        (["--trainer.max_epochs", "3"], "--trainer.max_epochs 3; use trainer.max_steps instead"),
        (["--trainer.gradient_clip_val", "1"], "use step_control.max_norm instead"),
        (["--model.decay_steps", "5"], "model.decay_steps (5) must not be below warmup_steps (10)"),
        (["--data.corpus", ""], "data.corpus is empty: name a text"),
        (["--run_dir", "."], "run_dir must name a folder of its own, not '.'"),
        (["--seed_everything", "-1"], "seed_everything"),
        (["--model.vocab_size", "3"], "model.vocab_size"),
        (
            ["--ckpt_path", "a", "--init_from", "b"],
            "--ckpt_path resumes a run, --init_from starts a new",
        ),
        (["--resume", "a"], "unrecognized arguments: --resume a; use --ckpt_path RUN_FOLDER instead"),
        (
            ["--model.init_from", "a"],
            "unrecognized arguments: --model.init_from a; use --init_from instead",
        ),
        (["--config", "missing.yaml"], "File does not exist"),
        (["--config", "configs/day20.yaml"], "; its name is now tutorial_char.yaml"),
        (["--config", "gpt2-1024.yaml"], "; its name is now gpt2_1024.yaml"),
        (["--ckpt_path", "missing"], "no such checkpoint: missing"),
        (["--run_dir", "/dev/null/run"], "cannot make the folder /dev/null/run"),
        (["--fork", "a"], "unrecognized arguments: --fork a; use --run_dir with --ckpt_path instead"),
        (["--finetune"], "unrecognized arguments: --finetune; use --init_from instead"),
        (["--init_from", "missing"], "no such checkpoint or folder: missing"),
        (["--step_control.max_skipped_steps", "0"], "step_control.max_skipped_steps must be above 0, not 0"),
        (["--step_control.norm_ratio", "-3"], "step_control.norm_ratio must be above 0, not -3"),
        (
            ["--best_checkpoint.save_top_k", "0"],
            "best_checkpoint.save_top_k must be at least 1, or -1, not 0",
        ),
        (["--ema.decay", "1", "--callbacks.ema", "true"], "ema.decay must lie between 0 and 1, not 1"),
        (["--early_stopping.patience", "0"], "early_stopping.patience must be at least 1, not 0"),
        (["--early_stopping.min_delta", "-1"], "early_stopping.min_delta must not be negative, but is -1.0"),
        (
            ["--model.learning_rate", "nan"],
            'Parser key "model.learning_rate": Expected float. Got value: nan',
        ),
        (["--model.learning_rate", "0"], "model.learning_rate (0.0) must be above 0"),
        (
            ["--model.min_learning_rate", "1"],
            "model.min_learning_rate (1.0) between 0 and model.learning_rate",
        ),
        (["--model.beta2", "1"], "model.beta1 and model.beta2 must be at least 0 and below 1"),
        (["--model.weight_decay", "-1"], "model.weight_decay must not be negative"),
        (["--model.warmup_steps", "-1"], "model.warmup_steps"),
        (["--model.muon_learning_rate", "0"], "model.muon_learning_rate"),
        (["--precision", "bf17"], "'bf17'"),
        (["--trainer.precision", "32-true"], "use precision instead"),
        (["--compile", "maybe"], "compile takes 'auto' or bool, not 'maybe'"),
        (["--trainer.devices", "0", "--trainer.accelerator", "cpu"], "devices"),
        (
            ["--trainer.strategy", "fsdp", "--model.optimizer", "muon"],
            "model.optimizer muon needs whole weights, but trainer.strategy fsdp shards them: use ddp",
        ),
        (["--trainer.strategy", "fsdp", "--callbacks.ema", "true"], "callbacks.ema needs whole weights"),
        (
            ["--trainer.strategy", "fsdp", "--precision", "64-true"],
            "trainer.strategy fsdp has the precisions 32-true, bf16-mixed, bf16-true, 16-true, not 64-true",
        ),
    ],
)
def test_invalid_option_of_fit_exits_2_and_writes_no_files(
    run: Run, args: list[str], message: str, tmp_path: Path
) -> None:
    if "cuda" in args and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert_one_line_error(run("fit", *TINY, "--run_dir", "run", *args), message)
    assert not list(tmp_path.iterdir())  # no run folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [1, 2", "Problems parsing config: while parsing a flow sequence in bad.yaml, line 1"),
        (
            "model: {n_layre: 3}",
            "'model' does not accept option 'n_layre'; did you mean model.n_layer?",
        ),
        ("model: {n_layer: many}", 'Parser key "model.n_layer": Expected int. Got value: many'),
        ("run_folder: x", "'run_folder'"),
        ("", "bad.yaml is not a mapping of options"),
        ("some\nprose\n" * 1000, "bad.yaml is not a mapping of options"),
        ("{data: {corpus: hamlet}, model: {n_layer: null}}", "model.n_layer must be at least 1, not None"),
    ],
)
def test_invalid_config_exits_2_with_one_line(run: Run, text: str, message: str) -> None:
    Path("bad.yaml").write_text(text)
    assert_one_line_error(run("fit", "--config", "bad.yaml"), message)


def test_binary_config_exits_2_with_one_line(run: Run) -> None:
    Path("bad.yaml").write_bytes(b"\xff\xfe\x00")
    assert_one_line_error(run("fit", "--config=bad.yaml"), "bad.yaml is not a text file")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--temperature", "-1"], "temperature must be 0 (greedy) or above, not -1"),
        (["--max_new_tokens", "0"], "max_new_tokens must be 1 to 1,000,000, not 0"),
        (["--num_samples", "0"], "num_samples must be at least 1, not 0"),
        (["--stop", ""], "a stop string must not be empty"),
        (["--promt", "x"], "did you mean prompt?"),
        (["--banned_tokens", "[999]"], "banned_tokens has 999, but the vocabulary's tokens are 0 to"),
        (["--batch_size", "0"], "batch_size must be at least 1, not 0"),
        (["--prompts_file", "nothing.txt"], "cannot read nothing.txt: No such file or directory"),
        (["--format", "xml"], "Literal['text', 'jsonl']"),
        (["--interactive", "--format", "jsonl"], "--interactive asks for its prompts"),
        (["--resume", "x"], "unrecognized arguments: --resume x; use --ckpt_path RUN_FOLDER instead"),
    ],
)
def test_invalid_option_of_predict_exits_2_with_one_line(
    run: Run, finished: Path, args: list[str], message: str
) -> None:
    assert_one_line_error(run("predict", "--ckpt_path", finished, *args), message)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("train", "there are fit, validate, test, predict, plan"), ("fitt", "did you mean fit?")],
)
def test_unknown_command_exits_2_with_a_suggestion(run: Run, name: str, suggestion: str) -> None:
    assert_one_line_error(run(name), f"no such command: {name}; {suggestion}")


@pytest.mark.parametrize("debug", [["--debug"], ["--config", "debug.yaml"]])
def test_debug_raises_the_exception(run: Run, debug: list[str]) -> None:
    Path("debug.yaml").write_text("debug: true\n")
    with pytest.raises(ValueError, match="n_layer must be at least 1"):
        run("fit", *TINY, "--model.n_layer", "0", *debug)


def test_read_only_run_folder_exits_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is simulated because the superuser can write to any folder."""
    original_open = Path.open

    def read_only(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if "w" in mode and self.name == ".config.yaml.part":
            raise PermissionError(13, "Permission denied")
        return original_open(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", read_only)
    done = run("fit", *TINY, "--run_dir", "r")
    assert done.code == 2
    assert "cannot write into the run folder r: Permission denied" in done.err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "data:\n  block_size: 8\n",
            "data.block_size in c.yaml has no effect: it follows from model.block_size",
        ),
        ("data:\n  seed: 8\n", "data.seed in c.yaml has no effect: it follows from seed_everything"),
        (
            "model:\n  vocab_size: 8\n",
            "model.vocab_size in c.yaml has no effect: it follows from data.tokenizer",
        ),
    ],
)
def test_option_that_follows_from_another_is_rejected_in_a_config(
    run: Run, config: str, message: str
) -> None:
    Path("c.yaml").write_text(config)
    assert_one_line_error(run("fit", *TINY, "--config", "c.yaml"), message)
