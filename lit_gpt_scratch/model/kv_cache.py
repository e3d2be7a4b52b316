"""KV cache: keys and values of earlier tokens, so that each token is computed once.

Letters in shapes are those of `gpt.py`; N is the number of tokens that a row has in the cache.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class LayerCache(NamedTuple):
    """Keys and values of one block in one forward pass, which adds T new tokens to each row.

    Args:
        keys: Keys of the earlier and the new tokens, (B, K, N, D).
        values: Values of the earlier and the new tokens, (B, K, N, D).
        new_keys: View of `keys` to which the new tokens' keys are written, (B, K, T, D); unused if the new
            tokens' positions differ by row.
        new_values: View of `values` to which the new tokens' values are written, (B, K, T, D); unused if
            the new tokens' positions differ by row.
        indices: Rows (B, 1) and positions (B, T) at which the new keys and values are written; None if the
            positions are the same for each row.
        mask: Boolean mask, (B, 1, T, N), True where a new token attends to one of the N tokens; None if the
            rows have the same length and T is N (causal attention) or 1 (attention to all N tokens).
    """

    keys: Tensor
    values: Tensor
    new_keys: Tensor
    new_values: Tensor
    indices: tuple[Tensor, Tensor] | None
    mask: Tensor | None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new tokens' keys and values, (B, K, T, D); return all keys and values, (B, K, N, D)."""
        if self.indices is None:
            self.new_keys.copy_(keys)
            self.new_values.copy_(values)
        else:
            rows, positions = self.indices
            self.keys[rows, :, positions] = keys.transpose(1, 2).to(self.keys.dtype)
            self.values[rows, :, positions] = values.transpose(1, 2).to(self.values.dtype)
        return self.keys, self.values


class KVCache:
    """Keys and values of B rows of tokens in all blocks; the rows may have different lengths.

    Attributes:
        store: Keys and values of each block, (2, n_layer, B, K, capacity in tokens, D).
        lengths: Number of cached tokens of each row.
    """

    def __init__(self, store: Tensor, lengths: list[int]) -> None:
        self.store = store
        self.lengths = lengths

    def extend(self, n_tokens: int) -> tuple[slice | Tensor, list[LayerCache]]:
        """Reserve space for the next tokens of each row.

        Args:
            n_tokens: Number of tokens, T, the same for each row.

        Returns:
            Positions of the new tokens (a slice if all rows have the same positions, else a tensor (B, T)),
            and one `LayerCache` per block.

        Raises:
            ValueError: `n_tokens` more tokens would make the longest row exceed the cache's capacity.
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
        """Return a cache with copies of the given rows, in the given order."""
        return KVCache(self.store[:, :, rows], [self.lengths[row] for row in rows])

    def empty_row(self, row: int) -> "KVCache":
        """Return an empty one-row cache that writes into the memory of row `row` of this cache."""
        return KVCache(self.store[:, :, row : row + 1], [0])
