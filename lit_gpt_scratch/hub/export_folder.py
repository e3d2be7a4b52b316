"""`export`: a checkpoint into a folder that Hugging Face's transformers loads."""

import os
import shutil
import tempfile
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from transformers import GenerationConfig, PreTrainedTokenizerFast

from lit_gpt_scratch.api import Model, load
from lit_gpt_scratch.data.subwords import END_OF_TEXT, SubwordTokenizer
from lit_gpt_scratch.generation.generate import SamplingOptions
from lit_gpt_scratch.hub import gpt2, qwen3
from lit_gpt_scratch.hub.model_card import model_card
from lit_gpt_scratch.hub.tokenizer import to_hub
from lit_gpt_scratch.training.checkpoint_io import find_checkpoint, read_checkpoint


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
    checkpoint, model = read_checkpoint(ckpt_path), load(ckpt_path)
    if folder.exists():
        raise ValueError(f"{folder} is there already: name a new folder")
    family = qwen3 if model.gpt.config.arch == "modern" else gpt2
    theirs = family.to_transformers(model.gpt.cpu())
    tokenizer = hub_tokenizer(model)
    ends = {f"{name}_token_id": tokenizer.eos_token_id for name in ("bos", "eos", "pad")}
    theirs.config.update(ends)
    theirs.generation_config = GenerationConfig(
        do_sample=True,
        temperature=SamplingOptions.temperature,
        max_new_tokens=SamplingOptions.max_new_tokens,
        top_k=0,
        **ends,
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise ValueError(f"cannot make the folder {folder}: {error.strerror}") from error
    try:
        theirs.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        model_card(checkpoint, model, folder.name).save(beside / "README.md")
        beside.chmod(0o755)  # mkdtemp and safetensors make theirs for the owner alone
        (beside / "model.safetensors").chmod(0o644)
        os.rename(beside, folder)
    except Exception as error:  # OSError, or what safetensors and tokenizers raise in its place
        raise OSError(f"cannot write the folder {folder}: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def hub_tokenizer(model: Model) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a model as transformers'."""
    has_end = isinstance(model.tokenizer, SubwordTokenizer)
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT} if has_end else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=to_hub(model.tokenizer),
        model_max_length=model.gpt.config.block_size,
        clean_up_tokenization_spaces=False,
        **special,
    )
