"""TensorBoard: scalars, the table of runs and custom charts."""

from pathlib import Path
from typing import Any

import torch
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from helpers.checkpoints import last_checkpoint
from helpers.command_line import TINY, Run
from helpers.events import events
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.data.tokenizers import CharTokenizer

FIT = ["fit", *TINY, "--eval_every", "5", "--trainer.log_every_n_steps", "5", "--save_every", "5"]


def weights_of(folder: str) -> list[torch.Tensor]:
    weights = last_checkpoint(folder)["state_dict"]
    del weights["gpt.lm_head.weight"]  # tied to wte, stored twice
    return [*weights.values()]


def points(folder: Path | str, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in events(folder).Scalars(tag)]


def settings(folder: str) -> dict[str, Any]:
    content = events(folder).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    logged = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in logged.items()}


def test_steps_repeated_by_a_resume_are_logged_once(run: Run) -> None:
    """A resumed run repeats the steps that a killed run logged after its last save."""
    late = ["--save_every", 5, "--eval_every", 100, "--trainer.log_every_n_steps", 1]
    assert run("fit", *TINY, *late, "--trainer.max_steps", 9, "--run_dir", "r").code == 0
    before = last_checkpoint("r")
    assert before["global_step"] == 9
    assert run("fit", *TINY, *late, "--trainer.max_steps", 5, "--run_dir", "short").code == 0
    Path("short/last.ckpt").replace("r/last.ckpt")  # as if killed after step 9 and saved at step 5
    assert run("fit", "--ckpt_path", "r", "--trainer.max_steps", 9).code == 0
    assert [step for step, _ in points("r", "train/loss")] == [*range(9)]


def test_other_loggers_get_the_same_metrics(run: Run) -> None:
    csv = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs"]
    assert run(*FIT, "--trainer.max_steps", 10, *csv, "--run_dir", "r").code == 0
    (log,) = Path("logs").rglob("metrics.csv")
    columns = log.read_text().splitlines()[0].split(",")
    assert {"train/loss", "train/grad_norm", "val/loss", "val/perplexity", "learning_rate/decay"} < {*columns}
    assert "throughput/tokens_per_second" in columns


def test_hparams_table_has_options_and_metrics(run: Run) -> None:
    assert run(*FIT, "--trainer.max_steps", 5, "--run_dir", "r").code == 0
    logged = settings("r")
    assert logged["model.n_embd"] == 32
    assert logged["data.batch_size"] == 8
    assert logged["data.corpus"] == "hamlet"
    assert logged["data.tokenizer"] == "char"
    assert logged["trainer.max_steps"] == 5
    assert logged["model.tie_weights"] == "True"
    assert logged["callbacks.ema"] == "False"
    assert logged["data.vocab_size"] == CharTokenizer(HAMLET).vocab_size
    assert logged["parameters"] == sum(p.numel() for p in weights_of("r"))
    assert logged["precision"] in ("32-true", "bf16-mixed")
    assert not logged.keys() & {"model.vocab_size", "data.seed", "data.block_size"}  # redundant
    content = events("r").SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    metrics = {info.name.tag for info in experiment.metric_infos}
    assert {"val/loss", "val/bits_per_byte"} < metrics <= set(events("r").Tags()["scalars"])


def test_hparams_have_the_same_types_in_all_runs(run: Run) -> None:
    """TensorBoard takes the columns from the first run that it finds."""
    plain = ["--trainer.max_steps", 5, "--run_dir", "plain"]
    given = ["--data.micro_batch_size", 4, "--model.decay_steps", 50, "--step_control.max_norm", "null"]
    assert run(*FIT, *plain).code == 0
    assert run(*FIT, "--trainer.max_steps", 5, *given, "--run_dir", "given").code == 0
    one, other = settings("plain"), settings("given")
    assert {name: type(value) for name, value in one.items()} == {n: type(v) for n, v in other.items()}
    assert (one["data.micro_batch_size"], other["data.micro_batch_size"]) == ("None", "4")


def test_rejected_resume_does_not_change_the_hparams(run: Run) -> None:
    assert run(*FIT, "--trainer.max_steps", 5, "--run_dir", "r").code == 0
    long = ["--callbacks.inspection", "true", "--inspection.sentence", "to be " * 20]
    assert run("fit", "--ckpt_path", "r", "--trainer.max_steps", 10, *long).code == 2
    assert settings("r")["trainer.max_steps"] == 5


def test_custom_chart_has_both_losses(finished: Path) -> None:
    logged = events(finished)
    (tensor,) = logged.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    tags = {tag for part in layout.category for chart in part.chart for tag in chart.multiline.tag}
    assert {"train/eval_loss", "val/loss"} < tags <= set(logged.Tags()["scalars"])


def test_option_of_an_optional_callback_turns_it_on(run: Run) -> None:
    steps = [*FIT, "--trainer.max_steps", 5, "--early_stopping.patience", "3"]
    assert run(*steps, "--run_dir", "on").code == 0
    assert run(*steps, "--callbacks.early_stopping", "false", "--run_dir", "off").code == 0
    saved = [last_checkpoint(name)["callbacks"] for name in ("on", "off")]
    assert [any("EarlyStopping" in key for key in callbacks) for callbacks in saved] == [True, False]
