"""Hugging Face's layout: weights in and out, with equal logits, tokens and text."""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY, Run, environment
from safetensors.torch import load_file, save_file

from lit_gpt_scratch.data.corpus import HAMLET, Corpus
from lit_gpt_scratch.data.subwords import END_OF_TEXT, SubwordTokenizer, tokenizer_from_dict, train_bpe
from lit_gpt_scratch.data.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer
from lit_gpt_scratch.data.tokenizer_json import read_hub_tokenizer, to_tokenizer_json
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.tools.hub_export import export_folder
from lit_gpt_scratch.tools.hub_import import import_folder
from lit_gpt_scratch.tools.model_card import model_card
from lit_gpt_scratch.training.checkpoint_io import find_checkpoint, read_checkpoint
from lit_gpt_scratch.training.hub_folder import read_settings, read_weights
from lit_gpt_scratch.training.qwen3_layout import qwen3_config, qwen3_weights

transformers = pytest.importorskip("transformers")

SIZES = {"n_positions": 32, "n_embd": 48, "n_layer": 3, "n_head": 4}
ENDS = {"bos_token_id": 280, "eos_token_id": 280}
RNG = random.Random(5)
ANY_TEXT = "".join(
    chr(RNG.choice([RNG.randrange(0xD800), RNG.randrange(0xE000, 0x110000), RNG.randrange(33, 127), 32, 10]))
    for _ in range(3000)
)


def random_hub_model(std: float = 0.1, **settings: Any) -> Any:
    """A GPT-2 of theirs whose every parameter, biases and norms too, is random."""
    torch.manual_seed(1)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**SIZES, **ENDS, **settings})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def bpe(n_tokens: int = 280) -> SubwordTokenizer:
    tokenizer = train_bpe(Corpus("hamlet", (HAMLET,)), len(HAMLET), n_tokens)
    assert tokenizer.vocab_size == n_tokens
    return tokenizer


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """A folder as transformers writes it, with a tokenizer of 281 tokens."""
    folder = tmp_path / "theirs"
    random_hub_model(vocab_size=281).save_pretrained(folder)
    to_tokenizer_json(bpe(281)).save(str(folder / "tokenizer.json"))
    return folder


@torch.no_grad()
def assert_same_logits(ours: GPT, theirs: Any) -> None:
    idx = torch.randint(ours.config.vocab_size, (3, ours.config.block_size))
    torch.testing.assert_close(ours.eval()(idx), theirs.eval()(idx).logits, atol=1e-5, rtol=1e-5)


def gpt_of(ckpt: Path) -> GPT:
    checkpoint = read_checkpoint(find_checkpoint(ckpt))
    names = GPTConfig.__dataclass_fields__
    settings = {name: value for name, value in checkpoint["hyper_parameters"].items() if name in names}
    gpt = GPT(GPTConfig(**settings))
    gpt.load_state_dict({name.removeprefix("gpt."): t for name, t in checkpoint["state_dict"].items()})
    return gpt


@pytest.mark.parametrize(
    "settings",
    [{}, {"activation_function": "gelu"}, {"tie_word_embeddings": False}, {"n_inner": 192, "n_layer": 1}],
)
def test_their_weights_give_their_logits(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = random_hub_model(vocab_size=281, **settings)
    theirs.save_pretrained(tmp_path / "theirs")
    to_tokenizer_json(bpe(281)).save(str(tmp_path / "theirs" / "tokenizer.json"))
    assert import_folder(tmp_path / "theirs", tmp_path / "run") == tmp_path / "run"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["best.ckpt"]
    ours = gpt_of(tmp_path / "run")
    assert sum(p.numel() for p in ours.parameters()) == theirs.num_parameters()
    assert_same_logits(ours, theirs)


@pytest.mark.parametrize("settings", [{}, {"n_kv_head": 2}, {"tie_weights": False}])
def test_modern_is_qwen3(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Parameter for parameter: their model has no tensor that is not given, and gives the same logits."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=281, arch="modern", block_size=32, n_layer=3, n_head=4, n_embd=48, **settings
    )
    ours = GPT(config)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**qwen3_config(config, None))).eval()
    state = qwen3_weights(ours.state_dict(), config)
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert missing == ([] if "tie_weights" in settings else ["lm_head.weight"])
    assert not unexpected
    theirs.tie_weights()
    assert sum(p.numel() for p in ours.parameters()) == theirs.num_parameters()
    assert_same_logits(ours, theirs)


def save_bin(model: Any, folder: Path) -> None:
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def save_old_bin(model: Any, folder: Path) -> None:
    """As torch wrote before 1.6, and as GPT-2 was first published."""
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def save_without_head(model: Any, folder: Path) -> None:
    """As the first published files were: no prefix, no head, and the masks among the tensors."""
    tensors = {name: tensor.clone() for name, tensor in model.transformer.state_dict().items()}
    tensors |= {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32) for i in range(3)}
    model.config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    "save",
    [
        lambda model, folder: model.save_pretrained(folder, max_shard_size="100KB"),
        lambda model, folder: (
            model.half().float().save_pretrained(folder) or model.half().save_pretrained(folder)
        ),
        save_bin,
        save_old_bin,
        save_without_head,
    ],
    ids=["shards", "half precision", "bin", "old bin", "without head"],
)
def test_every_way_to_save_is_read(tmp_path: Path, save: Callable[[Any, Path], None]) -> None:
    theirs = random_hub_model(vocab_size=281)
    (tmp_path / "theirs").mkdir()
    save(theirs, tmp_path / "theirs")
    config = GPTConfig(**read_settings(tmp_path / "theirs"))
    ours = GPT(config)
    ours.load_state_dict(read_weights(tmp_path / "theirs", config))
    assert_same_logits(ours, theirs.float())


def test_shards_of_bin_are_read(tmp_path: Path) -> None:
    theirs = random_hub_model(vocab_size=281)
    theirs.config.save_pretrained(tmp_path)
    state, weight_map = theirs.state_dict(), {}
    for i, half in enumerate((list(state)[::2], list(state)[1::2])):
        torch.save({name: state[name] for name in half}, tmp_path / f"part-{i}.bin")
        weight_map |= dict.fromkeys(half, f"part-{i}.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    config = GPTConfig(**read_settings(tmp_path))
    ours = GPT(config)
    ours.load_state_dict(read_weights(tmp_path, config))
    assert_same_logits(ours, theirs)


@pytest.mark.slow
def test_gpt2_small_both_ways(tmp_path: Path) -> None:
    if not os.environ.get("TIKTOKEN_CACHE_DIR"):
        pytest.skip("TIKTOKEN_CACHE_DIR names no folder that has GPT-2's encoding")
    sizes = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
    theirs = random_hub_model(std=0.02, **sizes)
    theirs.save_pretrained(tmp_path / "theirs")  # without a tokenizer it has GPT-2's
    import_folder(tmp_path / "theirs", tmp_path / "run")
    ours = gpt_of(tmp_path / "run")
    assert sum(parameter.numel() for parameter in ours.parameters()) == 124_439_808
    export_folder(tmp_path / "run" / "best.ckpt", tmp_path / "back")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    idx = torch.randint(50257, (1, 100))
    with torch.no_grad():
        logits = ours.eval()(idx)
        torch.testing.assert_close(logits, theirs(idx).logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(logits, back(idx).logits, atol=1e-5, rtol=0)


TOKENIZERS = {
    "char": ["--data.tokenizer", "char"],
    "byte": ["--data.tokenizer", "byte"],
    "bpe": ["--data.tokenizer", "bpe", "--data.vocab_size", "280"],
    "gpt2": ["--data.tokenizer", "gpt2", "--data.val_fraction", "0.3"],
}


SHAPES = {
    "gelu": ["--model.activation", "gelu"],
    "biases": ["--model.attn_proj_bias", "true"],
    "modern": ["--model.arch", "modern", "--model.optimizer", "muon"],
}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("char", "biases"), ("char", "modern"), ("byte", "gelu"), ("bpe", "modern"), ("gpt2", "biases")],
)
def test_transformers_runs_what_is_trained_here(run: Run, tmp_path: Path, kind: str, shape: str) -> None:
    args = [*TINY, *TOKENIZERS[kind], *SHAPES[shape], "--data.val_fraction", "0.3", "--run_dir", "r"]
    trained = run("fit", *args)
    if "cannot download the encoding" in trained.err:
        pytest.skip("GPT-2's encoding is not at hand")
    assert trained.code == 0
    done = run("export", "--ckpt_path", "r", "--to", "out/hf")
    assert done.code == 0
    assert done.err == ""
    theirs = transformers.AutoModelForCausalLM.from_pretrained("out/hf")
    their_tokenizer = transformers.AutoTokenizer.from_pretrained("out/hf")
    ours = gpt_of(Path("r"))
    assert_same_logits(ours, theirs)

    checkpoint = read_checkpoint("r/best.ckpt")
    tokenizer = tokenizer_from_dict(checkpoint["TextDataModule"]["tokenizer"])
    for text in (HAMLET, "To be ", " \n\n  \nTo", "" if kind == "char" else ANY_TEXT):
        assert their_tokenizer(text)["input_ids"] == tokenizer.encode(text).tolist()
        assert their_tokenizer.decode(tokenizer.encode(text).tolist()) == text
    greedy = ["--max_new_tokens", "20", "--temperature", "0"]
    inputs = their_tokenizer("To be", return_tensors="pt")
    written = theirs.generate(**inputs, max_new_tokens=20, do_sample=False)
    assert run("predict", "--ckpt_path", "r", "--prompt", "To be", *greedy).out == (
        their_tokenizer.decode(written[0]) + "\n"
    )

    card = Path("out/hf/README.md").read_text()
    loss = checkpoint["evaluation"]["val/loss"]
    assert "| corpus | hamlet: 606 characters, sha256" in card
    assert f"| {loss:.4f} nats per token" in card.replace("validation loss | ", "")
    assert "| validation bits per byte |" in card
    assert "| training | 20 steps of 8 x 32 tokens, 5,120 in all |" in card
    assert {path.name for path in Path("out").iterdir()} == {"hf"}

    if shape == "modern":
        assert "| optimizer | Muon for the blocks' matrices, learning rate 0.02; for the rest AdamW" in card
        assert run("import", "--from", "out/hf", "--run_dir", "back").code == 2  # only GPT-2's come in
        return
    back = run("import", "--from", "out/hf", "--run_dir", "back")
    assert back.code == 0
    assert_same_logits(gpt_of(Path("back")), theirs)
    assert run("predict", "--ckpt_path", "back", "--prompt", "To be", *greedy).out == (
        their_tokenizer.decode(written[0]) + "\n"
    )


@pytest.mark.parametrize(
    "tokenizer", [CharTokenizer("né\n"), ByteTokenizer(), bpe()], ids=["char", "byte", "bpe"]
)
def test_tokenizers_come_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    to_tokenizer_json(tokenizer).save(str(tmp_path / "tokenizer.json"))
    assert read_hub_tokenizer(tmp_path, tokenizer.vocab_size) == tokenizer.to_dict()


def test_vocabulary_and_merges_are_read(tmp_path: Path) -> None:
    made = to_tokenizer_json(bpe())
    made.model.save(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    assert vocabulary[END_OF_TEXT] == 279
    assert (tmp_path / "merges.txt").read_text().startswith("#version")
    assert read_hub_tokenizer(tmp_path, 280) == bpe().to_dict()


def test_a_newer_encodings_pattern_is_kept(tmp_path: Path) -> None:
    import tiktoken

    pattern = (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
        r"|\s*[\r\n]|\s+(?!\S)|\s"
    )
    digits = "".join(str(number) for number in range(2000)) + HAMLET
    ranks = train_bpe(Corpus("digits", (digits,)), len(digits), 500).encoding._mergeable_ranks
    special = {END_OF_TEXT: 600, "<|fim|>": 601}  # with a gap, as there
    encoding = tiktoken.Encoding("newer", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    newer = SubwordTokenizer(encoding, {"kind": "tiktoken", "name": "newer"})
    assert newer.decode([65, 550, 600]) == f"{newer.decode([65])}{END_OF_TEXT}"  # nothing has the id 550
    made = to_tokenizer_json(newer)
    for text in (HAMLET, ANY_TEXT, "don't DON'T 1234567 !!\r\n\n  x\n "):
        assert made.encode(text).ids == encoding.encode(text, disallowed_special=())
    assert made.encode(f"a{END_OF_TEXT}").ids[-1] == 600


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
    for extra in (["--finetune"], []):  # there is no optimizer to go on with
        args = ["--ckpt_path", "gpt2", *extra, *data, "--trainer.max_steps", "2", "--run_dir", "fine"]
        assert loss_before(run("fit", *args).out) == loss_measured(measured.out)
    fine = read_checkpoint("fine/last.ckpt")
    assert fine["global_step"] == 2
    assert fine["hyper_parameters"]["learning_rate"] == 3e-5
    named = yaml.safe_load(Path("fine/config.yaml").read_text())["data"]["tokenizer"]
    assert json.loads(named) == bpe(281).to_dict()
    assert run("fit", "--resume", "fine", "--trainer.max_steps", "3").code == 0


def test_finetuning_leaves_step_and_optimizer_behind(run: Run, finished: Path) -> None:
    Path("own.txt").write_text(HAMLET[::-1])
    args = ["--finetune", "--data.corpus", "own.txt", "--trainer.max_steps", "3", "--run_dir", "fine"]
    done = run("fit", "--ckpt_path", finished, *args, "--model.warmup_steps", "0")
    assert done.code == 0
    assert done.err == ""  # another text is what fine-tuning is for
    assert "untrained" not in done.out
    fine = read_checkpoint("fine/last.ckpt")
    assert fine["global_step"] == 3
    assert all(state["step"] == 3 for state in fine["optimizer_states"][0]["state"].values())
    before = run("validate", "--ckpt_path", finished, "--data.corpus", "own.txt").out
    assert loss_before(done.out) == loss_measured(before)
    assert run("fit", "--finetune").err == "error: --finetune takes the weights of --ckpt_path: name one\n"


def test_init_from_in_yaml(run: Run, hub_folder: Path) -> None:
    Path("fine.yaml").write_text(
        f"data: {{corpus: hamlet, val_fraction: 0.3, batch_size: 2}}\nmodel: {{init_from: {hub_folder}}}\n"
    )
    steps = ["--config", "fine.yaml", "--trainer.max_steps", "2"]
    done = run("fit", *steps, "--run_dir", "r")
    assert done.code == 0
    assert "3 layers, 4 heads, 48 wide, block 32" in done.out
    assert "vocabulary 281" in done.out
    assert "untrained" not in done.out
    assert run("import", "--from", hub_folder, "--run_dir", "gpt2").code == 0
    measured = run(
        "validate", "--ckpt_path", "gpt2", "--config", "fine.yaml", "--model.init_from", "null"
    ).out
    assert loss_before(done.out) == loss_measured(measured)
    assert "init_from" in Path("r/config.yaml").read_text()

    short = run("fit", *steps, "--model.block_size", "16", "--run_dir", "short")
    assert short.code == 0  # later positions are left out
    other = run("fit", *steps, "--model.n_layer", "2", "--run_dir", "other")
    assert other.err == f"error: {hub_folder}'s model.n_layer is 3, not 2: leave the architecture out\n"
    both = run("fit", *steps, "--ckpt_path", "gpt2")
    assert "--ckpt_path and model.init_from both bring weights" in both.err
    other = run("fit", *steps, "--data.tokenizer", "byte", "--run_dir", "other")
    assert "transformer.wte.weight" in other.err
    assert other.code == 2

    (hub_folder / "tokenizer.json").rename("away.json")
    without = run("fit", *steps, "--run_dir", "other")
    assert "the tokenizer of" in without.err
    named = run("fit", *steps, "--data.tokenizer", "bpe", "--data.vocab_size", "281", "--run_dir", "named")
    assert named.code == 0

    shutil.rmtree(hub_folder)  # no longer needed
    assert run("fit", "--resume", "r", "--trainer.max_steps", "3").code == 0
    assert f"init_from: {hub_folder}" in Path("r/config.yaml").read_text()
    assert run("validate", "--ckpt_path", "r").code == 0


def test_gpt2s_weights_do_not_go_into_another_architecture(run: Run, hub_folder: Path) -> None:
    asked = ["--model.init_from", hub_folder, "--model.arch", "modern"]
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
    "llama": (lambda f: edit(f, model_type="llama"), "model_type 'llama': only 'gpt2' is supported"),
    "relu": (lambda f: edit(f, activation_function="relu"), "not supported here: activation_function relu"),
    "scaled": (
        lambda f: edit(f, scale_attn_by_inverse_layer_idx=True, n_inner=7),
        "not supported here: scale_attn_by_inverse_layer_idx True, n_inner 7",
    ),
    "words for sizes": (
        lambda f: edit(f, n_layer="two"),
        "n_layer must be a positive whole number, not 'two'",
    ),
    "wrong heads": (lambda f: edit(f, n_head=5), "must be a multiple of model.n_head (5)"),
    "more layers": (lambda f: edit(f, n_layer=4), "lacks the tensor transformer.h.3.ln_1.weight"),
    "fewer layers": (lambda f: edit(f, n_layer=2), "a tensor that is none of GPT-2's: transformer.h.2."),
    "no dropout": (lambda f: edit(f, resid_pdrop=None), "resid_pdrop must be a number, not None"),
    "missing": (lambda f: change(f, C_FC, None), f"lacks the tensor {C_FC}"),
    "wrong shape": (
        lambda f: change(f, C_FC, torch.zeros(48, 7)),
        f"the tensor {C_FC} of theirs has the shape [48, 7], not [48, 192]",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "cannot read theirs/config.json"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "theirs/config.json is no JSON file"),
    "list config": (
        lambda f: (f / "config.json").write_text("[]"),
        "theirs/config.json holds no JSON object",
    ),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "theirs has neither model.safetensors nor pytorch_model.bin",
    ),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]),
        "theirs/model.safetensors is damaged",
    ),
    "missing shard": (
        lambda f: (
            (f / "model.safetensors").rename(f / "model.safetensors.index.json")
            and (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
        ),
        "cannot read theirs/gone.safetensors",
    ),
    "shard elsewhere": (
        lambda f: (
            (f / "model.safetensors").rename(f / "model.safetensors.index.json")
            and (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "../../x.safetensors"}}'
            )
        ),
        "names a file outside of its folder: ../../x.safetensors",
    ),
    "code in bin": (
        lambda f: (f / "model.safetensors").unlink() or torch.save(Malicious(), f / "pytorch_model.bin"),
        "theirs/pytorch_model.bin is damaged, or holds more than tensors",
    ),
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        "the tokenizer of theirs cannot be used: there is neither tokenizer.json nor vocab.json",
    ),
    "broken tokenizer": (
        lambda f: (f / "tokenizer.json").write_text("{}"),
        "the tokenizer of theirs is damaged",
    ),
    "words": (
        lambda f: (f / "tokenizer.json").write_text(
            '{"model": {"type": "BPE", "vocab": {"ab": 0}, "merges": ["a b"]}, "normalizer": null, '
            '"pre_tokenizer": null, "added_tokens": []}'
        ),
        "it does not take its text apart as GPT-2's does",
    ),
    "empty tokenizer": (
        lambda f: (
            (f / "tokenizer.json").unlink()
            or (f / "vocab.json").write_text("{}")
            and (f / "merges.txt").touch()
        ),
        "the tokenizer of theirs is damaged",
    ),
    "other tokenizer": (
        lambda f: to_tokenizer_json(bpe(270)).save(str(f / "tokenizer.json")),
        "theirs: the model knows 281 tokens and its tokenizer 270",
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
    assert "its tensor h.0.mlp.c_fc.weight is missing or has a wrong shape" in done.err
    assert not Path("out").exists()


@pytest.mark.slow
def test_an_export_that_the_disk_has_no_room_for_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    def allow_little() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [sys.executable, "-m", "lit_gpt_scratch", "export", "--ckpt_path", str(finished), "--to", "out/hf"],
        env=environment(),
        cwd=tmp_path,
        preexec_fn=allow_little,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write the folder out/hf: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list((tmp_path / "out").iterdir())


def test_a_card_keeps_secrets_and_says_what_it_began_from(run: Run, finished: Path) -> None:
    assert (
        run("fit", "--ckpt_path", finished, "--finetune", "--trainer.max_steps", "1", "--run_dir", "r").code
        == 0
    )
    assert run("fit", "--resume", "r", "--trainer.max_steps", "2").code == 0
    checkpoint = read_checkpoint("r/last.ckpt")
    checkpoint["TextDataModule"]["corpus"]["name"] = "https://me:password@example.org/a.txt?signature=s"
    card = model_card(checkpoint, gpt_of(Path("r")).config, "mine")
    assert "| corpus | https://example.org/a.txt: 606 characters" in card
    assert "| first weights | those of run/best.ckpt |" in card
    assert "password" not in card
    assert "signature" not in card


def test_mistakes_with_the_tools(run: Run, finished: Path, hub_folder: Path) -> None:
    for args, message in (
        (["import", "--run_dir", "x"], "arguments are required: from"),
        (["import", "--from", "nothing", "--run_dir", "x"], "no such folder: nothing"),
        (
            ["import", "--from", finished, "--run_dir", "x"],
            "is a run of this program: give it as --ckpt_path",
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
