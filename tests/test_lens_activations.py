"""Figures of activations for models with known activations."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bandwise.lens.quantities.activations import activation_figures, attention_weights, sparsity
from bandwise.tasks.gpt import GPT, Attention, GPTConfig

CONFIG = GPTConfig(vocabulary=7, context=8, layers=2, heads=2, width=16, dropout=0.5)


def tokens(count: int = 3) -> list[Tensor]:
    return [torch.randint(7, (4, 8)) for _ in range(count)]


# --- sparsity -----------------------------------------------------------------------------------


def test_sparsity_by_hand() -> None:
    values = torch.tensor([0.0, -0.1, 2.0, -4.0])  # root mean square √(20.01 / 4) = 2.237
    assert sparsity(values, 0.0) == 0.25
    assert sparsity(values, 0.04) == 0.25
    assert sparsity(values, 0.05) == 0.5
    assert sparsity(values, 0.9) == 0.75
    assert sparsity(values * 1000, 0.05) == 0.5


def test_zeros_are_sparse_entirely() -> None:
    assert sparsity(torch.zeros(3), 0.1) == 1


def test_sparsity_of_normal_values() -> None:
    n = 200_000
    share = math.erf(0.1 / math.sqrt(2))  # 0.080
    error = math.sqrt(share * (1 - share) / n)
    assert sparsity(torch.randn(n), 0.1) == pytest.approx(share, abs=4 * error)


# --- attention ----------------------------------------------------------------------------------


def test_attention_weights_are_a_causal_softmax() -> None:
    heads, d, length = 2, 3, 5
    query, key = torch.randn(2, 4, heads, length, d)
    weights = attention_weights(query, key)
    assert weights.shape == (4, heads, length, length)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, heads, length))
    assert not weights.triu(1).any()
    for head in range(heads):
        q, k = query[1, head], key[1, head]
        for i in range(length):
            expected = torch.softmax(k[: i + 1] @ q[i] / math.sqrt(d), 0)
            torch.testing.assert_close(weights[1, head, i, : i + 1], expected)


def test_attention_weights_are_those_the_model_uses() -> None:
    """Also with fewer heads for keys than for queries, and with another scale."""
    query, key, value = torch.randn(3, 4, 8, 6), torch.randn(3, 2, 8, 6), torch.randn(3, 2, 8, 6)
    for scale in (None, 0.7):
        mixed = attention_weights(query, key, scale) @ value.repeat_interleave(2, -3)
        right = nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=True
        )
        torch.testing.assert_close(mixed, right)


class Attending(nn.Module):
    """Attention between tokens, with given arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.args, self.kwargs = args, kwargs

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x, *self.args, **self.kwargs)


def test_attention_is_seen_in_any_model_and_causal_alone() -> None:
    x = torch.zeros(2, 4, 3)  # even attention: 1; 1/2, 1/2; ...
    for causal in (Attending(is_causal=True), Attending(None, 0.0, True)):
        assert activation_figures(causal, [x], 0.6)["attention_weights"] == pytest.approx(0.4)
    for other in (Attending(), Attending(None, 0.0, False), Attending(torch.ones(4, 4).bool())):
        assert activation_figures(other, [x]) == {}


def test_even_attention_has_a_known_sparsity() -> None:
    attention = Attention(CONFIG)
    nn.init.zeros_(attention.qkv.weight)
    # The weights are 1; 1/2, 1/2; 1/3 three times; 1/4 four times. Their root mean square is
    # √((1 + 1/2 + 1/3 + 1/4) / 10) = 0.456. The zeros of later tokens do not count.
    figures = activation_figures(attention, [torch.randn(2, 4, 16)], threshold=0.6)
    assert figures["attention_weights"] == pytest.approx(0.4)
    assert figures["attention_weights_at_0.06"] == 0
    assert figures["attention_weights_at_1.2"] == pytest.approx(0.9)


# --- other layers -------------------------------------------------------------------------------


@pytest.mark.parametrize("inplace", [False, True])
def test_dead_units_are_counted(inplace: bool) -> None:
    layer = nn.Linear(4, 8)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([-100.0] * 3 + [100.0] * 5))
    model = nn.Sequential(layer, nn.ReLU(inplace), nn.Linear(8, 2))
    figures = activation_figures(model, [torch.randn(10, 4), torch.randn(6, 4)])
    names = ["feed_forward_hidden", "overall_average"]
    assert figures == pytest.approx(
        {name + suffix: 3 / 8 for name in names for suffix in ("", "_at_0.01", "_at_0.2")}
        | {"a_sparse": 5 / 8}
    )


def test_zeros_before_the_activation_are_not_in_equation_6() -> None:
    z = torch.tensor([[0.0, 0.0, 1.0, -1.0, -2.0]])
    assert activation_figures(nn.ReLU(), [z])["a_sparse"] == pytest.approx(1 / 3)
    assert math.isnan(activation_figures(nn.ReLU(), [torch.zeros(1, 5)])["a_sparse"])


def test_gelu_has_near_zeros_and_no_zeros() -> None:
    x = torch.tensor([[3.0, -5.0, 1.0, 2.0]])  # gelu(-5) = -1.4e-6
    figures = activation_figures(nn.GELU(), [x], threshold=5e-6)
    assert figures["feed_forward_hidden"] == 0.25
    assert figures["feed_forward_hidden_at_5e-07"] == 0
    assert figures["a_sparse"] == 0.75


def test_layer_norm_outputs() -> None:
    x = torch.tensor([[5.0, 6.0, 6.0, 7.0], [-2.0, 0.0, 0.0, 2.0]])  # normed: -√2, 0, 0, √2
    figures = activation_figures(nn.LayerNorm(4), [x])
    assert figures["layer_norm_outputs"] == 0.5
    assert "a_sparse" not in figures


def test_a_model_without_such_layers_has_no_figures() -> None:
    assert activation_figures(nn.Tanh(), [torch.ones(1, 2)]) == {}


def test_kinds_are_averaged_over_layers_and_batches_then_together() -> None:
    relu = nn.Sequential(nn.Identity(), nn.ReLU(), nn.LayerNorm(4, elementwise_affine=False))
    model = nn.Sequential(relu, nn.ReLU())
    batches = [torch.tensor([[5.0, 6.0, 6.0, 7.0]]), torch.tensor([[-1.0, 1.0, 1.0, 1.0]])]
    # First batch: ReLU 0 of 4; norm 2 of 4; ReLU 3 of 4. Second: 1 of 4; 0 of 4; 1 of 4.
    figures = activation_figures(model, batches)
    assert figures["feed_forward_hidden"] == pytest.approx((0 + 3 + 1 + 1) / 16)
    assert figures["layer_norm_outputs"] == pytest.approx(2 / 8)
    assert figures["overall_average"] == pytest.approx((5 / 16 + 2 / 8) / 2)


def test_a_gpt_has_every_row_of_table_3() -> None:
    figures = activation_figures(GPT(CONFIG), tokens())
    rows = ["attention_weights", "feed_forward_hidden", "layer_norm_outputs", "overall_average"]
    assert list(figures) == [
        *(row + suffix for suffix in ("", "_at_0.01", "_at_0.2") for row in rows),
        "a_sparse",
    ]
    for row in rows:
        assert 0 <= figures[row + "_at_0.01"] <= figures[row] <= figures[row + "_at_0.2"] <= 1


def test_a_model_in_bfloat16() -> None:
    figures = activation_figures(GPT(CONFIG).bfloat16(), tokens(1))
    assert all(0 <= value <= 1 for value in figures.values())


# --- the model is restored ----------------------------------------------------------------------


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_model_is_left_as_it_was() -> None:
    model = GPT(CONFIG)  # training, with dropout
    model.blocks[0].eval()
    calls: list[nn.Module] = []
    model.norm.register_forward_hook(lambda module, _, __: calls.append(module))
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    batches = tokens(2)
    rng = torch.get_rng_state()
    first = activation_figures(model, batches)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert len(calls) == 2
    assert hooks(model) == 1  # the user's own
    assert activation_figures(model, batches) == first


def test_hooks_change_no_output() -> None:
    model = GPT(CONFIG).eval()
    (batch,) = tokens(1)
    outputs: list[Tensor] = []
    expected = model(batch)
    handle = model.register_forward_hook(lambda _, __, logits: outputs.append(logits))
    activation_figures(model, [batch])
    handle.remove()
    assert torch.equal(outputs[0], expected)


def test_hooks_go_and_modes_return_after_an_error() -> None:
    model = GPT(CONFIG)
    with pytest.raises(IndexError):
        activation_figures(model, [torch.tensor([[99]])])
    assert hooks(model) == 0
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


# --- errors -------------------------------------------------------------------------------------


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="batches must hold at least one batch, got none"):
        activation_figures(GPT(CONFIG), [])
    with pytest.raises(ValueError, match="threshold must be at least 0, got -1"):
        activation_figures(GPT(CONFIG), tokens(), threshold=-1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_follow_the_model_to_the_gpu() -> None:
    model, batches = GPT(CONFIG), tokens()
    on_cpu = activation_figures(model, batches)
    assert activation_figures(model.cuda(), batches) == pytest.approx(on_cpu, abs=0.01)
