"""Marks of tests that need more than the package and its dependencies."""

import os

import pytest

from lit_gpt_scratch.training.hardware import missing_compile_requirement

needs_compiler = pytest.mark.skipif(
    missing_compile_requirement() is not None, reason=f"{missing_compile_requirement()}"
)
# Tests do not download.
HAS_GPT2_ENCODING = bool(os.environ.get("TIKTOKEN_CACHE_DIR"))
needs_gpt2_encoding = pytest.mark.skipif(
    not HAS_GPT2_ENCODING, reason="TIKTOKEN_CACHE_DIR names no folder with GPT-2's encoding"
)
