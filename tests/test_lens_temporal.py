"""The response over time, compared with known results."""

import math
from itertools import pairwise

import pytest
import torch

import bandwise as bw
from bandwise.lens import response
from bandwise.lens.quantities.response import sign_change_rate


def noise(steps, coordinates, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, coordinates, generator=generator, dtype=torch.float64)


def updates(make, gradients):
    """The updates of an optimizer for a series of gradients, per unit of learning rate."""
    param = torch.nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    optimizer = make([param])
    series = []
    for gradient in gradients:
        before = param.detach().clone()
        param.grad = gradient.clone()
        optimizer.step()
        series.append((before - param.detach()) / optimizer.param_groups[0]["lr"])
    return torch.stack(series)


def slow_and_fast(steps=512, coordinates=64):
    """Half of the coordinates keep their sign. The others are noise, ten times as large."""
    n = noise(steps, coordinates)
    slow = torch.arange(coordinates) < coordinates // 2
    return torch.where(slow, 1 + 0.1 * n, 10 * n)


def measured(make, window=256):
    gradients = slow_and_fast()
    return response(gradients[-window:], updates(make, gradients)[-window:])


def nsf(p, scale="adam"):
    return lambda params: bw.NSF(params, lr=1e-3, p=p, weight_decay=0, scale=scale)


@pytest.mark.parametrize(("steps", "segment", "moment"), [(50, 12, 49), (64, 16, 0)])
def test_a_coordinate_with_power_in_no_window_does_not_count(steps, segment, moment):
    """Welch's windows begin with a zero, and leave out the last steps that do not fill one."""
    g = noise(steps, 8)
    lonely = torch.zeros(steps, 1, dtype=torch.float64)
    lonely[moment] = 1
    right = response(g, 2 * g, segment)
    assert response(torch.cat([g, lonely], 1), torch.cat([2 * g, lonely], 1), segment) == right


def test_without_a_coordinate_there_is_no_figure():
    g = noise(64, 2)
    one, other = g * torch.tensor([1, 0]), g * torch.tensor([0, 1])
    figures = response(one, other)
    assert figures["coordinates"] == 0
    assert figures["size_slope"] is None
    assert math.isnan(figures["gain_low"])


@pytest.mark.parametrize("frequency", [5 / 64, 14 / 64, 29 / 64])
def test_a_sinusoid_has_its_power_where_it_must(frequency):
    t = torch.arange(256, dtype=torch.float64)[:, None]
    g = torch.sin(2 * math.pi * frequency * t + torch.arange(8))
    figures = response(g, g)
    place = figures["gradient_power"].index(max(figures["gradient_power"]))
    assert figures["frequency"][place] == frequency
    band = ["low", "mid", "high"][int(frequency * 6)]
    assert figures[f"gradient_power_{band}"] > 0.99
    rate = sign_change_rate(g)
    assert rate.numpy() == pytest.approx(2 * frequency, abs=0.01)


def test_white_noise_has_a_flat_spectrum():
    figures = response(noise(256, 512), noise(256, 512))
    inner = torch.tensor(figures["gradient_power"][1:-1])
    assert (inner / inner.mean() - 1).abs().max() < 0.1
    for band in ("low", "mid", "high"):
        assert figures[f"gradient_power_{band}"] == pytest.approx(1 / 3, abs=0.02)
    assert sign_change_rate(noise(4096, 64)).mean().item() == pytest.approx(0.5, abs=0.01)


def test_the_mean_is_the_lowest_frequency():
    g = 3 + 0.01 * noise(256, 8)
    assert response(g, g)["gradient_power_low"] > 0.99


def test_sgd_has_a_gain_of_one():
    figures = measured(lambda params: torch.optim.SGD(params, lr=0.1))
    assert figures["gain"] == pytest.approx([1] * len(figures["gain"]), rel=1e-6)
    assert figures["response"] == pytest.approx(figures["gain"], rel=1e-6)
    assert figures["rate_slope"] == pytest.approx(0, abs=1e-6)
    assert figures["size_slope"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_momentum_has_the_gain_of_its_transfer_function(beta):
    g = noise(2500, 64)
    u = updates(lambda params: torch.optim.SGD(params, lr=0.1, momentum=beta), g)
    figures = response(g[-2048:], u[-2048:])
    f = torch.tensor(figures["frequency"], dtype=torch.float64)
    theory = 1 / (1 - beta * torch.polar(torch.ones_like(f), -2 * math.pi * f)).abs()
    gain = torch.tensor(figures["gain"], dtype=torch.float64)
    # Welch's windows smear the first frequencies.
    assert (gain[3:] / theory[3:] - 1).abs().max() < 0.02
    assert figures["gain_low"] > figures["gain_mid"] > figures["gain_high"]


def test_momentum_is_no_adaptivity():
    """It lengthens the slow coordinates' steps five times. ``within`` shows it, ``across`` not."""
    sgd = measured(lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9))
    adam = measured(lambda params: torch.optim.Adam(params, lr=1e-3))
    assert abs(sgd["rate_slope"]) < 0.05
    assert adam["rate_slope_high"] < -0.35
    assert adam["rate_correlation"] < -0.7
    # Adam's first moment is the same low-pass filter times a tenth.
    assert adam["gain_low"] / adam["gain_high"] == pytest.approx(
        sgd["gain_low"] / sgd["gain_high"], rel=0.1
    )


@pytest.mark.parametrize("p", [0.7, 0.5, 0.25, 0.0, -0.25, -0.5])
def test_the_bare_nsf_has_a_size_slope_of_minus_two_p(p):
    figures = measured(nsf(p, scale="none"))
    assert figures["size_slope"] == pytest.approx(-2 * p, abs=0.11)


def test_exponents_are_told_apart_in_their_order():
    exponents = [0.5, 0.25, 0.0, -0.25, -0.5]
    slopes = [measured(nsf(p)) for p in exponents]
    cycled = measured(nsf(bw.Cyclic(0.5, -0.25, period=100)))
    for low, high in pairwise(slopes):
        assert low["rate_slope_high"] < high["rate_slope_low"]
        assert low["size_slope_high"] < high["size_slope_low"]
    assert slopes[0]["rate_slope"] < 0 < slopes[-1]["rate_slope"]
    assert slopes[0]["rate_slope"] < cycled["rate_slope"] < slopes[-1]["rate_slope"]


def test_the_curve_goes_from_slow_to_fast():
    figures = measured(lambda params: torch.optim.Adam(params, lr=1e-3))
    rates, gains = figures["across_rate"], figures["across_gain"]
    assert len(rates) == len(gains) == 8
    assert rates == sorted(rates)
    assert rates[0] < 0.01 < 0.4 < rates[-1]
    assert gains[0] / gains[-1] == pytest.approx(10, rel=0.35)


def test_what_has_no_gradient_is_left_out():
    g = noise(256, 16)
    g[:, ::2] = 0
    figures = response(g, g)
    assert figures["coordinates"] == 8
    assert figures["gain_mid"] == pytest.approx(1)


def test_few_coordinates_have_no_slope():
    g = noise(256, 4)
    figures = response(g, g)
    assert figures["rate_slope"] is None
    assert figures["size_correlation"] is None


def test_tensors_of_different_scales_are_not_compared():
    """Two tensors under SGD with different learning rates show no adaptivity."""
    g = torch.cat([noise(256, 32), 10 * noise(256, 32, seed=1)], 1)
    u = torch.cat([g[:, :32], 0.01 * g[:, 32:]], 1)
    tensor = torch.arange(64) // 32
    assert response(g, u)["size_slope"] < -1
    figures = response(g, u, tensor=tensor)
    assert figures["size_slope"] == pytest.approx(0, abs=1e-9)
    assert figures["across_gain"] == pytest.approx([1] * 8)


def test_the_sign_change_rate():
    rates = sign_change_rate(torch.tensor([[1.0, 1, 0], [1, -1, 0], [1, 1, 0], [1, -1, 1]]))
    assert rates[:2].tolist() == pytest.approx([0.5 / 4, 3.5 / 4])
    assert rates[2].isnan()
