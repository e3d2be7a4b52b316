"""Plain training loops that this project is compared with: the tutorial's, and one like nanoGPT's.

Both train a GPT-2 of the same size without Lightning, callbacks, logs or progress bar, with erf GELU,
gradient clipping, and batches stacked window by window. They differ as their originals do: the tutorial
computes attention scores, mask, softmax and product separately, with PyTorch's default AdamW; the other one
has scaled_dot_product_attention, a fused AdamW and no biases.
"""

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

V = 65  # number of distinct characters in Tiny Shakespeare


class PlainAttention(nn.Module):
    """Multi-head causal attention."""

    def __init__(
        self, width: int, n_head: int, block_size: int, dropout: float, fused: bool, bias: bool
    ) -> None:
        super().__init__()
        self.n_head, self.p, self.fused = n_head, dropout, fused
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
        self.drop, self.attention_drop = nn.Dropout(dropout), nn.Dropout(dropout)
        self.register_buffer("past", torch.tril(torch.ones(block_size, block_size)) == 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        B, T, C = x.shape
        q, k, v = (y.view(B, T, self.n_head, -1).transpose(1, 2) for y in self.qkv(x).split(C, dim=2))
        if self.fused:
            p = self.p if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
        else:
            scores = (q @ k.transpose(-2, -1)) * (C // self.n_head) ** -0.5
            scores = scores.masked_fill(~self.past[:T, :T], float("-inf"))
            y = self.attention_drop(F.softmax(scores, dim=-1)) @ v
        return self.drop(self.out(y.transpose(1, 2).contiguous().view(B, T, C)))


class PlainGPT(nn.Module):
    """GPT-2 with tied embedding and output weights."""

    def __init__(
        self,
        fused: bool,
        n_layer: int = 4,
        n_head: int = 4,
        width: int = 128,
        block_size: int = 64,
        dropout: float = 0.0,
        vocab_size: int = V,
    ) -> None:
        super().__init__()
        bias = not fused
        self.tokens, self.positions = nn.Embedding(vocab_size, width), nn.Embedding(block_size, width)
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList()
        for _ in range(n_layer):
            mlp = nn.Sequential(
                nn.Linear(width, 4 * width, bias=bias), nn.GELU(), nn.Linear(4 * width, width, bias=bias)
            )
            mlp.append(nn.Dropout(dropout))
            attention = PlainAttention(width, n_head, block_size, dropout, fused, bias=False)
            norms = (nn.LayerNorm(width, bias=bias), nn.LayerNorm(width, bias=bias))
            self.layers.append(nn.ModuleList([norms[0], attention, norms[1], mlp]))
        self.norm, self.head = nn.LayerNorm(width, bias=bias), nn.Linear(width, vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                last = name.endswith(("out.weight", "3.2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * n_layer) if last else 0.02)

    def logits(self, idx: Tensor) -> Tensor:
        """Return the logits (B, T, V) for token ids (B, T)."""
        x = self.drop(self.tokens(idx) + self.positions(torch.arange(idx.shape[1], device=idx.device)))
        for norm_1, attention, norm_2, mlp in self.layers:
            x = x + attention(norm_1(x))
            x = x + mlp(norm_2(x))
        return self.head(self.norm(x))

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss for token ids and targets, each (B, T)."""
        return F.cross_entropy(self.logits(idx).flatten(0, 1), targets.flatten())


def plain_batch(ids: Tensor, batch_size: int, block_size: int, device: str) -> tuple[Tensor, Tensor]:
    """Return inputs and targets, each (batch_size, block_size), of random windows."""
    starts = torch.randint(len(ids) - block_size, (batch_size,)).tolist()
    x = torch.stack([ids[i : i + block_size] for i in starts])
    y = torch.stack([ids[i + 1 : i + 1 + block_size] for i in starts])
    return x.to(device), y.to(device)


def plain_loop(
    kind: str,
    ids: Tensor,
    batch_size: int,
    n_steps: int,
    rate: Callable[[int], float],
    after_step: Callable[[int, nn.Module], bool] = lambda step, model: False,
    device: str = "cpu",
    autocast: torch.dtype | None = None,
    compiled: bool = False,
    betas: tuple[float, float] = (0.9, 0.95),
    **shape: float,
) -> list[float]:
    """Train, until `after_step` returns True; return the seconds of each step."""
    model = PlainGPT(fused=kind == "nanogpt", **shape).to(device).train()  # type: ignore[arg-type]  # ints
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    everything = [{"params": list(model.parameters()), "weight_decay": 0.1}]
    fused = kind == "nanogpt"
    optimizer = torch.optim.AdamW(groups if fused else everything, betas=betas, fused=fused or None)
    block_size = int(shape.get("block_size", 64))
    network = torch.compile(model) if compiled else model
    seconds = []
    for step in range(n_steps):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        x, y = plain_batch(ids, batch_size, block_size, device)
        with torch.autocast(device, autocast, enabled=autocast is not None):
            loss = network(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        if after_step(step, model):
            break
    return seconds
