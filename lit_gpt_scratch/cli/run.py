"""Parse and check the options of a run, and create its model, data and Trainer."""

import logging
import math
import re
from pathlib import Path
from typing import Any, cast

import torch
import yaml  # type: ignore[import-untyped]  # no stubs among the dependencies
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar, WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from lit_gpt_scratch import COMMANDS, PROGRAM
from lit_gpt_scratch.cli.options import (
    CALLBACKS,
    add_options,
    changed_options,
    loss_options,
    parse_options,
)
from lit_gpt_scratch.cli.resume_checks import check_architecture, check_class, check_data
from lit_gpt_scratch.cli.start import Start, pop_class, read_start
from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.training import callbacks
from lit_gpt_scratch.training.atomic_checkpoint_io import AtomicCheckpointIO
from lit_gpt_scratch.training.checkpoint import read_checkpoint
from lit_gpt_scratch.training.fsdp import fsdp_trainer_options
from lit_gpt_scratch.training.hardware import choose_compile, choose_precision, device_kind, keep_freed_memory
from lit_gpt_scratch.training.metrics import train_flops_per_token
from lit_gpt_scratch.training.module import LitGPT

TRAINER_SETTINGS = {
    "max_epochs": -1,  # trainer.max_steps ends a run
    "check_val_every_n_epoch": None,  # EvaluationSchedule counts steps
    "enable_model_summary": False,  # callbacks.Summary prints it in one line
}
FIRST_EVALUATION_TOKENS = 2**14


class Run(LightningCLI):
    """A command with its options, model and data, as LightningCLI parses and creates them.

    The Trainer is created later, once data and checkpoint have been compared.

    Attributes:
        command: Name of the command.
        start: Checkpoint or weights that the command starts with.
        config: Options of the command.
        inherited: Options before the command line and ``--config`` change them: the checkpoint's options, or
            the defaults.
        config_init: Objects created from the options: model, data, callbacks, and the Trainer's arguments.
        stop: The callback that stops the command on a signal.
    """

    model: LitGPT
    datamodule: TextDataModule

    def __init__(
        self, command: str, args: list[str], start: Start, model_class: type[LitGPT], data_class: type
    ) -> None:
        self.command = command
        self.start = start
        super().__init__(
            model_class,
            data_class,
            save_config_callback=None,
            parser_kwargs={
                "exit_on_error": False,
                "allow_abbrev": False,
                "description": COMMANDS[command].summary,
                "usage": f"{PROGRAM} {command} [options]",
            },
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add nothing: `add_run_options` adds `seed_everything`."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the command."""
        add_options(parser, self.command, self._model_class, self._datamodule_class)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse and check the options."""
        self.config, self.inherited = parse_options(parser, cast(list[str], args), self.start)
        if self.config.debug:
            logging.getLogger("lit_gpt_scratch").setLevel(logging.DEBUG)
        if self.start.path is None and (self.config.ckpt_path or self.config.init_from):
            # The path is in a file that a config refers to, which read_start does not read.
            names = "--ckpt_path or --init_from" if self.command == "fit" else "--ckpt_path"
            raise ValueError(f"{self.command} takes {names} on the command line or in a --config file")
        check_architecture(self.config.model, self.start)

    def instantiate_classes(self) -> None:
        """Create model, data and callbacks."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.model = self.config_init.model
        self.datamodule = self.config_init.data
        self.stop = cast(callbacks.StopOnSignal, self.config_init.stop_on_signal)


def read_run(command: str, args: list[str]) -> Run:
    """Parse a command's options, and create model, data and callbacks.

    Raises:
        ValueError: An option is invalid.
    """
    model_class, args = pop_class(args, "model", LitGPT)
    data_class, args = pop_class(args, "data", TextDataModule)
    start = read_start(command, args)
    if command == "fit":
        check_class(model_class, start)
    return Run(command, args, start, model_class, data_class)


def prepare(run: Run) -> None:
    """Load the data, check that they fit the checkpoint, and build the network for the vocabulary size.

    Raises:
        ValueError: A text or the tokenizer is invalid, or does not fit the checkpoint (see `check_data`).
    """
    run.datamodule.load(run.command)
    check_data(run.datamodule, run.start, run.command)
    run.model.build_gpt(vocab_size=run.datamodule.vocab_size, block_size=run.datamodule.block_size)


def load_weights(run: Run) -> None:
    """Load the initial weights of a run, unless they are random.

    Raises:
        ValueError: The weights are damaged, or do not fit the model.
    """
    path = run.start.path
    if path is None:
        return
    if run.start.checkpoint is None:
        from lit_gpt_scratch.hub.pretrained import read_state  # transformers is an extra

        state = {f"gpt.{name}": tensor for name, tensor in read_state(path).items()}
        model_vocab_size, vocab_size = len(state["gpt.wte.weight"]), run.datamodule.vocab_size
        if model_vocab_size != vocab_size:
            raise ValueError(
                f"{path}: the model has {model_vocab_size} tokens, and the tokenizer {vocab_size}"
            )
        if "gpt.wpe.weight" in state:  # a shorter block needs fewer positions
            state["gpt.wpe.weight"] = state["gpt.wpe.weight"][: run.model.gpt.config.block_size]
    else:
        state = read_checkpoint(path)["state_dict"]
    try:
        run.model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged: its weights do not fit the model") from error
    run.model.init_from = str(path)


def make_trainer(run: Run) -> Trainer:
    """Return a Trainer without loggers, for a command that writes no files."""
    arguments, _ = trainer_arguments(run)
    return _trainer(arguments | {"logger": False})


def make_fit_trainer(run: Run, run_dir: Path, stopwatch: Callback | None = None) -> Trainer:
    """Return the Trainer of a training run, after compiling the model if `compile_model` decides so.

    Args:
        run: The run.
        run_dir: Run folder.
        stopwatch: Callback that times a short run; such a run has no progress bar, no summary, no config.yaml
            and none of the user's loggers.

    Raises:
        ValueError: Options contradict each other.
    """
    arguments, reasons = trainer_arguments(run)
    arguments["default_root_dir"] = str(run_dir)
    # The loss of random weights is near ln V on any part of the text: a small part is enough.
    n_batches = math.ceil(FIRST_EVALUATION_TOKENS / run.datamodule.tokens_per_step)
    arguments["num_sanity_val_steps"] = n_batches if run.start.path is None else -1
    reasons |= compile_model(run, device_kind(str(arguments["accelerator"])), arguments["max_steps"])
    keep_freed_memory()
    if stopwatch is not None:
        silent = [callback for callback in arguments["callbacks"] if not isinstance(callback, ProgressBar)]
        arguments |= {"callbacks": [*silent, stopwatch], "enable_progress_bar": False, "logger": None}
    elif not arguments["fast_dev_run"]:
        arguments["callbacks"] += record_callbacks(run, run_dir, reasons, arguments["precision"])
    if arguments["logger"] in (None, True):
        # A killed run repeats the steps after its last save: their old points are hidden.
        purge_step = run.start.step if run.start.run_dir else None
        arguments["logger"] = TensorBoardLogger(
            run_dir, name="", version="", default_hp_metric=False, purge_step=purge_step
        )
    averages = any(isinstance(callback, WeightAveraging) for callback in arguments["callbacks"])
    if run.start.is_resume and "averaging_state" in (run.start.checkpoint or {}) and not averages:
        raise ValueError("the run averages its weights: callbacks.ema must stay on")
    return _trainer(arguments)


def trainer_arguments(run: Run) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the Trainer's arguments, and the reason for the precision, as ``{"precision": reason}``.

    Raises:
        ValueError: Options contradict each other.
    """
    arguments = {**vars(run.config_init.trainer), **TRAINER_SETTINGS}
    switches = run.config.callbacks
    user_callbacks = _as_list(arguments["callbacks"])
    replaced: list[type] = [LearningRateMonitor] if arguments["logger"] is False else []
    if any(isinstance(callback, ProgressBar) for callback in user_callbacks):
        replaced.append(callbacks.Progress)
    enabled = [run.config_init[key] for key in CALLBACKS if switches.get(key, True)]
    arguments["callbacks"] = [
        *(each for each in enabled if not isinstance(each, tuple(replaced))),
        *user_callbacks,
    ]
    arguments["val_check_interval"] = run.config.eval_every
    bars = [callback for callback in arguments["callbacks"] if isinstance(callback, ProgressBar)]
    arguments["enable_progress_bar"] = bool(bars)
    is_new_run = run.command == "fit" and not run.start.is_resume
    previous_device = None if is_new_run else (run.start.checkpoint or {}).get("device")
    kind = device_kind(str(arguments["accelerator"]))
    precision, reason = choose_precision(run.config.precision, kind, previous_device)
    arguments["precision"] = precision
    optimizer = run.config.model.optimizer
    arguments |= fsdp_trainer_options(arguments["strategy"], optimizer, switches.ema, precision)
    arguments["plugins"] = [*_as_list(arguments["plugins"]), AtomicCheckpointIO()]
    return arguments, {"precision": reason}


def compile_model(run: Run, kind: str, max_steps: int) -> dict[str, str]:
    """Compile the model's blocks if ``--compile`` is true, or if it is auto and compilation saves time.

    Args:
        run: The run.
        kind: Device type, as returned by `device_kind`.
        max_steps: Optimizer steps of the whole run; -1 for a run without a step limit.

    Returns:
        The reason for the decision, as ``{"compiled": reason}`` or ``{"not compiled": reason}``.
    """
    steps = max_steps if max_steps > 0 else math.inf
    flops = steps * run.datamodule.tokens_per_step * train_flops_per_token(run.model.gpt)
    compiled, reason = choose_compile(run.config.compile, kind, run.model.gpt, flops)
    if compiled:
        torch._dynamo.config.suppress_errors = run.config.compile == "auto"  # on errors, warn and run eagerly
        run.model.gpt.compile_blocks()
    return {"compiled" if compiled else "not compiled": reason}


def record_callbacks(run: Run, run_dir: Path, reasons: dict[str, str], precision: str) -> list[Callback]:
    """Return the callbacks that print a summary of a run and write its options to the run folder.

    Args:
        run: The run.
        run_dir: Run folder.
        reasons: Reasons for the precision and for the compilation, for the summary.
        precision: Precision that the Trainer uses, never auto.
    """
    recorded: list[Callback] = []
    if run.config.callbacks.summary:
        changes = changed_options(run.inherited, run.config) if run.start.is_resume else {}
        recorded.append(callbacks.Summary(reasons, changes))
    options = run.config.clone()
    options.update(Namespace(run_dir=str(run_dir), ckpt_path=None))
    if options.init_from is not None:
        options.init_from = str(Path(options.init_from).expanduser().resolve())
    # Name of the text that was read; without a network, it may be data.offline_corpus.
    options.data.update(Namespace(corpus=run.datamodule.corpora["train"].name, offline_corpus=None))
    if options.data.val_corpus is not None:
        options.data.val_corpus = run.datamodule.corpora["val"].name
    columns = loss_options(options, run.parser) | {
        "precision": precision,
        "data.vocab_size": run.model.gpt.config.vocab_size,
        "parameters": run.model.gpt.n_parameters,
    }
    recorded.append(callbacks.RunConfig(quote_numbers(run.parser.dump(options, skip_none=False)), columns))
    return recorded


def quote_numbers(config: str) -> str:
    """Quote strings in a YAML text that are numbers to jsonargparse, but not to YAML 1.1, such as 3e-4."""

    def quote(match: re.Match[str]) -> str:
        is_string = isinstance(yaml.safe_load(match[2]), str)
        return f"{match[1]}'{match[2]}'" if is_string else match[0]

    return re.sub(r"(?m)^( *(?:\w+:|-) )([-+]?[\d.]+[eE][-+]?\d+)$", quote, config)


def _trainer(arguments: dict[str, Any]) -> Trainer:
    try:
        trainer = Trainer(**arguments)
    except TypeError as error:
        raise ValueError(str(error)) from error
    # Processes that are forked or spawned return from `fit` without what they trained.
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ValueError("trainer.strategy must start each process with the command itself: use ddp or fsdp")
    return trainer


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
