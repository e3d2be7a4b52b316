"""A checkpoint of ours into a folder that Hugging Face's transformers loads."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from safetensors import SafetensorError
from safetensors.torch import save_file

from lit_gpt_scratch import __version__
from lit_gpt_scratch.data.subwords import END_OF_TEXT, SubwordTokenizer, tokenizer_from_dict
from lit_gpt_scratch.data.tokenizer import Tokenizer
from lit_gpt_scratch.data.tokenizer_json import to_tokenizer_json
from lit_gpt_scratch.generation.engine import SamplingOptions
from lit_gpt_scratch.model.gpt import GPTConfig
from lit_gpt_scratch.tools.loaded import config_of
from lit_gpt_scratch.tools.model_card import model_card
from lit_gpt_scratch.training.checkpoint_io import find_checkpoint, read_checkpoint
from lit_gpt_scratch.training.hub_layout import config_to_hub, weights_to_hub
from lit_gpt_scratch.training.qwen3_layout import qwen3_config, qwen3_weights


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `export`."""
    parser.add_argument(
        "--ckpt_path", type=str, required=True, help="Checkpoint: a file, or a run folder for its best."
    )
    parser.add_argument("--to", type=str, required=True, help="Folder to make; it must not be there yet.")


def run(options: Namespace) -> None:
    """Export, and say how it is loaded."""
    folder = Path(options.to).expanduser()
    export_folder(find_checkpoint(options.ckpt_path), folder)
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    print(
        f"exported  {folder}: {names}\n"
        f"load it   transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})"
    )


def export_folder(ckpt_path: Path, folder: Path) -> None:
    """Write a folder with a model, its tokenizer and a card, whole or not at all.

    Raises:
        ValueError: The checkpoint cannot be read, or the folder is there already or cannot be made.
        OSError: The folder cannot be written to its end; nothing of it is left.
    """
    checkpoint = read_checkpoint(ckpt_path)
    config = config_of(checkpoint)
    tokenizer = tokenizer_from_dict(checkpoint["TextDataModule"]["tokenizer"])
    state = {name.removeprefix("gpt."): tensor for name, tensor in checkpoint["state_dict"].items()}
    modern = config.arch == "modern"
    tensors = qwen3_weights(state, config) if modern else weights_to_hub(state, config)
    if folder.exists():
        raise ValueError(f"{folder} is there already: name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise ValueError(f"cannot make the folder {folder}: {error.strerror}") from error
    try:
        save_file(tensors, beside / "model.safetensors", metadata={"format": "pt"})
        for name, content in _settings(config, tokenizer).items():
            (beside / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        to_tokenizer_json(tokenizer).save(str(beside / "tokenizer.json"))
        (beside / "README.md").write_text(model_card(checkpoint, config, folder.name), encoding="utf-8")
        beside.chmod(0o755)  # mkdtemp and safetensors make theirs for the owner alone
        (beside / "model.safetensors").chmod(0o644)
        os.rename(beside, folder)
    except (OSError, SafetensorError) as error:
        raise OSError(f"cannot write the folder {folder}: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _settings(config: GPTConfig, tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """The JSON files beside weights and tokenizer."""
    special: dict[str, Any] = {}
    ends: dict[str, Any] = {}
    if isinstance(tokenizer, SubwordTokenizer):
        special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
        end_id = tokenizer.encoding.eot_token
        ends = {"bos_token_id": end_id, "eos_token_id": end_id, "pad_token_id": end_id}
    usual = SamplingOptions()
    describe = qwen3_config if config.arch == "modern" else config_to_hub
    return {
        "config.json": describe(config, ends.get("eos_token_id")),
        "generation_config.json": {
            **ends,
            "do_sample": True,
            "temperature": usual.temperature,
            "max_new_tokens": usual.max_new_tokens,
            "top_k": usual.top_k or 0,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.block_size,
            "clean_up_tokenization_spaces": False,
            "made_by": f"lit_gpt_scratch {__version__}",
            **special,
        },
    }
