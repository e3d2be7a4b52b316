"""Texts, tokenizers, token files and batches."""
