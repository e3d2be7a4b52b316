"""Time that a run spends writing its checkpoints.

    python benchmarks/saving.py [--config configs/char.yaml] [--json FILE]

One run of `fit` in this process, in a temporary folder.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from throughput import machine  # noqa: I001  # sets the environment

from lightning.pytorch import Trainer

from lit_gpt_scratch.cli.main import main as run
from lit_gpt_scratch.training.module import LitGPT


def main() -> None:
    """Print the figures as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/char.yaml")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    saves: list[float] = []
    ends: list[float] = []
    save = Trainer.save_checkpoint

    def timed(self: Trainer, *args: Any, **options: Any) -> None:
        begun = time.perf_counter()
        save(self, *args, **options)
        saves.append(time.perf_counter() - begun)

    def note_time(self: LitGPT) -> None:
        ends.append(time.perf_counter())

    Trainer.save_checkpoint = timed  # type: ignore[method-assign]  # for this process alone
    LitGPT.on_train_start = LitGPT.on_train_end = note_time  # type: ignore[method-assign]  # they do nothing
    with tempfile.TemporaryDirectory() as folder:
        if run(["fit", "--config", arguments.config, "--run_dir", f"{folder}/run"]):
            raise SystemExit(1)
        size = (Path(folder) / "run" / "last.ckpt").stat().st_size
    seconds = ends[1] - ends[0]
    figures = {"saves": len(saves), "megabytes": size / 1e6, "seconds": sum(saves), "of": seconds}
    print(f"\n{machine()}\n\n| config | saves | MB each | seconds | of the run |\n|---|---|---|---|---|")
    share = f"{100 * sum(saves) / seconds:.2f}% of {seconds:.0f} s"
    print(f"| {arguments.config} | {len(saves)} | {size / 1e6:.1f} | {sum(saves):.2f} | {share} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
