"""A recurrent network on the characters of ``shakespeare-char``."""

from pydantic import PositiveInt
from torch import Tensor, nn

from bandwise.tasks.shakespeare_char import ShakespeareChar


class CharLstm(ShakespeareChar):
    """``shakespeare-char`` of the small size, with an LSTM instead of the GPT.

    Args:
        corpus: as ``shakespeare-char``'s.
        batch_size: windows of 64 characters in a training batch.
        width: units of the LSTM, and the length of a character's embedding.
    """

    name = "char-lstm"

    def __init__(
        self, corpus: str = "plays", batch_size: PositiveInt = 16, width: PositiveInt = 128
    ) -> None:
        super().__init__("small", corpus, batch_size)
        self.width = width

    def model(self) -> nn.Module:
        return _Lstm(len(self._corpus.vocabulary), self.width)


class _Lstm(nn.Module):
    """Next-character logits for every position of a sequence."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, length), int64 -> logits (batch, length, vocabulary)."""
        states, _ = self.lstm(self.token(tokens))
        logits: Tensor = self.head(states)
        return logits
