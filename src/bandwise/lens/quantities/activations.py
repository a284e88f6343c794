"""The quantity ``activations``: Table 3 of the SMI paper, and its equation (6).

The paper calls a share of values "sparsity" and does not define it. It cannot mean exact zeros: a
softmax, a GELU and a layer norm have none. Here a value counts as zero if it is small beside its
layer's root mean square. The definitions are ours, so the paper's values are no reference for them.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bandwise.lens.quantities.quantity import evaluating
from bandwise.optim import _checks

_KINDS = ("attention_weights", "feed_forward_hidden", "layer_norm_outputs")
_ATTENTION_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def activation_figures(
    model: nn.Module, batches: Iterable[Tensor], threshold: float = 0.1
) -> dict[str, float]:
    """The sparsity of a model's activations in evaluation mode: shares in [0, 1].

    Three kinds of layers are measured, the rows of Table 3:

    - ``attention_weights``: softmax(QKᵀ/√d) of every call of torch's
      ``scaled_dot_product_attention`` with ``is_causal=True``. Weights on later tokens do not
      count: they are zero in every model.
    - ``feed_forward_hidden``: the outputs of every ``nn.GELU`` and ``nn.ReLU``.
    - ``layer_norm_outputs``: the outputs of every ``nn.LayerNorm``.

    A figure is the mean ``sparsity`` of the outputs of one layer for one batch, over all layers of
    the kind and all batches. ``overall_average`` is the mean of the kinds, as in Table 3. A kind
    that the model does not call has no figure.

    The same figures at a tenth of the threshold and at twice the threshold have ``_at_…`` behind
    their names. They show whether a difference between two models depends on the threshold.

    ``a_sparse`` is equation (6), 𝔼[‖ReLU(z)‖₀ / ‖z‖₀], with z the inputs of the ``nn.GELU`` and
    ``nn.ReLU`` modules: of the values that are not zero, the share above zero, averaged in the same
    way. A sparser model has a *smaller* one. NaN if the z of a layer is all zeros.

    Args:
        model: called as ``model(batch)``.
        batches: inputs of the model; they are moved to its device.
        threshold: in units of the layer's root mean square. Values below the default, 0.1, have
            less than 0.1² = 1% of the layer's sum of squares.

    Raises:
        ValueError: there are no batches.
    """
    _checks.number("threshold", threshold, low=0)
    levels = {"": threshold}
    levels |= {f"_at_{level:g}": level for level in (threshold / 10, 2 * threshold)}
    shares: defaultdict[str, list[float]] = defaultdict(list)

    def note(kind: str, values: Tensor) -> None:
        for suffix, level in levels.items():
            shares[kind + suffix].append(sparsity(values, level))

    # A hook that returns a value would change the model.
    def after(kind: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        return lambda _module, _inputs, output: note(kind, output)

    # An in-place ReLU overwrites its input, so this hook comes before it.
    def before_activation(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        (z,) = inputs
        shares["a_sparse"].append(((z > 0).sum() / (z != 0).sum()).item())

    def attending(query: Tensor, key: Tensor, scale: float | None) -> None:
        weights = attention_weights(query, key, scale)
        note("attention_weights", weights[..., _earlier(weights)])

    with evaluating(model) as device, _CausalAttention(attending), ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                hooks.enter_context(module.register_forward_hook(after("layer_norm_outputs")))
            elif isinstance(module, nn.GELU | nn.ReLU):
                hooks.enter_context(module.register_forward_pre_hook(before_activation))
                hooks.enter_context(module.register_forward_hook(after("feed_forward_hidden")))
        empty = True
        for batch in batches:
            empty = False
            model(batch.to(device))
    if empty:
        raise ValueError("batches must hold at least one batch, got none")
    means = {name: statistics.fmean(values) for name, values in shares.items()}
    figures: dict[str, float] = {}
    for suffix in levels if means else ():
        kinds = {kind + suffix: means[kind + suffix] for kind in _KINDS if kind in means}
        figures |= kinds | {"overall_average" + suffix: statistics.fmean(kinds.values())}
    return figures | means


def sparsity(values: Tensor, threshold: float) -> float:
    """The share of values with |x| ≤ threshold · √mean(x²); 1 if all values are zero."""
    magnitudes = values.float().abs()
    return (magnitudes <= threshold * magnitudes.square().mean().sqrt()).float().mean().item()


def attention_weights(query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    """The weights of causal ``scaled_dot_product_attention``, which does not return them.

    softmax(QKᵀ/√d), without later tokens.

    Args:
        query: (…, heads, length, d).
        key: the same. With fewer heads, each serves a group of the query's heads.
        scale: in the place of 1/√d.

    Returns:
        (…, heads, length, length) float32; row i sums to 1 over columns 0 to i.
    """
    if query.ndim > 2:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query.float() @ key.float().mT * scale
    weights: Tensor = scores.masked_fill(~_earlier(scores), -math.inf).softmax(-1)
    return weights


def _earlier(weights: Tensor) -> Tensor:
    """True where a weight is of the token itself or of an earlier one, (length, length)."""
    return torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).tril()


class _CausalAttention(TorchFunctionMode):
    """Inside its ``with``, every causal attention shows its query, key and scale."""

    def __init__(self, show: Callable[[Tensor, Tensor, float | None], None]) -> None:
        super().__init__()
        self._show = show

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention:
            given = dict(zip(_ATTENTION_ARGUMENTS, args, strict=False)) | kwargs
            if given.get("is_causal"):
                self._show(given["query"], given["key"], given.get("scale"))
        return func(*args, **kwargs)
