"""A LightningDataModule that serves windows of a text's tokens."""

import json
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Literal

import tiktoken
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lit_gpt_scratch.data.batches import (
    EvalBatches,
    EvalSet,
    TrainBatches,
    gather,
    random_starts,
    spread_starts,
)
from lit_gpt_scratch.data.bpe import SubwordTokenizer, tokenizer_from_dict, train_bpe
from lit_gpt_scratch.data.corpus import Corpus, load_corpus
from lit_gpt_scratch.data.token_files import Tokens, load_tokens
from lit_gpt_scratch.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer

ENDLESS_STEPS = 10**12  # length of a run that has no max_steps


class TextDataModule(LightningDataModule):
    """Serve random training windows, and fixed evaluation windows of the training, validation and test text.

    `prepare_data` downloads the text, trains the tokenizer and writes the token files to the cache; `setup`
    memory-maps these files. Both call `load`, which a script can call without a Trainer.
    """

    corpora: dict[Literal["train", "val", "test"], Corpus]  # those that have been read
    # Set by `load`:
    tokenizer: Tokenizer
    train_tokens: Tokens
    val_set: EvalSet
    test_set: EvalSet

    def __init__(
        self,
        corpus: str = "shakespeare",
        val_corpus: str | None = None,
        test_corpus: str | None = None,
        offline_corpus: str | None = "python_docs",
        val_fraction: float = 0.1,
        max_val_tokens: int | None = 2**18,
        tokenizer: str = "char",
        vocab_size: int = 1024,
        batch_size: int = 32,
        micro_batch_size: int | Literal["auto"] | None = None,
        *,
        block_size: int = 64,
        seed: int = 1337,
    ) -> None:
        """Store and check the settings; no text is read yet.

        Args:
            corpus: Text to train on: the name shakespeare, python_docs or hamlet, or a file, a folder, a glob
                pattern or a URL. In a folder, .txt, .md, .jsonl (field "text") and .parquet files
                (column "text") are read; all but .parquet may be compressed (.gz, .bz2, .xz). Documents are
                separated by <|endoftext|>, or by a blank line if the tokenizer has no such token.
            val_corpus: Text to validate on, named in the same ways as corpus; null uses the end of corpus.
            test_corpus: Text that the command test evaluates the model on; null uses the validation text.
            offline_corpus: Embedded text (python_docs or hamlet) to train on if corpus is shakespeare and
                cannot be downloaded; null makes the failed download an error.
            val_fraction: Fraction of corpus, taken from its end, to validate on if val_corpus is null.
            max_val_tokens: Maximum number of validation tokens to evaluate. For a longer validation text,
                fixed windows spread evenly over the text are evaluated; null evaluates the whole text.
            tokenizer: char (one token per character), byte (one token per UTF-8 byte), bpe (byte pair
                encoding learned from the training text), an encoding of tiktoken, such as gpt2, or the JSON
                of a checkpoint's tokenizer.
            vocab_size: Vocabulary size of the tokenizer bpe; the other tokenizers ignore this option.
            batch_size: Sequences per optimizer step, over all devices together.
            micro_batch_size: Sequences that a device processes at once. null means the device's whole share
                of batch_size; auto means the largest of 1, 1/2, 1/4, ... of this share that fits into the
                memory of every GPU.
            block_size: Length of a window in tokens.
            seed: Seed of the random training windows.

        Raises:
            ValueError: A number is out of range, the name of a text is empty, or there is no such tokenizer.
        """
        super().__init__()
        self.save_hyperparameters(ignore=["tokenizer", "vocab_size"])  # a checkpoint has the tokenizer itself
        if batch_size < 1:
            raise ValueError(f"data.batch_size must be at least 1, not {batch_size}")
        if isinstance(micro_batch_size, int) and micro_batch_size < 1:
            raise ValueError(f"data.micro_batch_size must be at least 1, not {micro_batch_size}")
        if not 0 < val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie between 0 and 1, not {val_fraction}")
        if max_val_tokens is not None and max_val_tokens < block_size:
            raise ValueError(
                f"data.max_val_tokens ({max_val_tokens}) must be at least model.block_size ({block_size})"
            )
        for name, text in (("corpus", corpus), ("val_corpus", val_corpus), ("test_corpus", test_corpus)):
            if text == "":
                raise ValueError(f"data.{name} is empty: name a text")
        names = ["char", "byte", "bpe", *tiktoken.list_encoding_names()]
        if tokenizer not in names and not tokenizer.startswith("{"):
            near = get_close_matches(tokenizer, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"data.tokenizer {tokenizer!r} is none of {', '.join(names)}{hint}")
        self.source = corpus
        self.val_source = val_corpus
        self.test_source = test_corpus
        self.offline_corpus = offline_corpus
        self.val_fraction = val_fraction
        self.max_val_tokens = max_val_tokens
        self.tokenizer_source = tokenizer
        self.bpe_vocab_size = vocab_size
        self.block_size = block_size
        self.batch_size = batch_size
        self.auto_micro_batch = micro_batch_size == "auto"
        self.micro_batch_size = micro_batch_size if isinstance(micro_batch_size, int) else None
        self.seed = seed
        self.corpora = {}

    def prepare_data(self) -> None:
        """Download the text, learn the tokenizer and write the token files, in one process per machine.

        Raises:
            ValueError: See `load`.
        """
        self.load(str(self.trainer.state.fn.value) if self.trainer and self.trainer.state.fn else "fit")

    def setup(self, stage: str) -> None:
        """Memory-map the token files; check that batches and evaluations can be split over the devices.

        Raises:
            ValueError: The batch size is not a multiple of the number of devices, there are fewer evaluation
                windows than devices, or `load` fails.
        """
        self.load(stage)
        if stage == "predict":
            return
        n_devices = self.trainer.world_size if self.trainer else 1
        if self.batch_size % n_devices:
            raise ValueError(
                f"data.batch_size ({self.batch_size}) must be a multiple of the {n_devices} devices"
            )
        n_windows = len((self.test_set if stage == "test" else self.val_set).starts)
        if n_windows < n_devices:
            raise ValueError(f"{n_windows} evaluation windows are too few for {n_devices} devices")

    def load(self, stage: str) -> None:
        """Read the texts of a stage, create the tokenizer, and memory-map the tokens, unless already done.

        Args:
            stage: Stage of the Trainer: fit, validate, test or predict. For predict, only the tokenizer is
                loaded. For predict, and for test with a test_corpus, the training text is read only if the
                tokenizer has to be made from this text.

        Raises:
            ValueError: A text cannot be read, is too short, or has characters that the tokenizer lacks.
        """
        is_split = stage in ("fit", "validate") or (stage == "test" and self.test_source is None)
        needs_tokenizer = not hasattr(self, "tokenizer")
        is_learned = needs_tokenizer and self.tokenizer_source in ("char", "bpe")
        if "train" not in self.corpora and (is_split or is_learned):
            train = load_corpus(self.source, self.offline_corpus)
            val = load_corpus(self.val_source) if self.val_source is not None else train
            self.corpora |= {"train": train, "val": val}
        if needs_tokenizer:
            self.tokenizer = self._make_tokenizer()
        if is_split and not hasattr(self, "val_set"):
            self._split()
        if stage == "test" and not hasattr(self, "test_set"):
            self.test_set = self._load_test_set()

    def _make_tokenizer(self) -> Tokenizer:
        match self.tokenizer_source:
            case "char":  # from both texts, so that no validation character is unknown
                return CharTokenizer(self.corpora["train"].alphabet + self.corpora["val"].alphabet)
            case "byte":
                return ByteTokenizer()
            case "bpe":
                return train_bpe(self.corpora["train"], self._n_train_chars(), self.bpe_vocab_size)
            case name if not name.startswith("{"):
                return SubwordTokenizer.from_name(name)
            case state:
                with suppress(json.JSONDecodeError):
                    return tokenizer_from_dict(json.loads(state))
                raise ValueError(f"not a tokenizer: {state[:80]}")

    def _n_train_chars(self) -> int:
        """Return the number of characters of the training corpus to train on.

        Without a val_corpus, the remaining characters, at the end of the corpus, are the validation text.
        """
        n_chars = self.corpora["train"].n_chars
        return n_chars if self.val_source is not None else int((1 - self.val_fraction) * n_chars)

    def _split(self) -> None:
        """Load the tokens of the training and the validation text."""
        corpus, val_corpus, n_train_chars = self.corpora["train"], self.corpora["val"], self._n_train_chars()
        train = self._load_tokens(corpus, 0, n_train_chars)
        val = self._load_tokens(
            val_corpus, n_train_chars if self.val_source is None else 0, val_corpus.n_chars
        )
        if len(val) < 2 and self.val_source is not None:
            raise ValueError(
                f"{val_corpus.name} is too short to validate on: it has {len(val)} of at least 2 tokens"
            )
        if len(train) + len(val) < 2 * self.block_size or len(train) <= self.block_size or len(val) < 2:
            raise ValueError(
                f"{corpus.name} is too short: {len(train)} tokens to train on, {len(val)} to validate on, "
                f"for windows of {self.block_size} tokens; use a longer text or a smaller model.block_size"
                + (" or data.vocab_size" if self.tokenizer_source == "bpe" else "")
            )
        self.train_tokens = train
        self.val_set = EvalSet.from_tokens(val, self.block_size, self.tokenizer, self.max_val_tokens)

    def _load_test_set(self) -> EvalSet:
        """Return windows of the whole test text or, if test_corpus is None, of the whole validation text."""
        if self.test_source is None:
            tokens = self.val_set.tokens
        else:
            corpus = self.corpora["test"] = load_corpus(self.test_source)
            tokens = self._load_tokens(corpus, 0, corpus.n_chars)
            if len(tokens) < 2:
                raise ValueError(
                    f"{corpus.name} is too short to test on: it has {len(tokens)} of at least 2 tokens"
                )
        return EvalSet.from_tokens(tokens, self.block_size, self.tokenizer)

    def _load_tokens(self, corpus: Corpus, start: int, stop: int) -> Tokens:
        if unknown := self.tokenizer.unknown_chars(corpus.alphabet):
            raise ValueError(
                f"the checkpoint's tokenizer does not fit {corpus.name}: it lacks {len(unknown)} of its "
                f"characters, such as {' '.join(map(repr, unknown[:5]))}"
            )
        return load_tokens(corpus, start, stop, self.tokenizer)

    @property
    def vocab_size(self) -> int:
        """Number of token ids of the tokenizer, including special tokens and unused ids."""
        return self.tokenizer.vocab_size

    @property
    def tokens_per_step(self) -> int:
        """Number of tokens per optimizer step, over all devices together."""
        return self.batch_size * self.block_size

    @property
    def rows_per_device(self) -> int:
        """Number of sequences per optimizer step on one device."""
        return self.batch_size // (self.trainer.world_size if self.trainer else 1)

    def train_dataloader(self) -> TrainBatches:
        """Return batches of random windows for all steps from the Trainer's current step to its last step."""
        assert self.trainer is not None
        return TrainBatches(
            self.train_tokens.ids,
            self.block_size,
            self.batch_size,
            micro_batch_size=self.micro_batch_size or self.batch_size,
            seed=self.seed,
            first_step=self.trainer.global_step,
            n_steps=self.trainer.max_steps if self.trainer.max_steps > 0 else ENDLESS_STEPS,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def global_batch(self, step: int) -> Tensor:
        """Return the input ids of all devices in an optimizer step, (batch_size, T); the first step is 0."""
        ids = self.train_tokens.ids
        starts = random_starts(len(ids), self.block_size, self.batch_size, self.seed, step)
        return gather(ids, starts, self.block_size)[0]

    def val_dataloader(self) -> list[EvalBatches]:
        """Return the batches of the validation windows, and the batches of as many fixed training windows."""
        starts = spread_starts(len(self.train_tokens), self.block_size, len(self.val_set.starts))
        train_set = EvalSet(self.train_tokens, starts, self.block_size)
        return [self._eval_batches(self.val_set), self._eval_batches(train_set)]

    def test_dataloader(self) -> EvalBatches:
        """Return the batches of a full pass over the test text."""
        return self._eval_batches(self.test_set)

    def _eval_batches(self, eval_set: EvalSet) -> EvalBatches:
        assert self.trainer is not None
        batch_size = self.micro_batch_size or self.rows_per_device
        return EvalBatches(eval_set, batch_size, self.trainer.global_rank, self.trainer.world_size)

    def state_dict(self) -> dict[str, Any]:
        """Return the data part of a checkpoint: tokenizer, text fingerprints, bytes per validation token."""
        val = {
            "corpus": self.corpora["val"].fingerprint() if self.val_source is not None else None,
            "bytes_per_token": self.val_set.bytes_per_token,
        }
        corpus = self.corpora["train"].fingerprint()
        return {"tokenizer": self.tokenizer.to_dict(), "corpus": corpus, "val": val}

    def describe_evaluation(self, stage: str) -> str:
        """Return a description of the text on which a stage (validate or test) evaluates the model."""
        if stage == "test" and "test" in self.corpora:
            return self.corpora["test"].name
        name = self.corpora["val"].name
        name = f"the validation part of {name}" if self.val_source is None else name
        if stage == "test":
            return f"{name}: there is no data.test_corpus"
        if self.val_set.is_full_pass:
            return name
        return f"{name}, {self.val_set.n_tokens:,} of its {len(self.val_set.tokens):,} tokens"
