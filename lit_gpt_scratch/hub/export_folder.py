"""The command `export`: convert a checkpoint to a folder that Hugging Face's transformers loads."""

import shutil
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from transformers import GenerationConfig, PreTrainedTokenizerFast

from lit_gpt_scratch.api import load
from lit_gpt_scratch.data.bpe import END_OF_TEXT, SubwordTokenizer
from lit_gpt_scratch.generation.generate import SamplingOptions
from lit_gpt_scratch.hub.model_card import model_card
from lit_gpt_scratch.hub.pretrained import FAMILIES
from lit_gpt_scratch.hub.tokenizer import to_hub
from lit_gpt_scratch.training.checkpoint import find_checkpoint, read_checkpoint
from lit_gpt_scratch.training.run_folder import make_folder


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `export`."""
    parser.add_argument(
        "--ckpt_path", type=str, required=True, help="Checkpoint: a file, or a run folder (its best.ckpt)."
    )
    parser.add_argument("--to", type=str, required=True, help="Folder to create; it must not exist.")


def run(options: Namespace) -> None:
    """Export a checkpoint, and print the folder's files and how to load them."""
    folder = Path(options.to).expanduser()
    export_folder(find_checkpoint(options.ckpt_path), folder)
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    print(
        f"exported  {folder}: {names}\n"
        f"load it   transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})"
    )


def export_folder(ckpt_path: Path, folder: Path) -> None:
    """Write the model and tokenizer of a checkpoint, with a model card, atomically as a Hugging Face folder.

    Raises:
        ValueError: The checkpoint cannot be read, or the folder exists already or cannot be created.
        OSError: The folder cannot be written completely; the partial folder is removed.
    """
    model = load(ckpt_path)
    if folder.exists():
        raise ValueError(f"{folder} is there already: name a new folder")
    end_of_text = END_OF_TEXT if isinstance(model.tokenizer, SubwordTokenizer) else None
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=to_hub(model.tokenizer),
        model_max_length=model.gpt.config.block_size,
        clean_up_tokenization_spaces=False,
        bos_token=end_of_text,
        eos_token=end_of_text,
    )
    hub_model = FAMILIES["qwen3" if model.gpt.config.arch == "modern" else "gpt2"].hub_model(model.gpt.cpu())
    special_ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    hub_model.config.update(special_ids)
    defaults = {name: getattr(SamplingOptions, name) for name in ("temperature", "max_new_tokens")}
    hub_model.generation_config = GenerationConfig(do_sample=True, top_k=0, **defaults, **special_ids)
    card = model_card(read_checkpoint(ckpt_path), model, hub_model.config.model_type, folder.name)
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)  # the rest of a killed export
    make_folder(partial)
    try:
        hub_model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(card, encoding="utf-8")
        for file in partial.iterdir():
            file.chmod(0o644)  # safetensors makes its files readable for the owner alone
        partial.rename(folder)
    except Exception as error:  # OSError, or the exceptions of safetensors and tokenizers
        raise OSError(f"cannot write the folder {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
