"""Options of a run: the parser, and the precedence of their sources."""

import glob
import json
from argparse import SUPPRESS
from typing import Any, Literal, get_args

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser

from lit_gpt_scratch.cli.errors import LINKED_OPTIONS, REPLACEMENTS, clear_parser_errors
from lit_gpt_scratch.cli.start import Start, parse_known, values_in_configs
from lit_gpt_scratch.generation.predict import PredictOptions
from lit_gpt_scratch.training import callbacks

CALLBACKS = {
    "evaluation_schedule": callbacks.EvaluationSchedule,
    "step_control": callbacks.StepControl,
    "perplexity": callbacks.Perplexity,
    "learning_rate": LearningRateMonitor,
    "throughput": callbacks.Throughput,
    "samples": callbacks.Samples,
    "inspection": callbacks.Inspection,
    "ema": callbacks.EMA,  # after the callbacks that use the averaged model
    "progress": callbacks.Progress,
    "early_stopping": callbacks.ValLossEarlyStopping,
    "curves": callbacks.Curves,
    "stop_on_signal": callbacks.StopOnSignal,
    "best_checkpoint": callbacks.BestCheckpoint,
    "last_checkpoint": callbacks.LastCheckpoint,
}
ALWAYS_ON = {"evaluation_schedule", "stop_on_signal", "last_checkpoint"}  # have no switch
SWITCHES = [*(key for key in CALLBACKS if key not in ALWAYS_ON), "summary"]
OFF_BY_DEFAULT = {"ema", "inspection", "early_stopping"}
REPEATED_OPTIONS = {"prompt": "Text to continue", "stop": "String that ends a text and is not part of it"}
# Options of one invocation of the program, which are not options of the run.
INVOCATION_OPTIONS = {"ckpt_path", "init_from", "debug", "config", "run_dir", "data.tokenizer"}
# Options that can change the losses of a run, as prefixes of their names.
LOSS_OPTIONS = (
    *("model.", "data.", "trainer.max_steps", "precision", "seed_everything"),
    *("callbacks.ema", "callbacks.step_control", "callbacks.early_stopping"),
    *("ema.", "step_control.", "early_stopping."),
)


def add_options(parser: LightningArgumentParser, command: str, model_class: Any, data_class: Any) -> None:
    """Add the options of a command; the options of Lightning's Trainer come last in --help."""
    if command == "predict":
        add_predict_options(parser)
    add_run_options(parser, command)
    # The vocabulary size depends on the data: the network is built after they are loaded.
    parser.add_class_arguments(
        model_class, "model", fail_untyped=False, sub_configs=True, skip={"vocab_size"}
    )
    parser.add_lightning_class_args(data_class, "data")
    for key, callback in CALLBACKS.items():
        parser.add_lightning_class_args(callback, key)
    for key in SWITCHES:
        default = key not in OFF_BY_DEFAULT
        parser.add_argument(f"--callbacks.{key}", type=bool, default=default, help="Enable the callback.")
    parser.add_class_arguments(
        Trainer, "trainer", instantiate=False, fail_untyped=False, sub_configs=True, skip=set(REPLACEMENTS)
    )
    parser.set_defaults({"trainer.max_steps": 1000, "trainer.log_every_n_steps": 10})
    parser.link_arguments("eval_every", "evaluation_schedule.every_n_steps")
    parser.link_arguments("save_every", "last_checkpoint.every_n_train_steps")
    parser.link_arguments("seed_everything", "data.seed", compute_fn=int)  # checkpoints need a plain int
    parser.link_arguments("model.block_size", "data.block_size")


def add_run_options(parser: LightningArgumentParser, command: str) -> None:
    """Add the options without a prefix, such as ``--run_dir``, which concern the whole run."""
    add = parser.add_argument
    checkpoint = "Checkpoint to use: a file, or a run folder (its best.ckpt)."
    init_from = SUPPRESS  # hidden, but accepted by all commands: a config of fit may contain it
    if command == "fit":
        checkpoint = (
            "Checkpoint to resume from: a file, or a run folder (its last.ckpt). The run continues in its "
            "folder, unless --run_dir names another one."
        )
        init_from = (
            "Weights to start a new run with: a checkpoint, a run folder (its last.ckpt), or a Hugging Face "
            "folder."
        )
    add("--init_from", type=str | None, default=None, help=init_from)
    add("--ckpt_path", type=str | None, default=None, help=checkpoint)
    folder = "Folder of the run; if it is in use, a number is added to its name."
    add("--run_dir", type=str, default="checkpoints/run", help=folder)
    add("--eval_every", type=PositiveInt, default=250, help="Optimizer steps between evaluations.")
    add("--save_every", type=PositiveInt, default=250, help="Optimizer steps between saves of last.ckpt.")
    precision = "auto is the fastest on the device; or one of Lightning's: 32-true, bf16-mixed, 16-mixed ..."
    add("--precision", type=str, default="auto", help=precision)
    compiled = (
        "Compile the model: auto compiles on a GPU, and on a CPU if the run is long enough to save time."
    )
    add("--compile", type=Literal["auto"] | bool, default="auto", help=compiled)
    add("--debug", action="store_true", help="Show the traceback of an error.")
    add("--seed_everything", type=NonNegativeInt, default=1337, help="Seed of all randomness.")


def add_predict_options(parser: LightningArgumentParser) -> None:
    """Add the options of `predict`."""
    add = parser.add_argument_group("Prompts").add_argument
    for name, text in REPEATED_OPTIONS.items():
        add(f"--{name}", action="append", default=[], help=f"{text}; may be given several times.")
    add("--interactive", action="store_true", help="Read prompts from the terminal until it is closed.")
    parser.add_class_arguments(PredictOptions, skip={*REPEATED_OPTIONS, "interactive"}, instantiate=False)


def parse_options(
    parser: LightningArgumentParser, args: list[str], start: Start
) -> tuple[Namespace, Namespace]:
    """Parse the options of a command.

    The value of an option comes from the command line, else from ``--config``, else from the checkpoint and
    the config.yaml in its run folder; otherwise, it is the default.

    Returns:
        The options, and the options as they would be without the command line and ``--config``.

    Raises:
        ValueError: An option is unknown or has an invalid value.
    """
    run_config = [str(start.config_file)] if start.config_file else []
    parser.default_config_files = [glob.escape(file) for file in run_config]
    try:
        parser.set_defaults(start.options)
    except KeyError as error:
        raise ValueError(f"{start.path} has an option that does not exist here: {error}") from error
    with clear_parser_errors(parser, run_config):
        inherited = parser.parse_args([])
        # If the run keeps its folder, config.yaml takes precedence: the options of the last start may
        # not be in a checkpoint yet. Otherwise, the checkpoint does: config.yaml may be of a later step.
        if start.is_resume and start.run_dir is None:
            inherited = parser.parse_object(start.options, namespace=inherited)
    given_configs, others = parse_known(args, "config")
    files = given_configs.config
    for name, other in LINKED_OPTIONS.items():
        for file in files:
            if values_in_configs([file], name):
                raise ValueError(f"{name} in {file} has no effect: it follows from {other}")
    with clear_parser_errors(parser, files):
        # In jsonargparse, a later argument or file overrides an earlier one: put the files first.
        args = [*(word for file in files for word in ("--config", file)), *others]
        options = parser.parse_args(args, namespace=inherited)
    given = {arg.split("=")[0] for arg in args}
    for key in OFF_BY_DEFAULT:  # an option of a callback turns it on
        if f"--callbacks.{key}" not in given and any(name.startswith(f"--{key}.") for name in given):
            options.callbacks[key] = True
    has_other_corpus = options.data.corpus != inherited.data.corpus
    has_same_val_corpus = options.data.val_corpus == inherited.data.val_corpus
    if has_other_corpus and has_same_val_corpus and "--data.val_corpus" not in given:
        options.data.val_corpus = None  # a new training text is not validated on the old validation text
    return options, inherited


def changed_options(before: Namespace, now: Namespace) -> dict[str, str]:
    """Return the run's options that differ between `before` and `now`: ``old -> new`` by option name."""
    old, new = (vars(options.as_flat()) for options in (before, now))
    changed = [
        name for name in new if name in old and old[name] != new[name] and name not in INVOCATION_OPTIONS
    ]
    return {
        name: " -> ".join("null" if options[name] is None else str(options[name]) for options in (old, new))
        for name in changed
    }


def loss_options(options: Namespace, parser: LightningArgumentParser) -> dict[str, str | float]:
    """Return the options that can change a run's losses, by name, as columns of TensorBoard's HParams table.

    A column must have the same type in all runs: booleans and options that may be null are given as text.
    """
    may_be_null = {
        action.dest
        for action in parser._actions
        if type(None) in get_args(getattr(action, "_typehint", None))
    }
    columns = {
        name: value if type(value) in (int, float) and name not in may_be_null else str(value)
        for name, value in vars(options.as_flat()).items()
        if name.startswith(LOSS_OPTIONS) and name not in LINKED_OPTIONS
    }
    tokenizer = options.data.tokenizer
    if tokenizer.startswith("{"):  # the JSON of a checkpoint's tokenizer
        columns["data.tokenizer"] = json.loads(tokenizer)["kind"]
    return columns
