"""A model or data class of the user's own, named on the command line."""

import argparse
import importlib


def take_class(args: list[str], part: str, base: type) -> tuple[type, list[str]]:
    """Return the class that `--<part>.class_path` names, else `base`, and the arguments without that option.

    Raises:
        ValueError: There is no such class, or it is no subclass of `base`.
    """
    option = f"--{part}.class_path"
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(option, dest="path")
    try:
        given, others = parser.parse_known_args(args)
        if given.path is None:
            return base, others
        module, _, name = given.path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
    except (argparse.ArgumentError, ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"{option} must be MODULE.CLASS: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{option} must name a subclass of {base.__name__}, which {given.path} is not")
    return found, others


def check_class(model_class: type, trained: str | None) -> None:
    """Compare a model's class with that of a checkpoint.

    Args:
        model_class: The class at hand.
        trained: The `class_path` in the checkpoint; None where weights came from elsewhere.

    Raises:
        ValueError: They differ.
    """
    if trained not in (None, f"{model_class.__module__}.{model_class.__qualname__}"):
        raise ValueError(f"the checkpoint was trained with --model.class_path {trained}: give it again")
