"""What published laws say of published models, and one's own runs beside them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from lit_gpt_scratch.atomic_write import atomic_write
from lit_gpt_scratch.tools.published import published_models
from lit_gpt_scratch.tools.runs import finished_runs
from lit_gpt_scratch.tools.scaling_law import BESIROGLU, HOFFMANN, Law, training_flops
from lit_gpt_scratch.tools.scaling_plot import draw_reference

LAWS: Mapping[str, Law] = {"Hoffmann": HOFFMANN, "Besiroglu": BESIROGLU}
NOTE = "in nats per token of MassiveText, which the laws were fitted on: not of each model's own text"


def show_reference(runs_folder: Path, picture: Path, as_json: bool) -> None:
    """Print a table, and draw a picture.

    Args:
        runs_folder: With one's own runs.
        picture: File to draw to.
        as_json: Print JSON.
    """
    models, runs = published_models(), finished_runs(runs_folder)
    losses = {
        model.name: {name: law.loss(model.n_parameters, model.n_tokens) for name, law in LAWS.items()}
        for model in models
    }
    with atomic_write(picture) as file:
        file.write(draw_reference(models, LAWS, runs))
    if as_json:
        published = [asdict(model) | losses[model.name] for model in models]
        print(json.dumps({"published": published, "runs": [asdict(run) for run in runs]}, indent=1))
        return
    print(f"{'model':<14}{_HEADS}" + "".join(f"{name:>11}" for name in LAWS))
    for model in models:
        cells = "".join(f"{loss:>11.3f}" for loss in losses[model.name].values())
        print(f"{model.name:<14}{_costs(model.n_parameters, model.n_tokens)}{cells}")
    print(f"\n{NOTE}")
    if runs:
        print(f"\n{'your run':<14}{_HEADS}{'val loss':>11}{'bits/byte':>11}")
    for run in runs:
        bits = "" if run.bits_per_byte is None else f"{run.bits_per_byte:>11.3f}"
        print(f"{run.name:<14}{_costs(run.n_parameters, run.n_tokens)}{run.loss:>11.3f}{bits}")
    print(f"\nsee it  {picture}")


_HEADS = f"{'parameters':>16}{'tokens':>9}{'FLOPs':>9}{'D/N':>7}"


def _costs(n_parameters: int, n_tokens: float) -> str:
    flops = training_flops(n_parameters, n_tokens)
    return f"{n_parameters:>16,}{n_tokens:>9.1e}{flops:>9.1e}{n_tokens / n_parameters:>7.1f}"
