"""KV cache: keys and values of earlier tokens, so that each token is computed once.

Letters in shapes are those of `gpt.py`; N is the number of tokens that a row has in the cache.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class LayerCache(NamedTuple):
    """The cache of one block in one forward pass.

    Args:
        keys: Keys of all tokens, the newest included, (B, K, N, D).
        values: Values of all tokens, (B, K, N, D).
        new_keys: View into `keys` where the newest tokens' keys are written, (B, K, T, D); unused if the
            positions differ by row.
        new_values: View into `values`, likewise, (B, K, T, D).
        indices: Rows (B, 1) and positions (B, T) at which the newest keys and values are written; None if the
            positions are the same for each row.
        mask: True where a new token attends to a token, (B, 1, T, N). None means causal attention; a single
            new token attends to all N tokens.
    """

    keys: Tensor
    values: Tensor
    new_keys: Tensor
    new_values: Tensor
    indices: tuple[Tensor, Tensor] | None
    mask: Tensor | None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the newest tokens' keys and values, each (B, K, T, D); return all, each (B, K, N, D)."""
        if self.indices is None:
            self.new_keys.copy_(keys)
            self.new_values.copy_(values)
        else:
            rows, positions = self.indices
            self.keys[rows, :, positions] = keys.transpose(1, 2).to(self.keys.dtype)
            self.values[rows, :, positions] = values.transpose(1, 2).to(self.values.dtype)
        return self.keys, self.values


class KVCache:
    """Keys and values of several rows of tokens, which may have different lengths.

    Attributes:
        store: Keys and values of each block, (2, n_layer, B, K, capacity, D).
        lengths: Number of tokens of each row.
    """

    def __init__(self, store: Tensor, lengths: list[int]) -> None:
        self.store = store
        self.lengths = lengths

    def extend(self, n_tokens: int) -> tuple[slice | Tensor, list[LayerCache]]:
        """Reserve space for the next tokens of each row.

        Args:
            n_tokens: Number of tokens, T, the same for each row.

        Returns:
            Positions of the tokens, a slice if they are the same for each row and a tensor (B, T) otherwise;
            and the cache of each block.

        Raises:
            ValueError: The cache is too small.
        """
        start, end = min(self.lengths), max(self.lengths) + n_tokens
        if end > self.store.shape[4]:
            raise ValueError(f"{end} tokens do not fit into a cache of {self.store.shape[4]}")
        positions: slice | Tensor = slice(start, end)
        indices = mask = None
        lengths_differ = end - start > n_tokens
        if lengths_differ or (start > 0 and n_tokens > 1):
            device = self.store.device
            lengths = torch.tensor(self.lengths, device=device)
            row_positions = lengths[:, None] + torch.arange(n_tokens, device=device)  # (B, T)
            mask = (torch.arange(end, device=device) <= row_positions[:, :, None])[:, None]  # (B, 1, T, N)
            if lengths_differ:
                positions = row_positions
                indices = (torch.arange(len(lengths), device=device)[:, None], row_positions)
        self.lengths = [length + n_tokens for length in self.lengths]
        read, new = self.store.narrow(4, 0, end), self.store.narrow(4, start, end - start)
        parts = (*read.unbind(), *new.unbind())  # each (n_layer, B, K, N or T, D)
        layers = zip(*(part.unbind() for part in parts), strict=True)
        return positions, [LayerCache(k, v, new_k, new_v, indices, mask) for k, v, new_k, new_v in layers]

    def select(self, rows: list[int]) -> "KVCache":
        """Return a cache of some of the rows, as a copy."""
        return KVCache(self.store[:, :, rows], [self.lengths[row] for row in rows])

    def empty_row(self, row: int) -> "KVCache":
        """Return an empty cache that shares the memory of one row."""
        return KVCache(self.store[:, :, row : row + 1], [0])
