"""Figures of weights, for matrices and distributions with known figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Laplace, Normal, Uniform

from bandwise.lens.quantities.weights import weight_figures


def with_singular_values(values: list[float], n: int, d: int) -> Tensor:
    u, _ = torch.linalg.qr(torch.randn(n, len(values), dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(d, len(values), dtype=torch.float64))
    return u @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ v.T


def test_known_singular_values() -> None:
    figures = weight_figures(with_singular_values([4, 2, 2], 3, 7))
    assert figures["spectral_norm"] == pytest.approx(4)
    assert figures["condition_number"] == pytest.approx(2)
    # The shares are 1/2, 1/4, 1/4: an entropy of 3/2 ln 2.
    assert figures["effective_rank_ratio"] == pytest.approx(2**1.5 / 3)


def test_an_orthogonal_matrix_is_perfectly_conditioned() -> None:
    figures = weight_figures(torch.linalg.qr(torch.randn(20, 20)).Q)
    assert figures["spectral_norm"] == pytest.approx(1, rel=1e-6)
    assert figures["condition_number"] == pytest.approx(1, rel=1e-6)
    assert figures["effective_rank_ratio"] == pytest.approx(1, rel=1e-6)


def test_rank_one() -> None:
    u, v = torch.randn(8), torch.randn(50)
    figures = weight_figures(torch.outer(u, v))
    assert figures["spectral_norm"] == pytest.approx((u.norm() * v.norm()).item(), rel=1e-6)
    assert figures["condition_number"] == 1
    # Rounding of the products, 6e-8, leaves seven more singular values. Each has p ln(1/p) = 1e-6.
    assert figures["effective_rank_ratio"] == pytest.approx(1 / 8, rel=1e-5)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float64, 2**30), (torch.float32, 2), (torch.bfloat16, 2)],
)
def test_negligible_singular_values_are_those_below_the_types_rounding(
    dtype: torch.dtype, expected: float
) -> None:
    matrix = torch.diag(torch.tensor([1, 0.5, 2.0**-30], dtype=dtype))
    assert weight_figures(matrix)["condition_number"] == expected


def test_a_narrow_type_keeps_what_float32_would() -> None:
    # bfloat16's eps, 1/128, times 200 rows would remove everything.
    assert weight_figures(torch.eye(200, dtype=torch.bfloat16))["condition_number"] == 1


def test_magnitudes_by_hand() -> None:
    figures = weight_figures(torch.tensor([[1.0, -3.0], [0.0, 2.0]]))
    assert figures["magnitude_variance"] == pytest.approx((1 + 9 + 0 + 4) / 4 - 1.5**2)
    # The mean is zero: (1⁴ + 3⁴ + 2⁴) / 4 over ((1 + 9 + 4) / 4)².
    assert figures["kurtosis"] == pytest.approx((98 / 4) / (14 / 4) ** 2)
    entropy = -(1 / 6 * math.log(1 / 6) + 1 / 2 * math.log(1 / 2) + 1 / 3 * math.log(1 / 3))
    assert figures["effective_parameter_ratio"] == pytest.approx(math.exp(entropy) / 4)


def test_kurtosis_is_about_the_mean() -> None:
    w = torch.randn(30, 40, dtype=torch.float64)
    kurtosis = weight_figures(w)["kurtosis"]
    assert weight_figures(w + 5)["kurtosis"] == pytest.approx(kurtosis)
    assert weight_figures(7 * w)["kurtosis"] == pytest.approx(kurtosis)


N = 200_000


@pytest.mark.parametrize(
    ("distribution", "moments"),
    [  # 4th, 6th and 8th of the distribution with variance 1
        (Normal(0.0, 1.0), (3, 15, 105)),
        (Uniform(0.0, 1.0), (9 / 5, 27 / 7, 9)),
        (Laplace(0.0, 1.0), (6, 90, 2520)),
    ],
    ids=["normal", "uniform", "Laplace"],
)
def test_kurtosis_of_samples(
    distribution: Distribution, moments: tuple[float, float, float]
) -> None:
    m4, m6, m8 = moments
    # The delta method for m4 / m2² of a symmetric distribution.
    error = math.sqrt((m8 - m4**2 - 4 * m4 * (m6 - m4) + 4 * m4**2 * (m4 - 1)) / N)
    assert weight_figures(distribution.sample((10, N // 10)))["kurtosis"] == pytest.approx(
        m4, abs=4 * error
    )


@pytest.mark.parametrize("k", [1, 5, 24])
def test_k_equal_weights_of_n_are_k_effective_parameters(k: int) -> None:
    w = torch.zeros(24)
    w[:k] = 0.3
    w[::2] *= -1
    ratio = weight_figures(w.view(4, 6))["effective_parameter_ratio"]
    assert ratio == pytest.approx(k / 24)


def test_effective_parameters_of_normal_weights() -> None:
    exact = math.exp(np.euler_gamma / 2) / math.sqrt(math.pi)  # 0.753
    ratio = weight_figures(torch.randn(10, N // 10))["effective_parameter_ratio"]
    # ln(ratio) = ln m - E[L] / m, with m = E|z| and L = |z| ln|z|; the delta method for its error.
    z = torch.randn(N, dtype=torch.float64).abs()
    m, L = z.mean(), z * z.log()
    error = ((L - (1 + L.mean() / m) * z) / m).std().item() / math.sqrt(N)
    assert ratio == pytest.approx(exact, rel=4 * error)


def test_more_dimensions_are_rows_of_all_the_rest() -> None:
    kernel = torch.randn(6, 3, 5, 5)
    assert weight_figures(kernel) == weight_figures(kernel.view(6, 75))
    vector = torch.randn(9)
    assert weight_figures(vector) == weight_figures(vector.view(1, 9))


def test_zeros_have_no_shape_to_speak_of() -> None:
    figures = weight_figures(torch.zeros(3, 4))
    assert figures["spectral_norm"] == figures["magnitude_variance"] == 0
    undefined = ("condition_number", "effective_rank_ratio", "kurtosis")
    assert all(math.isnan(figures[name]) for name in (*undefined, "effective_parameter_ratio"))


def test_a_parameter_is_left_alone() -> None:
    parameter = nn.Parameter(torch.randn(4, 5))
    before = parameter.detach().clone()
    weight_figures(parameter)
    assert torch.equal(parameter, before)
    assert parameter.grad is None


@pytest.mark.parametrize(
    "matrix", [torch.tensor(1.0), torch.empty(0, 3), torch.ones(2, 2, dtype=torch.complex64)]
)
def test_what_is_no_matrix_is_refused(matrix: Tensor) -> None:
    with pytest.raises(ValueError, match=r"matrix must be a real tensor .* got torch"):
        weight_figures(matrix)
