"""The options of a run: which there are, what a checkpoint brings, and what is shown."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser

from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.model.gpt import GPTConfig
from lit_gpt_scratch.training import callbacks
from lit_gpt_scratch.training.hub_folder import read_settings
from lit_gpt_scratch.training.module import LitGPT
from lit_gpt_scratch.training.saving import OnSaveError
from lit_gpt_scratch.usage import LINKED, REPLACED

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
    "summary": callbacks.Summary,
    "early_stopping": callbacks.ValLossEarlyStopping,
    "curves": callbacks.Curves,
    "graceful_stop": callbacks.GracefulStop,
    "best_checkpoint": callbacks.BestCheckpoint,
    "last_checkpoint": callbacks.LastCheckpoint,
}
ALWAYS_ON = {"evaluation_schedule", "graceful_stop", "last_checkpoint"}  # a run is evaluated, and not lost
OFF = {"ema", "inspection", "early_stopping"}  # unless asked for
# Callbacks that write to the run folder or describe it, left out by trainer.fast_dev_run.
WRITING = (
    callbacks.BestCheckpoint,
    callbacks.LastCheckpoint,
    callbacks.Samples,
    callbacks.Curves,
    callbacks.Summary,
)
# How a command is called or began, which is no change of the run.
NOT_OF_THE_RUN = {"resume", "fork", "debug", "config", "run_dir", "model.init_from"}
# What the losses of a run may depend on: options, or beginnings of their names.
COMPARED = (
    *("model.", "data.", "trainer.max_steps", "precision", "seed_everything"),
    *("callbacks.ema", "callbacks.step_control", "callbacks.early_stopping"),
    *("ema.", "step_control.", "early_stopping."),
)


def add_run_options(parser: LightningArgumentParser, seed: int) -> None:
    """The options that belong to a run as a whole."""
    add = parser.add_argument
    folder = "Folder of the run; where it is taken, a number is added."
    add("--run_dir", type=str, default="checkpoints/run", help=folder)
    add("--eval_every", type=int, default=250, help="Optimizer steps between evaluations.")
    add("--save_every", type=int, default=250, help="Optimizer steps between saves of last.ckpt.")
    on_error = "A save that fails: retry goes on, to the next save; stop ends the run."
    add("--on_save_error", type=OnSaveError, default="retry", help=on_error)
    add("--resume", type=str | None, default=None, help="Run folder to go on with, from its last.ckpt.")
    fork = "With --resume: go on in this new folder, and leave the run as it is."
    add("--fork", type=str | None, default=None, help=fork)
    finetune = "Take --ckpt_path's weights alone: optimizer and step begin anew."
    add("--finetune", action="store_true", help=finetune)
    precision = (
        "auto is the quickest that the device has; or one of Lightning's: 32-true, bf16-mixed, 16-mixed ..."
    )
    add("--precision", type=str, default="auto", help=precision)
    compiled = (
        "Compile the model: auto does it on a GPU, and on a CPU where the run is long enough to repay it."
    )
    add("--compile", type=Literal["auto", "true", "false"], default="auto", help=compiled)
    add("--debug", action="store_true", help="Show the traceback of an error.")
    add("--seed_everything", type=int, default=seed, help="Seed of all randomness.")


def add_part_options(parser: LightningArgumentParser, model_class: type, data_class: type) -> None:
    """Model, data and callbacks; Lightning's Trainer, which fills screens of --help, comes after them."""
    parser.add_lightning_class_args(model_class, "model")
    parser.add_lightning_class_args(data_class, "data")
    for key, callback in CALLBACKS.items():
        parser.add_lightning_class_args(callback, key)
    for key in CALLBACKS:
        if key not in ALWAYS_ON:
            parser.add_argument(
                f"--callbacks.{key}", type=bool, default=key not in OFF, help="Whether it is on."
            )
    parser.add_class_arguments(
        Trainer, "trainer", instantiate=False, fail_untyped=False, sub_configs=True, skip=set(REPLACED)
    )
    parser.set_defaults({"trainer.max_steps": 1000, "trainer.log_every_n_steps": 10})


def link_options(parser: LightningArgumentParser) -> None:
    """The options that follow from others."""
    parser.link_arguments("eval_every", "evaluation_schedule.every_n_steps")
    parser.link_arguments("save_every", "last_checkpoint.every_n_steps")
    parser.link_arguments("on_save_error", "last_checkpoint.on_save_error")
    parser.link_arguments("on_save_error", "best_checkpoint.on_save_error")
    parser.link_arguments("seed_everything", "data.seed")
    parser.link_arguments("model.block_size", "data.block_size")
    parser.link_arguments("data.vocab_size", "model.vocab_size", apply_on="instantiate")


def checkpoint_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The options that a checkpoint was trained with, as defaults.

    Its texts are those really read, for which nothing may stand in.
    """
    settings = {f"model.{name}": value for name, value in checkpoint["hyper_parameters"].items()}
    settings |= {f"data.{name}": value for name, value in checkpoint["datamodule_hyper_parameters"].items()}
    state = checkpoint["TextDataModule"]
    if state["corpus"] is not None:  # weights that came from elsewhere have no text
        settings |= {"data.corpus": state["corpus"]["name"], "data.offline_corpus": None}
        validated_on = state.get("val", {}).get("corpus")
        settings["data.val_corpus"] = validated_on and validated_on["name"]
    settings["data.tokenizer"] = json.dumps(state["tokenizer"])
    return {name: value for name, value in settings.items() if name not in LINKED}


def hub_settings(folder: Path, tokenizer: str) -> dict[str, Any]:
    """The options that a Hugging Face folder's model brings, as defaults.

    Args:
        folder: The folder.
        tokenizer: What data.tokenizer is so far; the folder's own takes the place of the default.

    Raises:
        ValueError: There is no such folder, or its model or tokenizer is not supported.
    """
    from lit_gpt_scratch.data.tokenizer_json import read_hub_tokenizer  # few runs need it

    settings = {f"model.{name}": value for name, value in read_settings(folder).items()}
    if tokenizer == "char":
        settings["data.tokenizer"] = json.dumps(read_hub_tokenizer(folder, settings["model.vocab_size"]))
    return {name: value for name, value in settings.items() if name not in LINKED}


def check_resume(args: list[str], given: Namespace) -> None:
    """Look for options that --resume cannot go with.

    Raises:
        ValueError: There is one.
    """
    if args[0] != "fit":
        raise ValueError(f"--resume is for fit; {args[0]} takes --ckpt_path")
    if given.ckpt_path is not None:
        raise ValueError("--resume goes on with a run, --ckpt_path begins another: give one of them")
    if any(arg.split("=")[0] == "--run_dir" for arg in args):
        raise ValueError("--resume goes on in the run's own folder: leave --run_dir out, or use --fork")


def turn_on_named(args: list[str], given: Namespace) -> None:
    """Turn on each optional callback that the command line gives an option, unless it is turned off there."""
    for key in OFF:
        is_switched = any(arg.split("=")[0] == f"--callbacks.{key}" for arg in args)
        if not is_switched and any(arg.startswith(f"--{key}.") for arg in args):
            given.callbacks[key] = True


def without_replaced(own: list[Callback], trainer: dict[str, Any]) -> list[Callback]:
    """Return our callbacks but those for which the options of the Trainer have no use or a replacement."""
    given = trainer["callbacks"] or []
    theirs = given if isinstance(given, list) else [given]
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


def repeatable(config: Namespace, datamodule: TextDataModule, init_from: str | None) -> Namespace:
    """A run's options as another run can have them: with the text that was really read.

    Args:
        config: The options.
        datamodule: What they made.
        init_from: What a resumed run once began with.
    """
    settings = config.clone()
    run_dir = config.fork or config.run_dir
    settings.update(Namespace(run_dir=run_dir, resume=None, fork=None, ckpt_path=None, finetune=False))
    if init_from := settings.model.init_from or init_from:
        settings.model.init_from = str(Path(init_from).expanduser().resolve())
    settings.data.update(Namespace(corpus=datamodule.corpus.name, offline_corpus=None))
    if settings.data.val_corpus is not None:
        settings.data.val_corpus = datamodule.val_corpus.name
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


def check_beginning(given: Namespace) -> None:
    """Look for options that contradict each other in where a new run's weights come from.

    Raises:
        ValueError: There are some.
    """
    if given.fork is not None:
        raise ValueError("--fork is for --resume: a run that goes on in another folder")
    if given.finetune and given.ckpt_path is None:
        raise ValueError("--finetune takes the weights of --ckpt_path: name one")
    if given.model.init_from is not None and given.ckpt_path is not None:
        raise ValueError("--ckpt_path and model.init_from both bring weights: give one of them")


def check_architecture(asked: Namespace, trained: dict[str, Any], whose: str) -> None:
    """Compare the architecture that options ask for with that of given weights.

    Args:
        asked: The options of the model.
        trained: Those of the weights.
        whose: What to call the weights' owner in an error.

    Raises:
        ValueError: They differ in anything but dropout, which has no weights.
    """
    names = [field.name for field in fields(GPTConfig) if field.name not in ("dropout", "vocab_size")]
    differing = [name for name in names if name in trained and trained[name] != asked[name]]
    if differing:
        wrong = "; its ".join(f"model.{name} is {trained[name]}, not {asked[name]}" for name in differing)
        raise ValueError(f"{whose}'s {wrong}: leave the architecture out")
