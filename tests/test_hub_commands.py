"""`import`, `export`, --init_from, with folders in Hugging Face's layout, whole or broken."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY, Run, environment, with_small_files
from hub import bpe
from safetensors.torch import load_file, save_file

from lit_gpt_scratch.api import load
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.hub.model_card import model_card
from lit_gpt_scratch.hub.tokenizer import to_hub
from lit_gpt_scratch.training.checkpoint_io import read_checkpoint


def loss_before(out: str) -> str:
    """The validation loss before the first step of a run, as it is printed."""
    return re.findall(r"^step 0/.* val ([0-9.]+) ", out, flags=re.M)[0]


def loss_measured(out: str) -> str:
    """The one that `validate` prints, in as many digits."""
    return f"{float(re.findall(r'^val/loss +([0-9.]+)', out, flags=re.M)[0]):.4f}"


def test_imported_weights_are_a_beginning(run: Run, hub_folder: Path) -> None:
    assert run("import", "--from", hub_folder, "--run_dir", "gpt2").code == 0
    written = run("predict", "--ckpt_path", "gpt2", "--prompt", "To be", "--max_new_tokens", "3")
    assert written.code == 0
    assert written.out.startswith("To be")
    data = ["--data.corpus", "hamlet", "--data.val_fraction", "0.3"]
    measured = run("validate", "--ckpt_path", "gpt2", *data)
    assert measured.code == 0
    assert measured.err == ""
    args = ["--init_from", "gpt2", *data, "--trainer.max_steps", "2", "--run_dir", "fine"]
    assert loss_before(run("fit", *args).out) == loss_measured(measured.out)
    no_optimizer = run("fit", "--ckpt_path", "gpt2")
    assert no_optimizer.code == 2
    assert "holds weights and no optimizer: begin a new run from them with --init_from" in no_optimizer.err
    fine = read_checkpoint("fine/last.ckpt")
    assert fine["global_step"] == 2
    assert fine["hyper_parameters"]["learning_rate"] == 3e-5
    named = yaml.safe_load(Path("fine/config.yaml").read_text())["data"]["tokenizer"]
    assert json.loads(named) == bpe(281).to_dict()
    assert run("fit", "--ckpt_path", "fine", "--trainer.max_steps", "3").code == 0


def test_finetuning_leaves_step_and_optimizer_behind(run: Run, finished: Path) -> None:
    Path("own.txt").write_text(HAMLET[::-1])
    args = ["--data.corpus", "own.txt", "--trainer.max_steps", "3", "--run_dir", "fine"]
    args += ["--precision", "32-true"]  # that of the checkpoint, which validate takes
    done = run("fit", "--init_from", finished, *args, "--model.warmup_steps", "0")
    assert done.code == 0
    assert done.err == ""  # another text is what fine-tuning is for
    assert "untrained" not in done.out
    fine = read_checkpoint("fine/last.ckpt")
    assert fine["global_step"] == 3
    assert all(state["step"] == 3 for state in fine["optimizer_states"][0]["state"].values())
    before = run("validate", "--ckpt_path", finished, "--data.corpus", "own.txt").out
    assert loss_before(done.out) == loss_measured(before)


def test_init_from_in_yaml(run: Run, hub_folder: Path) -> None:
    Path("fine.yaml").write_text(
        f"data: {{corpus: hamlet, val_fraction: 0.3, batch_size: 2}}\ninit_from: {hub_folder}\n"
    )
    steps = ["--config", "fine.yaml", "--trainer.max_steps", "2"]
    done = run("fit", *steps, "--run_dir", "r")
    assert done.code == 0
    assert "3 layers, 4 heads, 48 wide, block 32" in done.out
    assert "vocabulary 281" in done.out
    assert "untrained" not in done.out
    assert run("import", "--from", hub_folder, "--run_dir", "gpt2").code == 0
    data = ["--data.corpus", "hamlet", "--data.val_fraction", "0.3", "--data.batch_size", "2"]
    measured = run("validate", "--ckpt_path", "gpt2", *data).out
    assert loss_before(done.out) == loss_measured(measured)
    assert "init_from" in Path("r/config.yaml").read_text()

    short = run("fit", *steps, "--model.block_size", "16", "--run_dir", "short")
    assert short.code == 0  # later positions are left out
    other = run("fit", *steps, "--model.n_layer", "2", "--run_dir", "other")
    assert other.err == f"error: {hub_folder}'s model.n_layer is 3, not 2: leave the architecture out\n"
    other = run("fit", *steps, "--data.tokenizer", "byte", "--run_dir", "other")
    assert "the model has 281 tokens, and the tokenizer 256" in other.err
    assert other.code == 2

    (hub_folder / "tokenizer.json").rename("away.json")
    without = run("fit", *steps, "--run_dir", "other")
    assert "the tokenizer of" in without.err
    named = run("fit", *steps, "--data.tokenizer", "bpe", "--data.vocab_size", "281", "--run_dir", "named")
    assert named.code == 0

    shutil.rmtree(hub_folder)  # no longer needed
    assert run("fit", "--ckpt_path", "r", "--trainer.max_steps", "3").code == 0
    assert f"init_from: {hub_folder}" in Path("r/config.yaml").read_text()
    assert run("validate", "--ckpt_path", "r").code == 0


def test_gpt2s_weights_do_not_go_into_another_architecture(run: Run, hub_folder: Path) -> None:
    asked = ["--init_from", hub_folder, "--model.arch", "modern"]
    done = run("fit", *TINY, *asked)
    assert done.code == 2
    assert done.err.startswith(f"error: {hub_folder}'s model.arch is gpt2, not modern")


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def change(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors")


class Malicious:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("executed", "w")


C_FC = "transformer.h.1.mlp.c_fc.weight"
BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "llama": (lambda f: edit(f, model_type="llama"), "model_type 'llama': only gpt2 and qwen3 are supported"),
    "relu": (
        lambda f: edit(f, activation_function="relu"),
        "GPT-2 is not supported: activation_function relu",
    ),
    "scaled": (
        lambda f: edit(f, scale_attn_by_inverse_layer_idx=True, n_inner=7),
        "not supported: scale_attn_by_inverse_layer_idx True, n_inner 7",
    ),
    "words for sizes": (
        lambda f: edit(f, n_layer="two"),
        "cannot read theirs/config.json: Validation error for field 'n_layer'",
    ),
    "wrong heads": (lambda f: edit(f, n_head=5), "must be a multiple of model.n_head (5)"),
    "more layers": (
        lambda f: edit(f, n_layer=4),
        "config.json: missing transformer.h.3.attn.c_attn.bias",
    ),
    "fewer layers": (lambda f: edit(f, n_layer=2), "do not fit its config.json: unexpected transformer.h.2."),
    "no dropout": (lambda f: edit(f, resid_pdrop=None), "Validation error for field 'resid_pdrop'"),
    "missing": (lambda f: change(f, C_FC, None), f"do not fit its config.json: missing {C_FC}"),
    "wrong shape": (
        lambda f: change(f, C_FC, torch.zeros(48, 7)),
        f"do not fit its config.json: mismatched ('{C_FC}'",
    ),
    "no config": (
        lambda f: (f / "config.json").unlink(),
        "theirs is no Hugging Face folder: it has no config.json",
    ),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "cannot read theirs/config.json: "),
    "list config": (
        lambda f: (f / "config.json").write_text("[]"),
        "cannot read theirs/config.json: ",
    ),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "cannot read the weights of theirs: Error no file named model.safetensors",
    ),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]),
        "cannot read the weights of theirs: ",
    ),
    "missing shard": (
        lambda f: (
            (f / "model.safetensors").rename(f / "model.safetensors.index.json")
            and (f / "model.safetensors.index.json").write_text(
                '{"metadata": {}, "weight_map": {"a": "gone.safetensors"}}'
            )
        ),
        "cannot read the weights of theirs: ",
    ),
    "shard elsewhere": (
        lambda f: (
            (f / "model.safetensors").rename(f / "model.safetensors.index.json")
            and (f / "model.safetensors.index.json").write_text(
                '{"metadata": {}, "weight_map": {"a": "../../x.safetensors"}}'
            )
        ),
        "the weights of theirs",
    ),
    "code in bin": (
        lambda f: (f / "model.safetensors").unlink() or torch.save(Malicious(), f / "pytorch_model.bin"),
        "the weights of theirs are damaged, or hold more than tensors",
    ),
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        "the tokenizer of theirs cannot be used: there is neither tokenizer.json nor vocab.json",
    ),
    "broken tokenizer": (
        lambda f: (f / "tokenizer.json").write_text("{}"),
        "the tokenizer of theirs cannot be used: ",
    ),
    "words": (
        lambda f: (f / "tokenizer.json").write_text(
            '{"model": {"type": "BPE", "vocab": {"ab": 0}, "merges": ["a b"]}, "normalizer": null, '
            '"pre_tokenizer": null, "added_tokens": []}'
        ),
        "the tokenizer of theirs cannot be used: ",
    ),
    "empty tokenizer": (
        lambda f: (
            (f / "tokenizer.json").unlink()
            or (f / "vocab.json").write_text("{}")
            and (f / "merges.txt").touch()
        ),
        "the tokenizer of theirs cannot be used: ",
    ),
    "other tokenizer": (
        lambda f: to_hub(bpe(270)).save(str(f / "tokenizer.json")),
        "theirs: the model has 281 tokens, and its tokenizer 270",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_folder_gets_one_line(run: Run, hub_folder: Path, name: str) -> None:
    damage, message = BREAKS[name]
    damage(Path("theirs"))
    done = run("import", "--from", "theirs", "--run_dir", "gpt2")
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert {path.name for path in Path().iterdir()} == {"theirs"}


def test_a_damaged_checkpoint_is_not_exported(run: Run, finished: Path) -> None:
    checkpoint = torch.load(finished / "best.ckpt", weights_only=True)
    del checkpoint["state_dict"]["gpt.h.0.mlp.c_fc.weight"]
    torch.save(checkpoint, "damaged.ckpt")
    done = run("export", "--ckpt_path", "damaged.ckpt", "--to", "out")
    assert done.code == 2
    assert "damaged.ckpt is damaged: its weights do not fit" in done.err
    assert not Path("out").exists()


@pytest.mark.slow
def test_an_export_that_the_disk_has_no_room_for_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    done = with_small_files(20_000, tmp_path, "export", "--ckpt_path", finished, "--to", "out/hf")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write the folder out/hf: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list((tmp_path / "out").iterdir())


def test_a_card_keeps_secrets_and_says_what_it_began_from(run: Run, finished: Path) -> None:
    assert run("fit", "--init_from", finished, "--trainer.max_steps", "1", "--run_dir", "r").code == 0
    assert run("fit", "--ckpt_path", "r", "--trainer.max_steps", "2").code == 0
    checkpoint = read_checkpoint("r/last.ckpt")
    checkpoint["TextDataModule"]["corpus"]["name"] = "https://me:password@example.org/a.txt?signature=s"
    card = str(model_card(checkpoint, load("r"), "mine"))
    assert "| corpus | https://example.org/a.txt: 606 characters" in card
    assert "| first weights | those of run/last.ckpt |" in card
    assert "password" not in card
    assert "signature" not in card


def test_mistakes_with_the_tools(run: Run, finished: Path, hub_folder: Path) -> None:
    for args, message in (
        (["import", "--run_dir", "x"], "arguments are required: from"),
        (["import", "--from", "nothing", "--run_dir", "x"], "no such folder: nothing"),
        (
            ["import", "--from", finished, "--run_dir", "x"],
            "is no Hugging Face folder: it has no config.json",
        ),
        (["import", "--form", "x"], "did you mean from?"),
        (["export", "--ckpt_path", finished, "--to", hub_folder], "is there already: name a new folder"),
        (["export", "--ckpt_path", "nothing", "--to", "x"], "no such checkpoint: nothing"),
        (
            ["export", "--ckpt_path", finished, "--to", hub_folder / "config.json" / "x"],
            "cannot make the folder",
        ),
    ):
        done = run(*args)
        assert done.code == 2, args
        assert message in done.err
        assert done.err.count("\n") == 1
    assert {path.name for path in Path().iterdir()} == {"theirs"}


WITHOUT_TRANSFORMERS = """
import sys
import lit_gpt_scratch.training.module  # libraries that use transformers where it is
sys.modules["transformers"] = None
from lit_gpt_scratch.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("args", [["import", "--from", "x", "--run_dir", "y"], ["fit", "--init_from", "."]])
def test_without_transformers_one_line_names_the_extra(args: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TRANSFORMERS, *args]
    done = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: this needs Hugging Face's transformers: pip install 'lit_gpt_scratch[hub]'\n"
    )
