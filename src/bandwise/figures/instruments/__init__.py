"""The table of all instruments: what the lens's figures are, and how to read them."""

from collections.abc import Callable, Mapping, Sequence

from bandwise.figures.figure import Figure
from bandwise.figures.instruments.activation_shares import ActivationShare
from bandwise.figures.instruments.final_decisions import agreement, alignment, boundaries
from bandwise.figures.instruments.function_space import function_space
from bandwise.figures.instruments.instrument import Instrument
from bandwise.figures.instruments.over_frequency import across, gain, layers
from bandwise.figures.instruments.rows import Runs, Value, known, rows_of
from bandwise.figures.instruments.slopes import RATE, SIZE
from bandwise.figures.words import headline, number
from bandwise.lens import Row
from bandwise.lens.quantities.decisions import with_agreement

__all__ = ["Runs", "lens_figures", "sections"]


def _band(name: str) -> Instrument:
    return Instrument(
        f"band-{name}",
        f"{headline(name)} spatial frequencies",
        "spatial",
        Value(name, f"white_{name}"),
        y="energy / white noise's",
        note=f"The {name} band's share of the gradient's energy, over rows and columns of its "
        "matrices, as a multiple of white noise's share.",
        form=".2f",
        references=lambda runs: {"white noise": 1},
    )


def _for_each_q(runs: Runs, words: str, value: Callable[[float], float]) -> dict[str, float]:
    """A reference for each q that a mask was made with."""
    rows = [row for some in runs.values() for run in some for row in rows_of(run, "spatial")]
    masked = [row for row in rows if known(Value("kept"), [row])]
    found = sorted(set(known(Value("q"), masked)))
    if len(found) == 1:
        return {words: value(found[0])}
    return {f"{words}, q = {number(q)}": value(q) for q in found}


def _weights(key: str, note: str) -> Instrument:
    words = key.replace("_", " ")
    name, note = f"weights-{key.replace('_', '-')}", f"{note} The mean over weight matrices."
    return Instrument(name, headline(words), "weights", Value(key), words, note)


_WHOSE = "For optimizers without a mask, it is the mask that SMI would begin with."
_NEAR_ZERO = (
    "The share of values below a tenth of their layer's root mean square, at the end of training."
)
_WEIGHTS = {
    "spectral_norm": "The largest singular value: how much a matrix can stretch a vector.",
    "condition_number": "The largest singular value over the smallest that is not negligible: "
    "large where a matrix nearly flattens some directions.",
    "effective_rank_ratio": "How evenly the singular values are spread: 1 if all are equal, near 0 "
    "if a few directions do everything.",
    "magnitude_variance": "How much the sizes of the weights differ.",
    "kurtosis": "How heavy the tails of the weights are: 3 for normal values, more with outliers.",
    "effective_parameter_ratio": "How evenly the sizes of the weights are spread: 1 if all are "
    "equal, 0.75 for normal values, near 0 if few weights carry everything.",
}

_SECTIONS: dict[str, Sequence[Callable[[Runs], Figure | None]]] = {
    "Slow and fast gradients": [
        gain,
        SIZE,
        RATE,
        SIZE.over_steps(),
        RATE.over_steps(),
        across,
        Instrument(
            "emphasis",
            "Low over high frequencies in all (dB)",
            "temporal",
            Value("response_low", "response_high", decibels=True),
            y="low / high (dB)",
            note="Update over gradient, all weights taken together: the low third of the temporal "
            "frequencies over the high third. Momentum and adaptivity both change it. 0 dB favours "
            "neither, 20 dB are ten times.",
            form="+.1f",
            references=lambda runs: {"neither": 0},
        ),
        layers,
    ],
    "What is learnt first": [
        function_space,
        alignment,
        agreement,
        Instrument(
            "accuracy",
            "Accuracy",
            "decisions",
            Value("accuracy"),
            y="accuracy",
            note="The share of examples put in the right class.",
            form=".1%",
        ),
        Instrument(
            "decision-loss",
            "Loss on the same examples",
            "decisions",
            Value("loss"),
            y="cross-entropy (nats)",
            note="The mean cross-entropy. It also rises when a wrong decision grows more "
            "confident.",
        ),
        boundaries,
    ],
    "Gradients as matrices": [
        *map(_band, ("low", "mid", "high")),
        Instrument(
            "mask-kept",
            "Energy that SMI's mask keeps",
            "spatial",
            Value("kept"),
            y="share of energy",
            note="The mask's share of the gradient's energy. The dotted line is its share of the "
            "coefficients. Where the energy lies far above it, few coefficients carry the "
            f"gradient. {_WHOSE}",
            form=".1%",
            references=lambda runs: _for_each_q(
                runs, "its share of the coefficients", lambda q: 1 - q
            ),
        ),
        Instrument(
            "mask-overlap",
            "Overlap of SMI's mask with itself",
            "spatial",
            Value("overlap"),
            y="overlap (Jaccard)",
            note="The coefficients in both this mask and the one measured before, over those in "
            "either. It is 1 if the mask stayed the same. Two unrelated masks lie at the dotted "
            f"line. {_WHOSE}",
            form=".2f",
            references=lambda runs: _for_each_q(runs, "chance", lambda q: (1 - q) / (1 + q)),
        ),
    ],
    "Weights": [_weights(key, note) for key, note in _WEIGHTS.items()],
    "Activations": [
        ActivationShare("attention_weights", "Attention weights as good as zero", _NEAR_ZERO),
        ActivationShare(
            "feed_forward_hidden", "Feed-forward activations as good as zero", _NEAR_ZERO
        ),
        ActivationShare("layer_norm_outputs", "Layer norms' outputs as good as zero", _NEAR_ZERO),
        ActivationShare(
            "a_sparse",
            "Active before GELU or ReLU",
            "The share of positive values among those that enter a GELU or ReLU, at the end of "
            "training: smaller in a sparser model.",
        ),
    ],
}


def sections(runs: Runs) -> dict[str, list[Figure]]:
    """Every figure that the rows hold something for, by heading."""
    agreed = {label: [with_agreement(rows) for rows in some] for label, some in runs.items()}
    drawn = {
        heading: [found for instrument in some if (found := instrument(agreed))]
        for heading, some in _SECTIONS.items()
    }
    return {heading: figures for heading, figures in drawn.items() if figures}


def lens_figures(logs: Mapping[str, Sequence[Sequence[Row]]]) -> list[Figure]:
    """Draw what lenses recorded: every figure that the rows hold something for.

    Args:
        logs: for each label, the rows of one or more runs. The runs of one label, its seeds,
            become a mean line and a band from the lowest to the highest. A label's place decides
            its colour; the first is grey, as a baseline.

    Returns:
        Figures with ``title``, which says what the figure shows; ``note``, how to read it; and
        ``plot``, a plotly figure. A row without the figures that an instrument needs is left out.

    Raises:
        TypeError: ``logs`` is not of this shape.

    Examples:
        >>> logs = {"adamw": [Lens.read("a0"), Lens.read("a1")], "sgd": [Lens.read("sgd")]}
        >>> for figure in lens_figures(logs):
        ...     print(figure.title)
        ...     figure.plot.show()
    """
    for label, some in logs.items():
        if not all(isinstance(row, Mapping) for rows in some for row in rows):
            raise TypeError(
                f"logs must map a label to a list of runs, each a list of rows, got for {label!r} "
                "something else: put the rows of a single run into a list"
            )
    return [drawn for some in sections(logs).values() for drawn in some]
