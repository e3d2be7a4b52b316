"""A text as batches of token windows, for Lightning's Trainer."""

from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tiktoken
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lit_gpt_scratch.data.corpus import Corpus, load_corpus
from lit_gpt_scratch.data.subwords import SubwordTokenizer, tokenizer_from_json, train_bpe
from lit_gpt_scratch.data.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer
from lit_gpt_scratch.data.tokens import Tokens, load_tokens
from lit_gpt_scratch.data.windows import (
    EvalBatches,
    TrainBatches,
    full_pass_starts,
    gather,
    random_starts,
    spread_starts,
)

ENDLESS_STEPS = 10**12  # length of a run that has no max_steps


class TextDataModule(LightningDataModule):
    """Serves random windows of a text's first part to train on, fixed windows of both to evaluate on.

    Text, tokenizer and tokens are made at first use, so that a checkpoint's tokenizer can stand alone:
    generating text reads no corpus.
    """

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
        """Remember the settings; nothing is read yet.

        Args:
            corpus: The text: shakespeare, python_docs or hamlet, or a file, a folder of .txt, .md, .jsonl
                (its "text" fields) and .parquet files (their column "text"), packed by gzip or not, a glob
                pattern, or a URL. Between two documents stands <|endoftext|>, or a blank line where the
                tokenizer has no such token.
            val_corpus: The text to validate on; null takes the end of the corpus.
            test_corpus: The text of the test command; the validation text where it is null.
            offline_corpus: The embedded corpus (python_docs or hamlet) that stands in when a download fails;
                null makes that an error.
            val_fraction: Share of the text, from its end, that is kept for validation; val_corpus comes
                instead of it.
            max_val_tokens: Tokens that an evaluation looks at, at most: of a longer validation text, fixed
                windows spread evenly over it; null takes all of any text.
            tokenizer: How text becomes tokens: char, byte, bpe (learnt from the training text), gpt2 or
                another of tiktoken's encodings, or the JSON of a checkpoint's tokenizer.
            vocab_size: Tokens of a bpe; the other tokenizers know their own number.
            batch_size: Sequences of an optimizer step, over all devices together.
            micro_batch_size: Sequences that a device takes at once; null takes its whole share, and auto the
                largest part of it that fits into a GPU's memory.
            block_size: Length of a window in tokens.
            seed: Seed of the sequence of batches.

        Raises:
            ValueError: A number is out of range.
        """
        super().__init__()
        self.save_hyperparameters(ignore=["tokenizer", "vocab_size"])  # the state has the tokenizer itself
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
        self.finds_micro_batch = micro_batch_size == "auto"
        self.micro_batch_size = micro_batch_size if isinstance(micro_batch_size, int) else None
        self.seed = seed

    @cached_property
    def corpus(self) -> Corpus:
        """The text, read on first use."""
        return load_corpus(self.source, self.offline_corpus)

    @cached_property
    def val_corpus(self) -> Corpus:
        """The text whose end, or the whole of which, is validated on."""
        return load_corpus(self.val_source) if self.val_source is not None else self.corpus

    @cached_property
    def test_corpus(self) -> Corpus | None:
        """The test text, read on first use, if there is one."""
        return load_corpus(self.test_source, self.offline_corpus) if self.test_source is not None else None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer given as JSON, else the one named, made from the text where it has to be."""
        match self.tokenizer_source:
            case "char":  # of all the text, so that none of the validation text is unknown
                return CharTokenizer(self.corpus.census.chars + self.val_corpus.census.chars)
            case "byte":
                return ByteTokenizer()
            case "bpe":
                return train_bpe(self.corpus, self.n_train_chars, self.bpe_vocab_size)
            case name if not name.startswith("{"):
                return SubwordTokenizer.named(name)
            case state:
                return tokenizer_from_json(state)

    @property
    def n_train_chars(self) -> int:
        """Characters of the training text; what comes after them is validation text."""
        n_chars = self.corpus.census.n_chars
        return n_chars if self.val_source is not None else int((1 - self.val_fraction) * n_chars)

    @property
    def vocab_size(self) -> int:
        """Number of distinct tokens."""
        return self.tokenizer.vocab_size

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimizer step, over all devices."""
        return self.batch_size * self.block_size

    @property
    def rows_per_device(self) -> int:
        """Sequences of an optimizer step on one device."""
        return max(1, self.batch_size // (self.trainer.world_size if self.trainer else 1))

    @cached_property
    def tokens(self) -> tuple[Tokens, Tokens]:
        """The text's tokens: to train on, to validate on.

        Raises:
            ValueError: The text is too short, or has characters that the checkpoint's tokenizer lacks.
        """
        val_start = self.n_train_chars if self.val_source is None else 0
        train = self._load(self.corpus, 0, self.n_train_chars)
        val = self._load(self.val_corpus, val_start, self.val_corpus.census.n_chars)
        if len(val) < 2 and self.val_source is not None:
            raise ValueError(f"{self.val_corpus.name} is too short to validate on: it has {len(val)} token")
        if len(train) + len(val) < 2 * self.block_size or len(train) <= self.block_size or len(val) < 2:
            raise ValueError(
                f"{self.corpus.name} is too short: {len(train)} tokens to train on, {len(val)} "
                f"to validate on, and a block takes {self.block_size}; give more text or a smaller block_size"
            )
        return train, val

    @property
    def train_tokens(self) -> Tokens:
        """The first part of the text."""
        return self.tokens[0]

    @property
    def val_tokens(self) -> Tokens:
        """The last part of the text, or another one, which training never sees."""
        return self.tokens[1]

    @cached_property
    def test_tokens(self) -> Tokens:
        """The test text, or the validation text where there is none.

        Raises:
            ValueError: The test text is too short, or has characters that the tokenizer lacks.
        """
        if self.test_corpus is None:
            return self.val_tokens
        tokens = self._load(self.test_corpus, 0, self.test_corpus.census.n_chars)
        if len(tokens) < 2:
            raise ValueError(f"{self.test_corpus.name} is too short to test on: it has {len(tokens)} token")
        return tokens

    def setup(self, stage: str) -> None:
        """Check that the devices can share a batch and an evaluation.

        Raises:
            ValueError: They cannot.
        """
        n_devices = self.trainer.world_size if self.trainer else 1
        if self.batch_size % n_devices:
            raise ValueError(
                f"data.batch_size ({self.batch_size}) must be a multiple of the {n_devices} devices"
            )
        n_windows = len(self._test_starts if stage == "test" else self._val_starts)
        if n_windows < n_devices:
            raise ValueError(f"{n_windows} windows of validation text are too few for {n_devices} devices")

    def _load(self, corpus: Corpus, start: int, stop: int) -> Tokens:
        tokenizer = self.tokenizer
        if unknown := tokenizer.unknown(corpus.census.chars):
            raise ValueError(
                f"the checkpoint's tokenizer does not fit {corpus.name}: it lacks {len(unknown)} of its "
                f"characters, such as {' '.join(map(repr, unknown[:5]))}"
            )
        return load_tokens(corpus, start, stop, tokenizer)

    @property
    def _val_is_whole(self) -> bool:
        """Whether an evaluation looks at all of the validation text."""
        return self.max_val_tokens is None or len(self.val_tokens) - 1 <= self.max_val_tokens

    @property
    def _val_block_size(self) -> int:
        return min(self.block_size, len(self.val_tokens) - 1)

    @cached_property
    def _val_starts(self) -> npt.NDArray[np.int64]:
        """Where the windows of an evaluation begin."""
        if self._val_is_whole:
            return full_pass_starts(len(self.val_tokens), self._val_block_size)
        assert self.max_val_tokens is not None
        n_windows = self.max_val_tokens // self._val_block_size
        return spread_starts(len(self.val_tokens), self._val_block_size, n_windows)

    @property
    def n_val_tokens(self) -> int:
        """Tokens that an evaluation looks at."""
        whole = len(self.val_tokens)
        return whole if self._val_is_whole else len(self._val_starts) * self._val_block_size

    @cached_property
    def val_bytes_per_token(self) -> float:
        """UTF-8 bytes that a target of an evaluation stands for, on average."""
        if self._val_is_whole:
            return self._bytes_per_target(self.val_tokens)
        _, targets = gather(self.val_tokens.ids, self._val_starts, self._val_block_size)
        return float(self.tokenizer.token_n_bytes[targets.numpy()].mean())

    @property
    def _test_starts(self) -> npt.NDArray[np.int64]:
        return full_pass_starts(len(self.test_tokens), self._test_block_size)

    @property
    def _test_block_size(self) -> int:
        return min(self.block_size, len(self.test_tokens) - 1)

    @property
    def test_bytes_per_token(self) -> float:
        """UTF-8 bytes that a target of the test stands for, on average."""
        return self._bytes_per_target(self.test_tokens)

    def _bytes_per_target(self, tokens: Tokens) -> float:
        """Of a whole sequence, all but whose first token are targets."""
        first = int(self.tokenizer.token_n_bytes[tokens.ids[0]])
        return (tokens.n_bytes - first) / (len(tokens) - 1)

    def train_dataloader(self) -> TrainBatches:
        """Random windows from the step at which the Trainer stands, to its last."""
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
        """What all devices together read in an optimizer step, counted from 0; (batch_size, T)."""
        ids = self.train_tokens.ids
        starts = random_starts(len(ids), self.block_size, self.batch_size, self.seed, step)
        return gather(ids, starts, self.block_size)[0]

    def val_dataloader(self) -> list[EvalBatches]:
        """The validation text, or windows spread over it, and as many fixed windows of the training text."""
        starts = spread_starts(len(self.train_tokens), self.block_size, len(self._val_starts))
        return [
            self._eval_batches(self.val_tokens, self._val_starts, self._val_block_size),
            self._eval_batches(self.train_tokens, starts, self.block_size),
        ]

    def test_dataloader(self) -> EvalBatches:
        """A full pass over the test text."""
        return self._eval_batches(self.test_tokens, self._test_starts, self._test_block_size)

    def _eval_batches(self, tokens: Tokens, starts: npt.NDArray[np.int64], block_size: int) -> EvalBatches:
        assert self.trainer is not None
        batch_size = self.micro_batch_size or self.rows_per_device
        return EvalBatches(
            tokens.ids, starts, block_size, batch_size, self.trainer.global_rank, self.trainer.world_size
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the tokenizer, what the text was, and what it was validated on."""
        val = {
            "corpus": self.val_corpus.fingerprint() if self.val_source is not None else None,
            "bytes_per_token": self.val_bytes_per_token,
        }
        return {"tokenizer": self.tokenizer.to_dict(), "corpus": self.corpus.fingerprint(), "val": val}

    def describe_validation(self) -> str:
        """What an evaluation looks at."""
        name = f"the validation part of {self.corpus.name}"
        name = name if self.val_source is None else self.val_corpus.name
        some = f", {self.n_val_tokens:,} of its {len(self.val_tokens):,} tokens"
        return name if self._val_is_whole else name + some
