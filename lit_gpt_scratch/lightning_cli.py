"""The commands that Lightning runs: LightningCLI, where checkpoints bring their settings."""

import glob
import itertools
import logging
import math
import os
import tempfile
from argparse import ArgumentError
from pathlib import Path
from typing import Any, cast

from jsonargparse import Namespace
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lit_gpt_scratch import PROGRAM, RUN_COMMANDS
from lit_gpt_scratch.class_path import check_class, take_class
from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.options import (
    CALLBACKS,
    add_part_options,
    add_run_options,
    changed_options,
    check_architecture,
    check_beginning,
    check_resume,
    checkpoint_settings,
    comparable,
    hub_settings,
    link_options,
    repeatable,
    turn_on_named,
    without_replaced,
)
from lit_gpt_scratch.tools.predict import PredictOptions, predict
from lit_gpt_scratch.training import callbacks
from lit_gpt_scratch.training.checkpoint_io import find_checkpoint, read_checkpoint
from lit_gpt_scratch.training.ending import end, say_how_to_go_on
from lit_gpt_scratch.training.event_logger import run_loggers
from lit_gpt_scratch.training.hardware import choose_compile, choose_precision, device_kind, keep_freed_memory
from lit_gpt_scratch.training.metrics import train_flops_per_token
from lit_gpt_scratch.training.module import LitGPT
from lit_gpt_scratch.training.run_folder import (
    CONFIG,
    RUN_DIR_VARIABLE,
    claim_folder,
    give_up_folder,
    resumed_folder,
)
from lit_gpt_scratch.training.saving import RunCheckpointIO
from lit_gpt_scratch.training.sharding import sharded_settings
from lit_gpt_scratch.usage import explain_usage

log = logging.getLogger(__name__)

TRAINER_SETTINGS = {
    "max_epochs": -1,  # steps alone end a run
    "check_val_every_n_epoch": None,  # evaluations count steps: EvaluationSchedule
    "enable_model_summary": False,  # callbacks.Summary says it in one line
}
LISTED = {"prompt": "Text to continue", "stop": "String at which a text ends, itself left out"}  # of predict
FIRST_EVALUATION_TOKENS = 2**14


class LitGPTCLI(LightningCLI):
    """The subcommands of `RUN_COMMANDS`.

    An option's value is looked for on the command line, then in --config, then in the checkpoint, then among
    the defaults.
    """

    def __init__(self, args: list[str]) -> None:
        self.own_model_class, args = take_class(args, "model", LitGPT)
        self.own_data_class, args = take_class(args, "data", TextDataModule)
        self.checkpoint_path: Path | None = None
        self.checkpoint: dict[str, Any] | None = None  # all of it but the weights
        self.goes_on = False  # from the checkpoint's step and optimizer, not from its weights alone
        self.init_from: str | None = None  # what a resumed run once began with
        self.changes: dict[str, str] = {}  # of a resumed run's options
        super().__init__(
            self.own_model_class,
            self.own_data_class,
            save_config_callback=None,
            seed_everything_default=1337,
            parser_kwargs={"exit_on_error": False}
            | {
                name: {"exit_on_error": False, "description": text, "usage": f"{PROGRAM} {name} [options]"}
                for name, text in RUN_COMMANDS.items()
            },
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    # Building the parsers

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Each subcommand, with the arguments of its method that are not options."""
        return {name: {"model", "datamodule", "interactive", *LISTED} for name in RUN_COMMANDS}

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        self._subcommand_parsers = {}
        subcommands = parser.add_subcommands()
        for name, summary in RUN_COMMANDS.items():
            # The methods of this class, not the Trainer's, say what options a subcommand has.
            subparser = self._prepare_subcommand_parser(type(self), name, **kwargs[name])
            subcommands.add_subcommand(name, subparser, help=summary)
            self._subcommand_parsers[name] = subparser
        add = self._subcommand_parsers["predict"].add_argument_group("What it continues").add_argument
        for name, text in LISTED.items():
            add(f"--{name}", action="append", default=[], help=f"{text}; may be given several times.")
        add("--interactive", action="store_true", help="Keep a prompt open: type, read, go on.")
        self._subcommand_method_arguments["predict"] += [*LISTED, "interactive"]

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options of the run itself."""
        add_run_options(parser, self.seed_everything_default)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Those of its parts."""
        add_part_options(parser, self.own_model_class, self.own_data_class)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Those that follow from others."""
        link_options(parser)

    # Reading the options

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; where a checkpoint is named, parse again over the settings that it brings."""
        self.config = self._parse(cast(list[str], args))
        given = self.config[self.config.subcommand]
        if given.debug:  # a traceback in place of an error's one line
            logging.getLogger("lit_gpt_scratch").setLevel(logging.DEBUG)
        if given.seed_everything < 0:
            raise ValueError(f"seed_everything must not be negative, but is {given.seed_everything}")
        subparser = self._subcommand_parsers[self.config.subcommand]
        if given.resume is not None:
            check_resume(cast(list[str], args), given)
            run_dir = resumed_folder(given.resume)
            self.checkpoint_path = run_dir / "last.ckpt"
            subparser.default_config_files = [glob.escape(str(run_dir / CONFIG))]
        elif given.ckpt_path is not None:
            self.checkpoint_path = find_checkpoint(given.ckpt_path)
        if given.resume is None and self.config.subcommand == "fit":
            check_beginning(given)
        if self.checkpoint_path is not None:
            self._take_settings_of_checkpoint(self.checkpoint_path, cast(list[str], args))
            if given.resume is not None:
                before = self._parse(["fit", "--resume", given.resume])["fit"]
                self.changes = changed_options(before, self.config["fit"])
        elif given.model.init_from is not None:
            settings = hub_settings(Path(given.model.init_from).expanduser(), given.data.tokenizer)
            subparser.set_defaults(settings)
            self.config = self._parse(cast(list[str], args))
            model = self.config[self.config.subcommand].model
            theirs = {name.removeprefix("model."): value for name, value in settings.items()}
            if model.block_size < theirs["block_size"]:  # the later positions are left out
                del theirs["block_size"]
            check_architecture(model, theirs, given.model.init_from)

    def _take_settings_of_checkpoint(self, path: Path, args: list[str]) -> None:
        asked_val_corpus = self.config[self.config.subcommand].data.val_corpus
        checkpoint = read_checkpoint(path, mmap=True)
        self.checkpoint = {name: part for name, part in checkpoint.items() if name != "state_dict"}
        try:
            self._subcommand_parsers[self.config.subcommand].set_defaults(
                checkpoint_settings(self.checkpoint)
            )
        except KeyError as error:
            raise ValueError(f"{path} has settings unknown here: {error}") from error
        if self.config.subcommand == "fit":
            check_class(self.own_model_class, checkpoint.get("class_path"))
        self.config = self._parse(args)
        given = self.config[self.config.subcommand]
        check_architecture(given.model, self.checkpoint["hyper_parameters"], "the checkpoint")
        trained_on = self.checkpoint["TextDataModule"]["corpus"]
        if trained_on is not None and given.data.corpus != trained_on["name"]:
            given.data.val_corpus = asked_val_corpus  # another text is not validated on the first one's
        # Its weights take the place of the first ones, whose folder need not be there any more.
        self.init_from, given.model.init_from = given.model.init_from, None
        self.goes_on = not given.finetune and "optimizer_states" in self.checkpoint

    def _parse(self, args: list[str]) -> Namespace:
        config_files = [value for flag, value in itertools.pairwise(args) if flag in ("-c", "--config")]
        try:
            config = self.parser.parse_args(args)
            turn_on_named(args, config[config.subcommand])
            return config
        except UnicodeDecodeError as error:
            raise ValueError(f"{' or '.join(config_files)} is not a text file") from error
        except ArgumentError as error:
            subparser = self._subcommand_parsers.get(args[0], self.parser)
            known = [action.dest for action in subparser._actions]
            raise ValueError(explain_usage(str(error), config_files, known)) from error

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let the checkpoint win over the command line."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer with its run folder, logger and callbacks; only `fit` writes anything."""
        config = {**self._get(self.config_init, "trainer"), **TRAINER_SETTINGS, **kwargs}
        switches = self._get(self.config, "callbacks")
        own = [self._get(self.config_init, key) for key in CALLBACKS if switches.get(key, True)]
        own = without_replaced(own, config)
        config["val_check_interval"] = self._get(self.config, "eval_every")
        if not switches.progress:
            config["enable_progress_bar"] = False
        kind = device_kind(str(config["accelerator"]))
        before = self.checkpoint.get("device") if self.checkpoint and self.goes_on else None
        config["precision"], why = choose_precision(self._get(self.config, "precision"), kind, before)
        optimizer = self._get(self.config, "model").optimizer
        config |= sharded_settings(config["strategy"], optimizer, switches.ema, config["precision"])
        self._get(self.config_init, "summary").reasons["precision"] = why
        self._get(self.config_init, "summary").changes = self.changes
        plugins = config["plugins"] or []
        config["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), RunCheckpointIO()]
        if self.subcommand != "fit":
            return self._instantiate_trainer({**config, "logger": False}, own)
        self._check_data(self.datamodule, "tokens")  # before anything is written
        self._check_steps_left(config["max_steps"])
        config["num_sanity_val_steps"] = self._first_evaluation()
        self._compile(kind, config["max_steps"])
        keep_freed_memory()
        if not config["fast_dev_run"]:
            settings = repeatable(self.config["fit"], self.datamodule, self.init_from)
            yaml = self._subcommand_parsers["fit"].dump(settings, skip_none=False)
            own.append(callbacks.RunConfig(yaml, comparable(settings, self.model, config["precision"])))
        self.run_dir = self._take_run_dir()
        config["default_root_dir"] = str(self.run_dir)
        if config["logger"] in (None, True):
            resumed = self.checkpoint if self._stays_in_its_folder else None
            config["logger"] = run_loggers(self.run_dir, resumed)
        try:
            return self._instantiate_trainer(config, own)
        except Exception:
            self._give_up_run_dir()
            raise

    def _first_evaluation(self) -> int:
        """Batches in the evaluation of step 0, which is Lightning's sanity check; -1 for all.

        Random weights know nothing, wherever one looks: it is soon seen that they are near ln V.
        """
        if self.checkpoint is not None or self.model.begun_from is not None:
            return -1
        return -(-FIRST_EVALUATION_TOKENS // self.datamodule.tokens_per_step)

    def _compile(self, kind: str, max_steps: int) -> None:
        """Have the model compiled, where that is asked for or repays."""
        steps = max_steps if max_steps > 0 else math.inf
        flops = steps * self.datamodule.tokens_per_step * train_flops_per_token(self.model.gpt)
        asked = self._get(self.config, "compile")
        compiled, why = choose_compile(asked, kind, self.model.gpt, flops)
        if compiled:
            self.model.compile_blocks(or_not=asked == "auto")
        reasons = self._get(self.config_init, "summary").reasons
        reasons["compiled" if compiled else "not compiled"] = why

    def _take_run_dir(self) -> Path:
        """The folder of this run: the resumed one, or one of its own."""
        config = self.config["fit"]
        if cast(Any, rank_zero_only).rank != 0:
            return Path(os.environ.get(RUN_DIR_VARIABLE, config.run_dir))
        if self._stays_in_its_folder:
            run_dir = resumed_folder(config.resume)
        elif config.trainer.fast_dev_run:
            run_dir = Path(tempfile.mkdtemp())
        else:
            wanted = Path(config.fork or config.run_dir).expanduser()
            run_dir = claim_folder(wanted)
            if wanted.name and run_dir != wanted:
                log.warning("%s is taken: this run goes to %s", wanted, run_dir)
        os.environ[RUN_DIR_VARIABLE] = str(run_dir)
        return run_dir

    def _give_up_run_dir(self) -> None:
        """A run that never took a step leaves nothing; what was there before stays."""
        if cast(Any, rank_zero_only).rank == 0 and not self._stays_in_its_folder:
            give_up_folder(self.run_dir)

    @property
    def _stays_in_its_folder(self) -> bool:
        """Whether this is the run that it goes on with, and not another one that begins there."""
        config = self.config["fit"]
        return config.resume is not None and config.fork is None

    def fit(self, model: LitGPT, datamodule: TextDataModule, ckpt_path: str | None = None) -> None:
        """Train.

        Args:
            ckpt_path: Checkpoint to begin from, in a new run folder: a file, or a run folder for its best.
        """
        stop = self._get(self.config_init, "graceful_stop")
        try:
            if self.checkpoint_path is not None and not self.goes_on:
                self._load_weights(model)
            stop.watch_over_start(self.trainer, self._give_up_run_dir)
            self.trainer.fit(model, datamodule, ckpt_path=self.checkpoint_path if self.goes_on else None)
        except BaseException as error:
            if self.trainer.global_step == 0:
                self._give_up_run_dir()
            if self.trainer.global_step > self._first_step():
                say_how_to_go_on(self.run_dir)
            end(error, stop.asked_by, self.trainer.world_size, has_begun=self.trainer.global_step > 0)
            raise
        finally:
            if self.config["fit"].trainer.fast_dev_run:
                self._give_up_run_dir()

    def _first_step(self) -> int:
        return cast(int, self.checkpoint["global_step"]) if self.checkpoint and self.goes_on else 0

    def _check_steps_left(self, max_steps: int) -> None:
        step = self._first_step()
        if 0 < max_steps <= step:
            raise ValueError(
                f"step {step} is reached and trainer.max_steps is {max_steps}: give a larger one"
            )

    def validate(self, model: LitGPT, datamodule: TextDataModule, ckpt_path: str | None = None) -> None:
        """Evaluate on the validation text.

        Args:
            ckpt_path: Checkpoint to evaluate: a file, or a run folder for its best.
        """
        self._check_data(datamodule, "tokens")
        self.trainer.validate(model, datamodule, ckpt_path=self.checkpoint_path, verbose=False)
        self._print_results(datamodule.describe_validation())

    def test(self, model: LitGPT, datamodule: TextDataModule, ckpt_path: str | None = None) -> None:
        """Evaluate on the test text.

        Args:
            ckpt_path: Checkpoint to evaluate: a file, or a run folder for its best.
        """
        self._check_data(datamodule, "test_tokens")
        self.trainer.test(model, datamodule, ckpt_path=self.checkpoint_path, verbose=False)
        if datamodule.test_corpus is not None:
            self._print_results(datamodule.test_corpus.name)
        else:
            whole = datamodule.val_corpus.name
            part = whole if datamodule.val_source is not None else f"the validation part of {whole}"
            self._print_results(f"{part}: there is no data.test_corpus")

    def _print_results(self, text: str) -> None:
        if not self.trainer.is_global_zero:
            return
        print(f"text              {text}")
        if self.checkpoint is not None:
            print(f"checkpoint        {self.checkpoint_path}, step {self.checkpoint['global_step']}")
        for name, value in sorted(self.trainer.callback_metrics.items()):
            print(f"{name:<17} {value:.6f}")

    def predict(
        self,
        model: LitGPT,
        datamodule: TextDataModule,
        prompt: list[str],
        stop: list[str],
        interactive: bool,
        ckpt_path: str | None = None,
        **options: Any,
    ) -> None:
        """Write text to standard output, and nothing else there.

        Args:
            ckpt_path: Checkpoint that writes: a file, or a run folder for its best.
            **options: The fields of `PredictOptions`.
        """
        asked = PredictOptions(stop=stop, interactive=interactive, **options)
        self._check_data(datamodule, "tokenizer")
        if self.checkpoint_path is not None:
            self._load_weights(model)
        gpt = model.gpt.to(self.trainer.strategy.root_device)
        predict(gpt, datamodule.tokenizer, prompt, asked)

    def _load_weights(self, model: LitGPT) -> None:
        assert self.checkpoint_path is not None
        try:
            model.take_weights(read_checkpoint(self.checkpoint_path)["state_dict"], str(self.checkpoint_path))
        except RuntimeError as error:
            raise ValueError(f"{self.checkpoint_path} is damaged: its weights do not fit") from error

    def _check_data(self, datamodule: TextDataModule, needed: str) -> None:
        """Make what a subcommand needs of the data; it must be what the checkpoint's model knows."""
        getattr(datamodule, needed)
        if self.checkpoint is not None:
            datamodule.check_tokenizer(self.checkpoint["TextDataModule"])
            if self.goes_on or self.subcommand != "fit":  # fine-tuning is for another text
                must_match = self.subcommand == "fit" and self._stays_in_its_folder
                datamodule.check_corpus(self.checkpoint["TextDataModule"], must_match)
        elif self.subcommand != "fit" and self.config[self.subcommand].model.init_from is None:
            log.warning("no --ckpt_path: this model is untrained, its weights are random")
