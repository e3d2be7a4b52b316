"""A run: its options parsed once, checked, and made into model, data and Trainer."""

import glob
import logging
import math
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from lit_gpt_scratch import PROGRAM, RUN_COMMANDS
from lit_gpt_scratch.cli.checks import check_architecture
from lit_gpt_scratch.cli.class_path import check_class, take_class
from lit_gpt_scratch.cli.options import (
    CALLBACKS,
    add_part_options,
    add_predict_options,
    add_run_options,
    changed_options,
    comparable,
    link_options,
    repeatable,
    turn_on_named,
    without_replaced,
)
from lit_gpt_scratch.cli.start import Start, read_start
from lit_gpt_scratch.cli.usage import explain_usage
from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.training import callbacks
from lit_gpt_scratch.training.atomic_checkpoint_io import AtomicCheckpointIO
from lit_gpt_scratch.training.checkpoint import read_checkpoint
from lit_gpt_scratch.training.fsdp import fsdp_trainer_options
from lit_gpt_scratch.training.hardware import choose_compile, choose_precision, device_kind, keep_freed_memory
from lit_gpt_scratch.training.metrics import train_flops_per_token
from lit_gpt_scratch.training.module import LitGPT

TRAINER_SETTINGS = {
    "max_epochs": -1,  # steps alone end a run
    "check_val_every_n_epoch": None,  # evaluations count steps: EvaluationSchedule
    "enable_model_summary": False,  # callbacks.Summary prints it in one line
}
FIRST_EVALUATION_TOKENS = 2**14


class RunCLI(LightningCLI):
    """Lightning's command line for one command: model, data and callbacks from options.

    An option's value comes from the command line, else from ``--config``, else from the checkpoint's
    run (its config.yaml, if it is there) and the checkpoint, else it is the default.
    """

    def __init__(
        self, command: str, args: list[str], start: Start, model_class: type[LitGPT], data_class: type
    ) -> None:
        self.command = command
        self.start = start
        config_files = [glob.escape(str(start.config_file))] if start.config_file else []
        super().__init__(
            model_class,
            data_class,
            save_config_callback=None,
            parser_kwargs={
                "exit_on_error": False,
                "allow_abbrev": False,
                "description": RUN_COMMANDS[command],
                "usage": f"{PROGRAM} {command} [options]",
                "default_config_files": config_files,
            },
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the run as a whole."""
        if self.command == "predict":
            add_predict_options(parser)
        add_run_options(parser, self.command)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of model, data, callbacks and Trainer."""
        add_part_options(parser, self._model_class, self._datamodule_class)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link options, and set the values that the checkpoint brings."""
        link_options(parser)
        try:
            parser.set_defaults(self.start.options)
        except KeyError as error:
            raise ValueError(f"{self.start.path} has settings unknown here: {error}") from error

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse and check the options."""
        self.config = parse_options(parser, cast(list[str], args), self.start)
        if self.start.path is None and (self.config.ckpt_path or self.config.init_from):
            place = "on the command line, or in a YAML file given as --config"
            options = "--ckpt_path or --init_from" if self.command == "fit" else "a checkpoint as --ckpt_path"
            raise ValueError(f"{self.command} takes {options}, {place}")

    def instantiate_classes(self) -> None:
        """Make model, data and callbacks; the Trainer is made once they have been checked."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self.config_init.data
        self.model = self.config_init.model


def parse_options(parser: LightningArgumentParser, args: list[str], start: Start) -> Namespace:
    """Parse the options of a command.

    Raises:
        ValueError: An option is unknown or has a wrong value, or the architecture is not that of the weights.
    """
    given = [file for flag, file in zip(args, args[1:], strict=False) if flag in ("-c", "--config")]
    try:
        config = parser.parse_args(args)
    except UnicodeDecodeError as error:
        raise ValueError(f"{' or '.join(given)} is not a text file") from error
    except ArgumentError as error:
        known = [action.dest for action in parser._actions]
        raise ValueError(explain_usage(str(error), given, known)) from error
    if config.debug:  # a traceback in place of an error's one line
        logging.getLogger("lit_gpt_scratch").setLevel(logging.DEBUG)
    turn_on_named(args, config)
    names_val_corpus = any(arg.split("=")[0] == "--data.val_corpus" for arg in args)
    has_other_text = config.data.corpus != start.options.get("data.corpus", config.data.corpus)
    has_same_val_corpus = config.data.val_corpus == start.options.get("data.val_corpus")
    if has_other_text and has_same_val_corpus and not names_val_corpus:
        config.data.val_corpus = None  # another text is not validated on that of the first one
    if start.is_resume and start.run_dir is None:
        # In another folder, the checkpoint may be older than its run's config.yaml, or the text another one.
        defaults = parser.get_defaults()
        for name, value in start.options.items():
            if config[name] == defaults[name]:
                config[name] = value
    check_architecture(config.model, start)
    return config


@dataclass(frozen=True)
class Run:
    """A run that can be started.

    Args:
        command: Name of its command.
        start: Where it begins.
        config: Its options.
        defaults: What the options would be without a command line.
        made: The objects that the options describe: model, data, callbacks, and the Trainer's arguments.
        parser: The parser of the options, to write them with.
    """

    command: str
    start: Start
    config: Namespace
    defaults: Namespace
    made: Namespace
    parser: LightningArgumentParser

    @property
    def model(self) -> LitGPT:
        """The model."""
        return cast(LitGPT, self.made.model)

    @property
    def data(self) -> TextDataModule:
        """The data."""
        return cast(TextDataModule, self.made.data)

    @property
    def stop(self) -> callbacks.StopOnSignal:
        """The callback that stops the run on a signal."""
        return cast(callbacks.StopOnSignal, self.made.stop_on_signal)


def read_run(command: str, args: list[str]) -> Run:
    """Read a command's options, and make model, data and callbacks of them.

    Raises:
        ValueError: An option is wrong.
    """
    model_class, args = take_class(args, "model", LitGPT)
    data_class, args = take_class(args, "data", TextDataModule)
    start = read_start(command, args)
    if command == "fit" and start.checkpoint is not None:
        check_class(model_class, start.checkpoint.get("class_path"))
    cli = RunCLI(command, args, start, model_class, data_class)
    defaults = cli.parser.get_defaults() if start.is_resume else cli.config
    return Run(command, start, cli.config, defaults, cli.config_init, cli.parser)


def load_weights(run: Run) -> None:
    """Load the weights to begin with.

    Raises:
        ValueError: They are damaged, or do not fit the model.
    """
    path = run.start.path
    if path is None:
        return
    if run.start.checkpoint is None:
        from lit_gpt_scratch.hub.pretrained import read_state  # transformers is an extra

        state = {f"gpt.{name}": tensor for name, tensor in read_state(path).items()}
        n_tokens, vocab_size = len(state["gpt.wte.weight"]), run.data.vocab_size
        if n_tokens != vocab_size:
            raise ValueError(f"{path}: the model has {n_tokens} tokens, and the tokenizer {vocab_size}")
        if "gpt.wpe.weight" in state:  # a shorter block leaves later positions out
            state["gpt.wpe.weight"] = state["gpt.wpe.weight"][: run.model.gpt.config.block_size]
    else:
        state = read_checkpoint(path)["state_dict"]
    try:
        run.model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged: its weights do not fit") from error
    run.model.init_from = str(path)


def trainer_options(run: Run, extra: Sequence[Callback]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the Trainer's arguments, and the reasons for those that were chosen by the hardware.

    Raises:
        ValueError: Options contradict each other.
    """
    options = {**vars(run.made.trainer), **TRAINER_SETTINGS}
    switches = run.config.callbacks
    own = [run.made[key] for key in CALLBACKS if switches.get(key, True)]
    user = options["callbacks"] or []
    user = user if isinstance(user, list) else [user]
    options["callbacks"] = [*without_replaced(own, user, options), *extra, *user]
    options["val_check_interval"] = run.config.eval_every
    if not switches.progress:
        options["enable_progress_bar"] = False
    checkpoint = run.start.checkpoint or {}
    before = checkpoint.get("device") if run.start.is_resume or run.command != "fit" else None
    kind = device_kind(str(options["accelerator"]))
    options["precision"], reason = choose_precision(run.config.precision, kind, before)
    optimizer = run.config.model.optimizer
    options |= fsdp_trainer_options(options["strategy"], optimizer, switches.ema, options["precision"])
    plugins = options["plugins"] or []
    options["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
    return options, {"precision": reason}


def make_trainer(run: Run) -> Trainer:
    """Return the Trainer of a command that writes nothing."""
    options, _ = trainer_options(run, [])
    return build_trainer({**options, "logger": False})


def build_trainer(options: dict[str, Any]) -> Trainer:
    """Return a Trainer.

    Raises:
        ValueError: It does not accept a value.
    """
    try:
        return Trainer(**options)
    except TypeError as error:
        raise ValueError(str(error)) from error


def make_fit_trainer(run: Run, run_dir: Path, extra: Sequence[Callback], is_silent: bool = False) -> Trainer:
    """Return the Trainer of a training run, and compile the model where that is worthwhile.

    Args:
        run: The run.
        run_dir: Its folder.
        extra: Further callbacks.
        is_silent: Leave out the progress bar, the summary, config.yaml and the user's loggers.

    Raises:
        ValueError: Options contradict each other.
    """
    options, reasons = trainer_options(run, extra)
    options["default_root_dir"] = str(run_dir)
    options["num_sanity_val_steps"] = _n_first_evaluation_batches(run)
    reasons |= compile_model(run, device_kind(str(options["accelerator"])), options["max_steps"])
    keep_freed_memory()
    if is_silent:
        options |= {"enable_progress_bar": False, "logger": None}
        options["callbacks"] = [c for c in options["callbacks"] if not isinstance(c, callbacks.Progress)]
    elif not options["fast_dev_run"]:
        if run.config.callbacks.summary:
            changes = changed_options(run.defaults, run.config)
            options["callbacks"].append(callbacks.Summary(reasons, changes))
        settings = repeatable(run.config, run_dir, run.data)
        yaml = run.parser.dump(settings, skip_none=False)
        shown = comparable(settings, run.model, options["precision"])
        options["callbacks"].append(callbacks.RunConfig(yaml, shown))
    if options["logger"] in (None, True):
        # Points of a killed run that come after its last save are logged again.
        purge_step = run.start.step if run.start.run_dir else None
        options["logger"] = TensorBoardLogger(
            run_dir, name="", version="", default_hp_metric=False, purge_step=purge_step
        )
    averages = any(isinstance(callback, WeightAveraging) for callback in options["callbacks"])
    if run.start.is_resume and "averaging_state" in (run.start.checkpoint or {}) and not averages:
        raise ValueError("the run averages its weights: callbacks.ema must stay on")
    return build_trainer(options)


def _n_first_evaluation_batches(run: Run) -> int:
    """Return the number of batches in the evaluation of step 0, Lightning's sanity check; -1 for all.

    The loss of random weights is near ln V on any part of the text, so a small part is enough.
    """
    if run.start.path is not None:
        return -1
    return math.ceil(FIRST_EVALUATION_TOKENS / run.data.tokens_per_step)


def compile_model(run: Run, kind: str, max_steps: int) -> dict[str, str]:
    """Compile the model's blocks where that is asked for or worthwhile; return the reason."""
    steps = max_steps if max_steps > 0 else math.inf
    flops = steps * run.data.tokens_per_step * train_flops_per_token(run.model.gpt)
    compiled, reason = choose_compile(run.config.compile, kind, run.model.gpt, flops)
    if compiled:
        run.model.compile_blocks(fall_back_to_eager=run.config.compile == "auto")
    return {"compiled" if compiled else "not compiled": reason}
