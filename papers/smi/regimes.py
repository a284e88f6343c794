"""What the parts train, beside what the paper trains (its sections 4.1 and 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from papers.paper import Regime, ScaleName
from papers.smi.scales import SCALES


@dataclass(frozen=True)
class Model:
    """A character GPT with its text.

    Attributes:
        parameters: of the model.
        tokens: characters in a training batch.
        text: characters of the text that it trains on.
    """

    parameters: int
    tokens: int
    text: int

    def words(self, steps: int) -> str:
        """``0.23 epochs with 0.346M parameters``."""
        epochs = steps * self.tokens / self.text
        return f"{epochs:.2g} epochs with {self.parameters / 1e6:.3g}M parameters"


# The paper names "the Shakespeare dataset" of nanoGPT. Its epochs are counted on that text.
THEIRS = Model(parameters=10_700_000, tokens=64 * 256, text=1_003_854)
_STEPS = 5000
OURS: dict[ScaleName, Model] = {
    "small": Model(parameters=346_272, tokens=16 * 64, text=4_488_923),
    "paper": THEIRS,
}


def regime(part: str, scale: ScaleName) -> Regime:
    """What a part trains."""
    sizes, ours = SCALES[scale], OURS[scale]
    tokens = sizes.batch * sizes.models[-1].context if part == "overhead" else ours.tokens
    differ = f"{tokens:,} tokens a step here, {THEIRS.tokens:,} in the paper"
    steps = {
        "runs": sizes.steps,
        "inference": sizes.steps,
        "optimizers": sizes.short_steps,
        "sensitivity": sizes.short_steps,
    }.get(part)
    length = f"{ours.words(steps)} here, {THEIRS.words(_STEPS)} in the paper" if steps else ""
    return Regime(length, "" if tokens == THEIRS.tokens else differ)
