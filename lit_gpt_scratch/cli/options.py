"""The options of a run."""

import json
from argparse import SUPPRESS
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser

from lit_gpt_scratch.cli.usage import LINKED, REPLACED
from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.generation.predict import PredictOptions
from lit_gpt_scratch.model.gpt import GPTConfig
from lit_gpt_scratch.training import callbacks
from lit_gpt_scratch.training.module import LitGPT

CALLBACKS = {
    "evaluation_schedule": callbacks.EvaluationSchedule,
    "step_control": callbacks.StepControl,
    "ema": callbacks.EMA,
    "perplexity": callbacks.Perplexity,
    "learning_rate": LearningRateMonitor,
    "throughput": callbacks.Throughput,
    "samples": callbacks.Samples,
    "inspection": callbacks.Inspection,
    "progress": callbacks.Progress,
    "early_stopping": callbacks.ValLossEarlyStopping,
    "curves": callbacks.Curves,
    "stop_on_signal": callbacks.StopOnSignal,
    "best_checkpoint": callbacks.BestCheckpoint,
    "last_checkpoint": callbacks.LastCheckpoint,
}
ALWAYS_ON = {"evaluation_schedule", "stop_on_signal", "last_checkpoint"}  # a run is evaluated, and not lost
SWITCHES = [*(key for key in CALLBACKS if key not in ALWAYS_ON), "summary"]
OFF = {"ema", "inspection", "early_stopping"}  # unless asked for
LISTED = {"prompt": "Text to continue", "stop": "String at which a text ends, itself left out"}  # of predict
# Callbacks that write to the run folder or describe it, left out by trainer.fast_dev_run.
WRITING = (
    callbacks.BestCheckpoint,
    callbacks.LastCheckpoint,
    callbacks.Samples,
    callbacks.Curves,
)
# How a command is called or began, which is no change of the run.
NOT_OF_THE_RUN = {"ckpt_path", "init_from", "debug", "config", "run_dir", "data.tokenizer"}
# What the losses of a run may depend on: options, or beginnings of their names.
COMPARED = (
    *("model.", "data.", "trainer.max_steps", "precision", "seed_everything"),
    *("callbacks.ema", "callbacks.step_control", "callbacks.early_stopping"),
    *("ema.", "step_control.", "early_stopping."),
)


def add_run_options(parser: LightningArgumentParser, command: str) -> None:
    """Add the options that belong to a run as a whole."""
    add = parser.add_argument
    checkpoint = "Checkpoint to use: a file, or a run folder for its best.ckpt."
    init_from = SUPPRESS  # in a config file of fit's, which the other commands accept too
    if command == "fit":
        checkpoint = (
            "Checkpoint to go on from, with all that it holds: a file, or a run folder for its last.ckpt. "
            "The run stays in its folder, unless --run_dir names another one."
        )
        init_from = (
            "Weights to begin a new run with: a checkpoint, a run folder for its last.ckpt, or a Hugging "
            "Face folder."
        )
    add("--init_from", type=str | None, default=None, help=init_from)
    add("--ckpt_path", type=str | None, default=None, help=checkpoint)
    folder = "Folder of the run; where it is taken, a number is added."
    add("--run_dir", type=str, default="checkpoints/run", help=folder)
    add("--eval_every", type=PositiveInt, default=250, help="Optimizer steps between evaluations.")
    add("--save_every", type=PositiveInt, default=250, help="Optimizer steps between saves of last.ckpt.")
    precision = (
        "auto is the quickest that the device has; or one of Lightning's: 32-true, bf16-mixed, 16-mixed ..."
    )
    add("--precision", type=str, default="auto", help=precision)
    compiled = (
        "Compile the model: auto does it on a GPU, and on a CPU where the run is long enough to repay it."
    )
    add("--compile", type=Literal["auto", "true", "false"], default="auto", help=compiled)
    add("--debug", action="store_true", help="Show the traceback of an error.")
    add("--seed_everything", type=NonNegativeInt, default=1337, help="Seed of all randomness.")


def add_predict_options(parser: LightningArgumentParser) -> None:
    """Add the options of `predict`."""
    add = parser.add_argument_group("What it continues").add_argument
    for name, text in LISTED.items():
        add(f"--{name}", action="append", default=[], help=f"{text}; may be given several times.")
    add("--interactive", action="store_true", help="Keep a prompt open: type, read, go on.")
    parser.add_class_arguments(PredictOptions, skip={*LISTED, "interactive"}, instantiate=False)


def add_part_options(parser: LightningArgumentParser, model_class: Any, data_class: Any) -> None:
    """Model, data and callbacks; Lightning's Trainer, which fills screens of --help, comes after them."""
    # The vocabulary follows from the data: the network is built once they are loaded.
    parser.add_class_arguments(
        model_class, "model", fail_untyped=False, sub_configs=True, skip={"vocab_size"}
    )
    parser.add_lightning_class_args(data_class, "data")
    for key, callback in CALLBACKS.items():
        parser.add_lightning_class_args(callback, key)
    for key in SWITCHES:
        parser.add_argument(f"--callbacks.{key}", type=bool, default=key not in OFF, help="Whether it is on.")
    parser.add_class_arguments(
        Trainer, "trainer", instantiate=False, fail_untyped=False, sub_configs=True, skip=set(REPLACED)
    )
    parser.set_defaults({"trainer.max_steps": 1000, "trainer.log_every_n_steps": 10})


def link_options(parser: LightningArgumentParser) -> None:
    """The options that follow from others."""
    parser.link_arguments("eval_every", "evaluation_schedule.every_n_steps")
    parser.link_arguments("save_every", "last_checkpoint.every_n_train_steps")
    parser.link_arguments("seed_everything", "data.seed", compute_fn=int)  # a plain int, which is data
    parser.link_arguments("model.block_size", "data.block_size")


def turn_on_named(args: list[str], given: Namespace) -> None:
    """Turn on each optional callback that the command line gives an option, unless it is turned off there."""
    for key in OFF:
        is_switched = any(arg.split("=")[0] == f"--callbacks.{key}" for arg in args)
        if not is_switched and any(arg.startswith(f"--{key}.") for arg in args):
            given.callbacks[key] = True


def without_replaced(own: list[Callback], theirs: list[Callback], trainer: dict[str, Any]) -> list[Callback]:
    """Return our callbacks without those that the user's own callbacks or the Trainer's options replace."""
    unused: tuple[type, ...] = (LearningRateMonitor,) if trainer["logger"] is False else ()
    if any(isinstance(callback, ProgressBar) for callback in theirs):
        unused += (callbacks.Progress,)
    if trainer["fast_dev_run"]:
        unused += WRITING
    return [callback for callback in own if not isinstance(callback, unused)]


def changed_options(before: Namespace, now: Namespace) -> dict[str, str]:
    """What is not as it was, each as `old -> new`."""
    was, is_now = (vars(options.as_flat()) for options in (before, now))
    names = [name for name in is_now if name in was and name not in NOT_OF_THE_RUN]
    pairs = {name: (was[name], is_now[name]) for name in names if was[name] != is_now[name]}
    as_yaml = {name: ["null" if value is None else value for value in pair] for name, pair in pairs.items()}
    return {name: f"{old} -> {new}" for name, (old, new) in as_yaml.items()}


def repeatable(config: Namespace, run_dir: Path, datamodule: TextDataModule) -> Namespace:
    """Return the options with which the same run can be begun again: with the text that was really read."""
    settings = config.clone()
    settings.update(Namespace(run_dir=str(run_dir), ckpt_path=None))
    if config.init_from is not None:
        settings.init_from = str(Path(config.init_from).expanduser().resolve())
    settings.data.update(Namespace(corpus=datamodule.corpora["train"].name, offline_corpus=None))
    if settings.data.val_corpus is not None:
        settings.data.val_corpus = datamodule.corpora["val"].name
    return settings


def comparable(settings: Namespace, model: LitGPT, precision: str) -> dict[str, str | float]:
    """Of a run's options, those that its losses may depend on, as TensorBoard's table of runs can show them.

    Args:
        settings: The options.
        model: What they made.
        precision: The one that was chosen.
    """
    every = vars(settings.as_flat())
    shown = {name: value for name, value in every.items() if name.startswith(COMPARED) and name not in LINKED}
    shown |= {"precision": precision, "data.vocab_size": model.gpt.config.vocab_size}
    shown["parameters"] = model.gpt.n_parameters
    if shown["data.tokenizer"].startswith("{"):  # a whole vocabulary, from a checkpoint
        shown["data.tokenizer"] = json.loads(shown["data.tokenizer"])["kind"]
    # A column has one type for all runs, and none for a truth or for what is not there.
    names = _may_be_null()
    return {
        name: value if type(value) in (int, float) and name not in names else str(value)
        for name, value in shown.items()
    }


def _may_be_null() -> set[str]:
    """Options of model, data and callbacks that need have no value."""
    parts: dict[str, Any] = {"model": LitGPT, "data": TextDataModule, **CALLBACKS}
    hints = [(part, get_type_hints(of_part.__init__)) for part, of_part in parts.items()]
    hints.append(("model", get_type_hints(GPTConfig)))
    return {f"{part}.{n}" for part, hint in hints for n, kind in hint.items() if type(None) in get_args(kind)}
