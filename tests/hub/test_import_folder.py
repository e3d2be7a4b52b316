"""`import`, and `--init_from` with a Hugging Face folder or a checkpoint."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from helpers.command_line import Run, run_process
from helpers.hub import bpe, random_hub_model, write_hub_folder
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.hub.tokenizer import to_hub
from lit_gpt_scratch.training.checkpoint import read_checkpoint


def printed_loss_of_fit(out: str) -> str:
    """Return the validation loss before the first step, as `fit` prints it."""
    return re.findall(r"^step 0/.* val ([0-9.]+) ", out, flags=re.M)[0]


def printed_loss_of_validate(out: str) -> str:
    """Return the validation loss that `validate` prints, rounded as in `fit`."""
    return f"{float(re.findall(r'^val/loss +([0-9.]+)', out, flags=re.M)[0]):.4f}"


def test_imported_checkpoint_predicts_validates_and_is_fine_tuned(run: Run, hub_folder: Path) -> None:
    assert run("import", "--from", hub_folder, "--run_dir", "gpt2").code == 0
    written = run("predict", "--ckpt_path", "gpt2", "--prompt", "To be", "--max_new_tokens", "3")
    assert written.out.startswith("To be")
    data = ["--data.corpus", "hamlet", "--data.val_fraction", "0.3"]
    measured = run("validate", "--ckpt_path", "gpt2", *data)
    assert (measured.code, measured.err) == (0, "")
    for start, run_dir in (("gpt2", "fine"), (hub_folder, "direct")):
        steps = ["--trainer.max_steps", "2", "--run_dir", run_dir]
        fit = run("fit", "--init_from", start, *data, *steps)
        assert printed_loss_of_fit(fit.out) == printed_loss_of_validate(measured.out)
        assert "untrained" not in fit.out
    no_optimizer = run("fit", "--ckpt_path", "gpt2")
    assert no_optimizer.code == 2
    assert "has weights and no optimizer: start a new run from it with --init_from" in no_optimizer.err
    fine = read_checkpoint("fine/last.ckpt")
    assert fine["global_step"] == 2
    assert fine["hyper_parameters"]["learning_rate"] == 3e-5
    named = yaml.safe_load(Path("fine/config.yaml").read_text())["data"]["tokenizer"]
    assert json.loads(named) == bpe().to_dict()
    assert run("fit", "--ckpt_path", "fine", "--trainer.max_steps", "3").code == 0


def test_init_from_loads_weights_without_step_and_optimizer(run: Run, finished: Path) -> None:
    Path("own.txt").write_text(HAMLET[::-1])
    args = ["--data.corpus", "own.txt", "--trainer.max_steps", "3", "--run_dir", "fine"]
    args += ["--precision", "32-true"]  # of the checkpoint; validate uses it
    done = run("fit", "--init_from", finished, *args, "--model.warmup_steps", "0")
    assert (done.code, done.err) == (0, "")  # no warning about another text
    assert "untrained" not in done.out
    fine = read_checkpoint("fine/last.ckpt")
    assert fine["global_step"] == 3
    assert all(state["step"] == 3 for state in fine["optimizer_states"][0]["state"].values())
    before = run("validate", "--ckpt_path", finished, "--data.corpus", "own.txt").out
    assert printed_loss_of_fit(done.out) == printed_loss_of_validate(before)


def test_init_from_a_hub_folder_in_yaml(run: Run, hub_folder: Path) -> None:
    Path("fine.yaml").write_text(
        f"data: {{corpus: hamlet, val_fraction: 0.3, batch_size: 2}}\ninit_from: {hub_folder}\n"
    )
    fit = ["fit", "--config", "fine.yaml", "--trainer.max_steps", "2", "--run_dir"]
    done = run(*fit, "r")
    assert "3 layers, 4 heads, 48 wide, block 32" in done.out
    assert "vocabulary 281" in done.out
    assert run(*fit, "short", "--model.block_size", "16").code == 0  # later positions are dropped
    for args, message in (
        (["--model.n_layer", "2"], "'s model.n_layer is 3, not 2: leave the architecture out"),
        (["--model.arch", "modern"], "'s model.arch is gpt2, not modern"),
        (["--data.tokenizer", "byte"], "the model has 281 tokens, and the tokenizer 256"),
    ):
        other = run(*fit, "other", *args)
        assert other.code == 2
        assert f"{hub_folder}" in other.err
        assert message in other.err

    (hub_folder / "tokenizer.json").unlink()
    assert "the tokenizer of" in run(*fit, "other").err
    assert run(*fit, "named", "--data.tokenizer", "bpe", "--data.vocab_size", "281").code == 0
    Path("bpe.yaml").write_text("data:\n  tokenizer: bpe\n  vocab_size: 281\n")
    assert run(*fit, "in-a-config", "--config", "bpe.yaml").code == 0

    shutil.rmtree(hub_folder)  # not needed to resume
    assert run("fit", "--ckpt_path", "r", "--trainer.max_steps", "3").code == 0
    assert f"init_from: {hub_folder}" in Path("r/config.yaml").read_text()


Damage = Callable[[Path], object]


def edit(name: str, **changes: Any) -> Damage:
    """Return a function that replaces values in a JSON file."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return damage


def edit_weights(**changes: torch.Tensor) -> Damage:
    """Return a function that replaces the matrix `C_FC` by the given ones."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors[C_FC]
        save_file(tensors | changes, folder / "model.safetensors")

    return damage


def replace_weights_by_index_of(shard: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        index = {"metadata": {}, "weight_map": {"a": shard}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def replace_by_qwen3(**settings: Any) -> Damage:
    return lambda folder: write_hub_folder(folder, random_hub_model("qwen3", **settings))


def change_pre_tokenizer(**changes: Any) -> Damage:
    gpt2s = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True, "trim_offsets": True}
    return edit("tokenizer.json", pre_tokenizer=gpt2s | changes)


class Malicious:
    """An object that creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("executed", "w")


def replace_weights_by_code(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(Malicious(), folder / "pytorch_model.bin")


C_FC = "transformer.h.1.mlp.c_fc.weight"
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
BAD_CONFIG, BAD_WEIGHTS = "cannot read theirs/config.json: ", "cannot read the weights of theirs: "
MISFIT, BAD_TOKENIZER = "theirs do not fit its config.json: ", "the tokenizer of theirs cannot be used: "
NOT_GPT2S, OTHER_ROPE = "its tokens are neither characters", {"rope_type": "default", "rope_theta": 1e6}
DAMAGES: list[tuple[Damage, str]] = [
    (edit(CONFIG, model_type="llama"), "model_type 'llama': only gpt2 and qwen3 are supported"),
    (edit(CONFIG, activation_function="relu"), "gpt2 is not supported: activation_function relu"),
    (edit(CONFIG, scale_attn_by_inverse_layer_idx=True), "supported: scale_attn_by_inverse_layer_idx True"),
    (edit(CONFIG, n_inner=7), "not supported: n_inner 7"),
    (replace_by_qwen3(rope_parameters=OTHER_ROPE), "qwen3 is not supported: rope_parameters {'"),
    (replace_by_qwen3(head_dim=24), "qwen3 is not supported: head_dim 24"),
    (edit(CONFIG, n_layer="two"), BAD_CONFIG + "Validation error for field 'n_layer'"),
    (edit(CONFIG, resid_pdrop=None), BAD_CONFIG + "Validation error for field 'resid_pdrop'"),
    (edit(CONFIG, n_head=5), "must be a multiple of model.n_head (5)"),
    (edit(CONFIG, n_layer=4), MISFIT + "missing transformer.h.3.attn.c_attn.bias"),
    (edit(CONFIG, n_layer=2), MISFIT + "unexpected transformer.h.2."),
    (edit_weights(), MISFIT + f"missing {C_FC}"),
    (edit_weights(**{C_FC: torch.zeros(48, 7)}), MISFIT + f"mismatched ('{C_FC}'"),
    (lambda f: (f / CONFIG).unlink(), "theirs is no Hugging Face folder: there is no theirs/config.json"),
    (lambda f: (f / CONFIG).write_text("{"), BAD_CONFIG),
    (lambda f: (f / CONFIG).write_text("[]"), BAD_CONFIG),
    (lambda f: (f / WEIGHTS).unlink(), BAD_WEIGHTS + "Error no file named model.safetensors"),
    (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:5000]), BAD_WEIGHTS),
    (replace_weights_by_index_of("gone.safetensors"), BAD_WEIGHTS),
    (replace_weights_by_index_of("../../x.safetensors"), "the weights of theirs"),
    (replace_weights_by_code, "the weights of theirs are damaged, or hold more than tensors"),
    (lambda f: (f / TOKENIZER).unlink(), BAD_TOKENIZER + "there is neither tokenizer.json nor vocab.json"),
    (lambda f: (f / TOKENIZER).write_text("{}"), BAD_TOKENIZER),
    (lambda f: to_hub(bpe(270)).save(str(f / TOKENIZER)), BAD_TOKENIZER + "its 270 ids are not those of"),
    (edit(TOKENIZER, normalizer={"type": "NFC"}), BAD_TOKENIZER + "it is BPE with the normalizer"),
    (change_pre_tokenizer(add_prefix_space=True), BAD_TOKENIZER + NOT_GPT2S),
    (change_pre_tokenizer(use_regex=False), BAD_TOKENIZER + NOT_GPT2S),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_or_unsupported_folder_exits_2_with_one_line(
    run: Run, hub_folder: Path, damage: Damage, message: str
) -> None:
    damage(hub_folder)
    done = run("import", "--from", "theirs", "--run_dir", "gpt2")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert {path.name for path in Path().iterdir()} == {"theirs"}


def test_code_named_in_config_json_is_not_executed(run: Run, hub_folder: Path) -> None:
    code = {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (hub_folder / "evil.py").write_text("open('executed', 'w')")
    edit(CONFIG, attn_implementation="evil/kernel", **code)(hub_folder)
    assert run("import", "--from", "theirs", "--run_dir", "gpt2").code == 0
    assert not Path("executed").exists()


def test_invalid_options_exit_2_with_one_line(run: Run, finished: Path, hub_folder: Path) -> None:
    for args, message in (
        (["import", "--run_dir", "x"], "arguments are required: from"),
        (["import", "--from", "nothing", "--run_dir", "x"], "nothing is no Hugging Face folder"),
        (["import", "--form", "x"], "did you mean from?"),
        (["export", "--ckpt_path", finished, "--to", hub_folder], "is there already: name a new folder"),
        (["export", "--ckpt_path", "nothing", "--to", "x"], "no such checkpoint: nothing"),
        (["export", "--ckpt_path", finished, "--to", "theirs/config.json/x"], "cannot make the folder"),
    ):
        done = run(*args)
        assert done.code == 2, args
        assert message in done.err
        assert done.err.count("\n") == 1
    assert {path.name for path in Path().iterdir()} == {"theirs"}


WITHOUT_TRANSFORMERS = """
import sys
import lit_gpt_scratch.training.module  # imports libraries that use transformers if it is installed
sys.modules["transformers"] = None
from lit_gpt_scratch.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("args", [["import", "--from", "x", "--run_dir", "y"], ["fit", "--init_from", "."]])
def test_missing_transformers_is_reported_with_the_extra(args: list[str], tmp_path: Path) -> None:
    done = run_process(*args, code=WITHOUT_TRANSFORMERS, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: this needs Hugging Face's transformers: pip install 'lit_gpt_scratch[hub]'\n"
    )
