"""LitGPT and TextDataModule with Lightning's Trainer, callbacks and loggers."""

import tempfile
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.loggers import CSVLogger
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from helpers.checkpoints import best_checkpoint, bit_identical, last_checkpoint
from helpers.command_line import TINY, Run
from lit_gpt_scratch import LitGPT, TextDataModule
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.generation.generate import SamplingOptions
from lit_gpt_scratch.training.callbacks import StepControl

SIZES: dict[str, Any] = {"n_layer": 1, "n_head": 2, "n_embd": 16, "warmup_steps": 2}


@pytest.fixture(autouse=True)
def _empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def data() -> TextDataModule:
    return TextDataModule("hamlet", batch_size=4, block_size=16)


def trainer(max_steps: int = 8, **options: Any) -> Trainer:
    defaults = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    defaults |= {"enable_checkpointing": False, "val_check_interval": 4, "check_val_every_n_epoch": None}
    return Trainer(max_steps=max_steps, max_epochs=-1, accelerator="cpu", **(defaults | options))


def with_checkpoints(*callbacks: Callback, **options: Any) -> Trainer:
    return trainer(callbacks=list(callbacks), enable_checkpointing=True, **options)


def test_vocab_size_and_block_size_come_from_the_data_module() -> None:
    module = LitGPT(**SIZES)
    fit_trainer = trainer()
    fit_trainer.fit(module, data())
    vocab_size = len(set(HAMLET))
    assert module.gpt.config.vocab_size == vocab_size
    assert module.gpt.config.block_size == 16
    assert module(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, vocab_size)
    assert fit_trainer.callback_metrics["val/loss"] < 3.7


def test_gpt_options_are_parsed_without_the_source_of_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """jsonargparse reads the source of the class to resolve `**gpt`."""
    names: dict[str, Any] = {}
    exec("def backward(self, *args, **kwargs): pass", names)
    monkeypatch.setattr(LitGPT, "backward", names["backward"])
    parser = ArgumentParser()
    parser.add_class_arguments(LitGPT, "model", fail_untyped=False)
    assert {"model.n_layer", "model.block_size"} <= {action.dest for action in parser._actions}


def test_missing_sizes_are_reported_by_name() -> None:
    with pytest.raises(ValueError, match="LitGPT needs vocab_size and block_size"):
        trainer().fit(LitGPT(**SIZES), DataLoader(TensorDataset(torch.zeros(4, 8))))


def test_plain_dataloader_trains() -> None:
    ids = torch.randint(8, (64, 9), generator=torch.Generator().manual_seed(0))
    pairs = DataLoader(TensorDataset(ids[:, :-1], ids[:, 1:]), batch_size=16)
    module = LitGPT(vocab_size=8, block_size=8, **SIZES)
    fit_trainer = trainer(callbacks=[StepControl()])
    fit_trainer.fit(module, pairs, pairs)
    assert module.n_tokens == 8 * 16 * 8
    assert fit_trainer.callback_metrics["val/loss"] < 2.2


def test_plain_dataloader_run_resumes_bit_identically() -> None:
    def rows() -> DataLoader[Any]:
        ids = torch.arange(18).view(2, 9) * 3 % 8  # one batch
        return DataLoader(TensorDataset(ids[:, :-1], ids[:, 1:]), batch_size=2)

    def module() -> LitGPT:
        torch.manual_seed(0)
        return LitGPT(**SIZES, vocab_size=8, block_size=8, decay_steps=8)

    trainer(max_steps=3, limit_val_batches=0).fit(whole := module(), rows())
    first = with_checkpoints(
        ModelCheckpoint(".", filename="c", every_n_train_steps=2), max_steps=2, limit_val_batches=0
    )
    first.fit(module(), rows())
    trainer(max_steps=3, limit_val_batches=0).fit(resumed := module(), rows(), ckpt_path="c.ckpt")
    assert bit_identical(resumed.gpt.state_dict(), whole.gpt.state_dict())


class RowsModule(LightningDataModule):
    """A data module of tensors, without texts and tokenizer."""

    def train_dataloader(self) -> DataLoader[Any]:
        ids = torch.arange(36).view(4, 9) % 8
        return DataLoader(TensorDataset(ids[:, :-1], ids[:, 1:]), batch_size=2)

    val_dataloader = train_dataloader


def test_data_module_without_tokenizer_trains() -> None:
    module = LitGPT(**SIZES, vocab_size=8, block_size=8)
    fit_trainer = trainer(max_steps=2, val_check_interval=2)
    fit_trainer.fit(module, datamodule=RowsModule())
    assert fit_trainer.global_step == 2
    assert module.tokenizer is None
    assert module.evaluation["val/loss"] > 0


def test_weights_only_checkpoint_predicts() -> None:
    fit_trainer = with_checkpoints(
        ModelCheckpoint(".", "weights", every_n_train_steps=2, save_weights_only=True), max_steps=2
    )
    fit_trainer.fit(LitGPT(**SIZES), data())
    module = LitGPT(**SIZES, vocab_size=len(set(HAMLET)), block_size=16)
    [[text]] = trainer().predict(module, DataLoader(["To be"]), ckpt_path="weights.ckpt")
    assert text.startswith("To be")


@pytest.mark.parametrize(("device", "dtype"), [("mps", torch.float32), ("cuda", torch.float64)])
def test_loss_is_summed_in_float64_unless_the_device_lacks_it(device: str, dtype: torch.dtype) -> None:
    """In `setup`, the module is still on the CPU, and the strategy has the device."""
    module = LitGPT(**SIZES)
    module.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    module.setup("fit")
    assert module.val_loss.total.dtype == dtype


def test_trainer_validate_returns_the_metrics() -> None:
    module = LitGPT(**SIZES)
    fit_trainer = trainer()
    fit_trainer.fit(module, data())
    (metrics, *_) = fit_trainer.validate(module, data(), verbose=False)
    assert metrics["val/loss"] == pytest.approx(float(fit_trainer.callback_metrics["val/loss"]))


def test_trainer_predict_continues_prompts() -> None:
    module = LitGPT(**SIZES)
    fit_trainer = with_checkpoints(ModelCheckpoint("kept", "last", every_n_train_steps=8))
    fit_trainer.fit(module, data())
    prompts = DataLoader(["To be", "Or not"], batch_size=2)
    module.sampling = SamplingOptions(max_new_tokens=20, seed=1)
    (texts,) = fit_trainer.predict(module, prompts)
    assert [text[:5] for text in texts] == ["To be", "Or no"]
    assert [len(text) for text in texts] == [25, 26]
    loaded = LitGPT.load_from_checkpoint("kept/last.ckpt")
    loaded.sampling = module.sampling
    assert trainer().predict(loaded, prompts) == [texts]


def test_learning_rate_follows_the_schedule() -> None:
    module = LitGPT(schedule="linear", learning_rate=1.0, min_learning_rate=0.0, **SIZES)
    rates = Rates()
    fit_trainer = trainer(max_steps=6, callbacks=[rates])
    fit_trainer.fit(module, data())
    assert rates.values == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4])


class Rates(Callback):
    """Collect the learning rate of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.values.append(optimizer.param_groups[0]["lr"])


class SgdModule(LitGPT):
    """A module that trains with SGD and a constant learning rate."""

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=0.25)


def test_overridden_optimizer_is_used() -> None:
    rates = Rates()
    fit_trainer = trainer(callbacks=[rates])
    fit_trainer.fit(SgdModule(**SIZES), data())
    assert type(fit_trainer.optimizers[0]) is SGD
    assert rates.values == [0.25] * 8


def test_resumed_run_uses_the_new_optimizer_options() -> None:
    trainer_of_first = with_checkpoints(ModelCheckpoint("kept", "last", every_n_train_steps=4), max_steps=4)
    trainer_of_first.fit(LitGPT(**SIZES), data())
    rates = Rates()
    module = LitGPT(learning_rate=0.5, weight_decay=0.25, schedule="constant", **SIZES)
    resumed = trainer(callbacks=[rates])
    resumed.fit(module, data(), ckpt_path="kept/last.ckpt")
    assert rates.values == [0.5] * 4
    assert resumed.optimizers[0].param_groups[0]["weight_decay"] == 0.25


@pytest.mark.parametrize(
    ("option", "replacement"),
    [({"gradient_clip_val": 1.0}, "StepControl"), ({"accumulate_grad_batches": 2}, "data.micro_batch_size")],
)
def test_unsupported_trainer_option_names_its_replacement(option: dict[str, Any], replacement: str) -> None:
    with pytest.raises(ValueError, match=replacement):
        trainer(**option).fit(LitGPT(**SIZES), data())


def test_model_checkpoint_saves_by_steps_by_time_and_by_metric() -> None:
    by_steps = ModelCheckpoint("steps", every_n_train_steps=3, save_top_k=-1, save_last=True)
    by_time = ModelCheckpoint("time", "{step}", train_time_interval=timedelta(0))
    best = ModelCheckpoint("best", "best", monitor="val/loss")
    with_checkpoints(by_steps, by_time, best).fit(LitGPT(**SIZES), data())
    assert {path.name for path in Path("steps").iterdir()} == {
        "epoch=0-step=3.ckpt",
        "epoch=0-step=6.ckpt",
        "last.ckpt",
    }
    assert [*Path("time").iterdir()]
    kept = best_checkpoint("best")
    assert float(best.best_model_score or 0) == pytest.approx(kept["evaluation"]["val/loss"])


def test_model_checkpoint_resumes_bit_identically() -> None:
    straight, parts = LitGPT(dropout=0.1, **SIZES), LitGPT(dropout=0.1, **SIZES)
    torch.manual_seed(3)
    trainer(max_steps=8).fit(straight, data())
    torch.manual_seed(3)
    keep = ModelCheckpoint("kept", every_n_train_steps=5)
    with_checkpoints(keep, max_steps=5).fit(LitGPT(dropout=0.1, decay_steps=8, **SIZES), data())
    torch.manual_seed(3)
    trainer(max_steps=8).fit(parts, data(), ckpt_path=keep.best_model_path)
    assert bit_identical(straight.state_dict(), parts.state_dict())


def test_ema_checkpoint_has_averaged_and_raw_weights() -> None:
    keep = ModelCheckpoint("kept", every_n_train_steps=8)
    module = LitGPT(**SIZES)
    with_checkpoints(EMAWeightAveraging(decay=0.5), keep).fit(module, data())
    kept = torch.load(keep.best_model_path, weights_only=True)
    assert not bit_identical(kept["state_dict"], kept["current_model_state"])


def test_csv_logger_and_monitors_receive_their_metrics() -> None:
    logger = CSVLogger("logs", name=None, version="")
    monitors = [LearningRateMonitor(), DeviceStatsMonitor(cpu_stats=True), RichProgressBar()]
    fit_trainer = trainer(logger=logger, callbacks=monitors, log_every_n_steps=2, enable_progress_bar=True)
    fit_trainer.fit(LitGPT(**SIZES), data())
    columns = Path("logs/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"learning_rate/decay", "learning_rate/no_decay", "train/loss", "val/loss"} <= {*columns}
    assert any("cpu_percent" in column for column in columns)


def test_profiler_report_is_printed(run: Run) -> None:
    done = run("fit", *TINY, "--trainer.max_steps", "2", "--trainer.profiler", "simple")
    assert done.code == 0
    assert "FIT Profiler Report" in done.out + done.err


def test_fast_dev_run_leaves_no_files(run: Run, tmp_path: Path) -> None:
    before = {*Path(tempfile.gettempdir()).iterdir()}
    done = run("fit", *TINY, "--trainer.fast_dev_run", "true", "--run_dir", "r")
    assert done.code == 0
    assert "step 1/1" in done.out
    assert [*Path.cwd().iterdir()] == []
    left = {*Path(tempfile.gettempdir()).iterdir()} - before
    assert not [path for path in left if (path / "config.yaml").exists() or (path / "last.ckpt").exists()]


@pytest.mark.parametrize(
    "given",
    [
        ["RichProgressBar"],
        ["DeviceStatsMonitor"],
        [
            "ModelCheckpoint",
            "--trainer.callbacks.every_n_train_steps",
            "1",
            "--trainer.callbacks.dirpath",
            "kept",
        ],
        ["EMAWeightAveraging", "--trainer.callbacks.decay", "0.9"],
    ],
)
def test_standard_callbacks_work_on_the_command_line(run: Run, given: list[str]) -> None:
    done = run("fit", *TINY, "--trainer.max_steps", "2", "--trainer.callbacks+", *given, "--run_dir", "r")
    assert (done.code, done.err) == (0, "")
    assert Path("kept").is_dir() == ("ModelCheckpoint" in given)
    if "EMAWeightAveraging" in given:
        assert "current_model_state" in last_checkpoint("r")


def test_standard_callbacks_work_in_a_config(run: Run) -> None:
    stopping = "{class_path: EarlyStopping, init_args: {monitor: val/loss, min_delta: 99, patience: 1}}"
    Path("custom.yaml").write_text(f"trainer:\n  max_steps: 40\n  callbacks:\n    - {stopping}\n")
    done = run("fit", *TINY, "--config", "custom.yaml", "--eval_every", "2", "--run_dir", "r")
    assert done.code == 0
    assert last_checkpoint("r")["global_step"] == 4


def test_subclasses_are_selected_with_class_path(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("custom.py").write_text(
        "from lit_gpt_scratch import LitGPT, TextDataModule\n"
        "class CustomGPT(LitGPT):\n"
        "    def learning_rate_at(self, step):\n"
        "        return 0.0\n"
        "class CustomData(TextDataModule):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(Path.cwd())
    classes = ["--model.class_path", "custom.CustomGPT", "--data.class_path", "custom.CustomData"]
    assert run("fit", *TINY, *classes, "--trainer.max_steps", "2", "--run_dir", "r").code == 0
    resume = ["--ckpt_path", "r", "--trainer.max_steps", "3"]
    before = last_checkpoint("r")["state_dict"]
    rejected = run("fit", *resume)
    assert rejected.code == 2
    assert "was trained with --model.class_path custom.CustomGPT: give it again" in rejected.err
    assert run("fit", *resume, *classes).code == 0
    assert bit_identical(before, last_checkpoint("r")["state_dict"])
    assert run("predict", "--ckpt_path", "r", "--max_new_tokens", "3").code == 0


@pytest.mark.parametrize("class_path", ["custom", "missing.Custom", "pathlib.Path", "pathlib.Nothing"])
def test_invalid_class_path_exits_2(run: Run, class_path: str) -> None:
    rejected = run("fit", *TINY, "--model.class_path", class_path)
    assert rejected.code == 2
    assert rejected.err.startswith("error: --model.class_path must ")
