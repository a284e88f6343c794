"""The spectrum over rows and columns, compared with known results."""

import math

import pytest
import torch

import bandwise as bw
from bandwise.lens import (
    Lens,
    Spatial,
    filter_bias_variance,
    mask_filter,
    momentary_mask,
    spectral_figures,
)


def wave(n, d, i, j):
    rows, columns = torch.meshgrid(torch.arange(n), torch.arange(d), indexing="ij")
    return torch.cos(2 * math.pi * (i * rows / n + j * columns / d) + 0.4)


@pytest.mark.parametrize(
    ("i", "j", "band"),
    [(0, 3, "low"), (5, 5, "low"), (9, 7, "mid"), (3, 30, "high"), (32, 0, "high")],
)
@pytest.mark.parametrize(("n", "d"), [(64, 64), (64, 65), (63, 64), (63, 65)])
def test_a_single_wave_has_no_entropy_and_one_band(n, d, i, j, band):
    if i == 32 and n == 63:
        i = 31
    figures = spectral_figures(wave(n, d, i, j))
    assert figures["entropy"] == pytest.approx(0, abs=1e-3)
    assert figures[band] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", [(64, 48), (65, 47), (1, 4096), (16, 8, 3, 3)])
def test_white_noise_has_nearly_the_largest_entropy(shape):
    figures = spectral_figures(torch.randn(shape))
    # A coefficient's energy is exponential, which lowers the entropy by 1 - Euler's constant nats.
    waves = math.prod(shape) / 2
    assert figures["entropy"] == pytest.approx(1 - 0.4228 / math.log(waves), abs=0.01)
    for band in ("low", "mid", "high"):
        assert figures[band] == pytest.approx(figures[f"white_{band}"], abs=0.05)


def test_white_shares_are_the_bands_areas():
    figures = spectral_figures(torch.randn(256, 256))
    assert figures["white_low"] == pytest.approx(math.pi / 36, abs=0.003)
    assert figures["white_mid"] == pytest.approx(math.pi / 12, abs=0.003)


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (6, 9), (7, 8), (1, 5)])
def test_figures_are_those_of_the_full_spectrum(shape):
    G = torch.randn(shape, dtype=torch.float64)
    mask = momentary_mask(G, 0.3)
    figures = spectral_figures(G, mask)
    E = torch.fft.fft2(G).abs().square()
    r = torch.fft.fftfreq(shape[0]).square()[:, None] + torch.fft.fftfreq(shape[1]).square()
    assert figures["low"] == pytest.approx((E[r < 1 / 36 - 1e-6].sum() / E.sum()).item())
    assert figures["energy"] == pytest.approx(G.square().sum().item())
    threshold = E.flatten().sort().values[math.ceil(0.3 * (E.numel() - 1))]
    kept = E[E >= threshold * (1 - 1e-9)].sum() / E.sum()
    assert figures["kept"] == pytest.approx(kept.item())


def test_scale_does_not_matter():
    G = torch.randn(16, 16)
    figures, small = spectral_figures(G), spectral_figures(G * 1e-25)
    for name in ("low", "mid", "high", "entropy"):
        assert small[name] == pytest.approx(figures[name], rel=1e-4)


def test_a_filter_that_does_nothing_adds_nothing():
    gradients = torch.randn(10, 8, 8)
    figures = filter_bias_variance(gradients, torch.randn(8, 8), lambda g: g)
    assert figures["bias2_added"] == figures["variance_added"] == 0


def test_bias_and_variance_of_filters_that_are_known():
    generator = torch.Generator().manual_seed(0)
    reference = wave(16, 16, 1, 2)
    unit = reference.square().sum().item()
    gradients = [reference + 0.5 * torch.randn(16, 16, generator=generator) for _ in range(2000)]
    noise = 0.25 * 256 / unit

    figures = filter_bias_variance(gradients, reference, lambda g: g / 2)
    assert figures["variance_unfiltered"] == pytest.approx(noise, rel=0.02)
    assert figures["bias2_unfiltered"] == pytest.approx(0, abs=3e-4)
    assert figures["variance"] == pytest.approx(noise / 4, rel=0.02)
    assert figures["bias2"] == pytest.approx(1 / 4, rel=0.02)

    # The mask keeps only the wave, one pair of 256 coefficients: no bias, little variance.
    mask = momentary_mask(reference, 254 / 255)
    figures = filter_bias_variance(gradients, reference, mask_filter(mask))
    assert figures["variance"] == pytest.approx(noise * 2 / 256, rel=0.1)
    assert figures["bias2"] == pytest.approx(0, abs=3e-4)


def test_few_gradients_do_not_look_biased():
    """Without the correction the noise of their mean would count as a bias of 0.25 / 20."""
    reference = torch.ones(16, 16)
    gradients = reference + 0.5 * torch.randn(20, 16, 16)
    figures = filter_bias_variance(gradients, reference, lambda g: g)
    assert figures["bias2"] == pytest.approx(0, abs=0.004)


def test_two_gradients_at_least():
    with pytest.raises(ValueError, match="gradients must be two at least, got 1"):
        filter_bias_variance([torch.ones(2, 2)], torch.ones(2, 2), lambda g: g)


@pytest.mark.parametrize("refresh_every", [1, 2])
def test_the_mask_is_the_one_that_smi_uses(tmp_path, refresh_every):
    layer = torch.nn.Linear(12, 10, bias=False)
    base = torch.optim.SGD(layer.parameters(), lr=0.1)
    optimizer = bw.SMI(base, alpha=1.0, beta=0.8, q=0.6, refresh_every=refresh_every)
    kept = []
    with Lens(layer, optimizer, every=1, out=tmp_path, quantities=[Spatial()]):
        for _ in range(6):
            layer.weight.grad = torch.randn(10, 12)
            before = layer.weight.grad.square().sum()
            optimizer.step()
            # With alpha = 1 the filtered gradient is the kept part.
            kept.append((layer.weight.grad.square().sum() / before).item())
    rows = [row for row in Lens.read(tmp_path) if row["tensor"] == "weight"]
    assert [row["kept"] for row in rows] == pytest.approx(kept, abs=1e-4)
    assert {row["q"] for row in rows} == {0.6}


def test_overlap_of_masks(tmp_path):
    layer = torch.nn.Linear(256, 256, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    same, other = torch.randn(256, 256), torch.randn(256, 256)
    with Lens(layer, optimizer, every=1, out=tmp_path, quantities=[Spatial(q=0.5)]):
        for gradient in (same, same, other):
            layer.weight.grad = gradient.clone()
            optimizer.step()
    overlaps = [row["overlap"] for row in Lens.read(tmp_path) if row["tensor"] == "weight"]
    assert overlaps[:2] == [None, 1]
    assert overlaps[2] == pytest.approx((1 - 0.5) / (1 + 0.5), abs=0.01)


def test_the_whole_model_adds_energies(tmp_path):
    model = torch.nn.ModuleList([torch.nn.Linear(64, 64, bias=False) for _ in range(2)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, every=1, out=tmp_path, quantities=[Spatial()]):
        model[0].weight.grad = 3 * wave(64, 64, 0, 3)
        model[1].weight.grad = wave(64, 64, 3, 30)
        optimizer.step()
    (whole,) = [row for row in Lens.read(tmp_path) if row["tensor"] == "all"]
    assert whole["low"] == pytest.approx(0.9, abs=1e-3)
    assert whole["high"] == pytest.approx(0.1, abs=1e-3)
