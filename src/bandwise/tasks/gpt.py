"""A GPT as the SMI paper trains it (section 4.1): pre-norm, GELU, no biases, tied embeddings."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a ``GPT``; the defaults are the paper's."""

    vocabulary: int = 65  # the number of distinct tokens
    context: int = 256  # the length of the longest sequence
    layers: int = 6  # the number of transformer blocks
    heads: int = 6  # attention heads in a block; must divide ``width``
    width: int = 384  # the length of a token's vector
    dropout: float = 0.2  # in embeddings, attention and residual branches


class Attention(nn.Module):
    """Causal self-attention: a token attends to itself and to those before it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"heads must divide width {config.width}, got {config.heads}")
        self.heads = config.heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.project = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # (batch, length, 3 · width) -> three of (batch, heads, length, width / heads)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        y = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        out: Tensor = self.project(y.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention, then a two-layer network on each token. Both add to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, bias=False)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, bias=False)
        self.expand = nn.Linear(config.width, 4 * config.width, bias=False)
        self.gelu = nn.GELU()
        self.project = nn.Linear(4 * config.width, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        out: Tensor = x + self.dropout(self.project(self.gelu(self.expand(self.norm2(x)))))
        return out


class GPT(nn.Module):
    """Next-token logits for every position of a sequence."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.head.weight = self.token.weight
        # As GPT-2: smaller where one of the 2 · layers branches joins the residual stream.
        # Otherwise the stream's variance would grow with each of them.
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                joins = name.endswith("project.weight")
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.layers) if joins else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, length), int64 -> logits (batch, length, vocabulary)."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.token(tokens) + self.position(positions))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits
