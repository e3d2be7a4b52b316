"""A decoding step as a GPU can replay it: recorded once, then started with one call in place of hundreds."""

import torch
from torch import Tensor

from lit_gpt_scratch.generation.decoder import Decoder

SHORTEST = 128  # tokens of the cache that a recording reads; longer ones read twice as many each


class RecordedDecode:
    """`Decoder.decode` over one cache, as CUDA graphs: one for each length of the cache, by powers of two."""

    def __init__(self, decoder: Decoder, cache: Tensor) -> None:
        """Record nothing yet."""
        self.decoder, self.cache = decoder, cache
        batch_size = cache.shape[2]
        self.ids = torch.zeros(batch_size, dtype=torch.long, device=cache.device)
        self.positions = torch.zeros_like(self.ids)
        self.recorded: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, ids: Tensor, positions: list[int]) -> Tensor:
        """What `Decoder.decode` gives; the next call writes over it."""
        self.ids.copy_(ids)
        self.positions.copy_(torch.tensor(positions))
        n_read = length_to_read(max(positions) + 1, self.cache.shape[4])
        if n_read not in self.recorded:
            self.recorded[n_read] = self._record(n_read)
        graph, logits = self.recorded[n_read]
        graph.replay()
        return logits

    def _record(self, n_read: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A graph of one step, and where its logits will stand."""
        cache, graph = self.cache[:, :, :, :, :n_read], torch.cuda.CUDAGraph()
        # Once without recording: libraries set themselves up. It writes what the replay writes again.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self.decoder.decode_at(cache, self.ids, self.positions)
        torch.cuda.current_stream().wait_stream(aside)
        # thread_local: a thread that pins batches meanwhile would end a recording otherwise.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            logits = self.decoder.decode_at(cache, self.ids, self.positions)
        return graph, logits


def length_to_read(n_tokens: int, longest: int) -> int:
    """The power of two, at least SHORTEST, that holds so many tokens; at most the longest there is."""
    return min(longest, max(SHORTEST, 1 << (n_tokens - 1).bit_length()))
