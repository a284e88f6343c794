"""The matrix that a tensor of more than two dimensions becomes."""

import copy

import pytest
import torch

import bandwise as bw
from algorithm1 import Algorithm1
from bandwise.optim._spectrum import matrix_shape

SHAPES = [(4, 3, 3, 3), (5, 2, 7), (3, 4, 2, 3, 2), (6, 7), (9,), (4, 1, 3, 3), (4, 6, 1, 1)]
MATRIX, PAPER = {}, {"layout": "paper"}


def smi(params, **settings):
    return bw.SMI(torch.optim.SGD(params, lr=0.0), alpha=0.5, q=0.5, min_ndim=1, **settings)


def papers_matrix(gradient):
    """Section 3.3: n are the flattened spatial dimensions, d is the channel dimension."""
    if gradient.ndim < 3:
        return gradient
    out, into, *spatial = gradient.shape
    positions = gradient.permute(*range(2, gradient.ndim), 0, 1)
    return positions.reshape(torch.Size(spatial).numel(), out * into)


def of_papers_matrix(matrix, shape):
    if len(shape) < 3:
        return matrix
    out, into, *spatial = shape
    positions = matrix.reshape(*spatial, out, into)
    return positions.permute(-2, -1, *range(len(spatial)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_paper_s_layout_is_its_section_s(shape, foreach, dtype):
    param = torch.zeros(shape, dtype=dtype)
    opt = smi([param], foreach=foreach, **PAPER)
    judge = Algorithm1(lambda t: 0.5, 0.99, 0.5)
    for _ in range(4):
        gradient = torch.randn(shape, dtype=dtype)
        assert torch.equal(of_papers_matrix(papers_matrix(gradient), shape), gradient)
        param.grad = gradient.clone()
        opt.step()
        right = of_papers_matrix(judge.filter(papers_matrix(gradient)), shape)
        torch.testing.assert_close(param.grad, right)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_layouts_differ_where_the_matrices_do(shape):
    params = [torch.zeros(shape, dtype=torch.float64) for _ in range(2)]
    gradient = torch.randn(shape, dtype=torch.float64)
    for param, settings in zip(params, (MATRIX, PAPER), strict=True):
        param.grad = gradient.clone()
        smi([param], **settings).step()
    shapes = matrix_shape(params[0].shape), matrix_shape(params[0].shape, "paper")
    assert torch.equal(params[0].grad, params[1].grad) == (shapes[0] == shapes[1])


def test_layouts_by_group_in_one_batch():
    """Also of two tensors whose matrices are of one shape."""
    params = [torch.zeros(shape, dtype=torch.float64) for shape in ((12, 3, 3), (4, 3, 9))]
    gradients = [torch.randn_like(param) for param in params]
    opt = smi([{"params": params[:1]}, {"params": params[1:], "smi_layout": "paper"}])
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient.clone()
    opt.step()
    for param, gradient in zip(params, gradients, strict=True):
        judge = Algorithm1(lambda t: 0.5, 0.99, 0.5)
        torch.testing.assert_close(param.grad.view(12, 9), judge.filter(gradient.view(12, 9)))


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("refresh_every", [1, 3])
def test_another_layout_begins_a_new_history(refresh_every, foreach):
    param = torch.zeros(4, 3, 3, 3)
    opt = smi([param], foreach=foreach, refresh_every=refresh_every)
    kept = []
    for layout in ("matrix", "matrix", "paper", "paper"):
        opt.param_groups[0]["smi_layout"] = layout
        param.grad = gradient = torch.randn(4, 3, 3, 3)
        first = gradient.clone()
        opt.step()
        kept.append(opt.state[param]["smi_history"].shape)
        if len(kept) == 3:
            right = torch.fft.rfft2(first.reshape(12, 9)).abs()
            torch.testing.assert_close(opt.state[param]["smi_history"], right)
    assert kept == [(4, 14)] * 2 + [(12, 5)] * 2


def test_a_checkpoint_has_the_layout():
    def made(**settings):
        param = torch.zeros(4, 3, 3, 3)
        return param, smi([param], refresh_every=2, **settings)

    (param, opt), (other, loaded) = made(**PAPER), made()
    param.grad = torch.randn_like(param)
    opt.step()
    saved = copy.deepcopy(opt.state_dict())
    loaded.load_state_dict(saved)
    assert loaded.param_groups[0]["smi_layout"] == "paper"
    param.grad = torch.randn_like(param)
    other.grad = param.grad.clone()
    opt.step()
    loaded.step()
    assert torch.equal(param.grad, other.grad)
    # One from before there were layouts, and one whose histories are of another.
    for change in (lambda group: group.pop("smi_layout"),
                   lambda group: group.update(smi_layout="matrix")):  # fmt: skip
        wrong = copy.deepcopy(saved)
        change(wrong["param_groups"][0])
        with pytest.raises(ValueError, match=r"smi_.* has shape \(12, 5\), this .* \(4, 14\)"):
            loaded.load_state_dict(wrong)
    older = copy.deepcopy(made()[1].state_dict())
    del older["param_groups"][0]["smi_layout"]
    loaded.load_state_dict(older)
    assert loaded.param_groups[0]["smi_layout"] == "matrix"


def test_other_layouts_are_refused():
    with pytest.raises(ValueError, match="layout must be one of matrix, paper, got 'kernels'"):
        smi([torch.zeros(3, 3)], layout="kernels")
    opt = smi([torch.zeros(3, 3)])
    opt.param_groups[0]["smi_layout"] = None
    with pytest.raises(ValueError, match="layout must be one of matrix, paper, got None"):
        opt.step()


def test_what_is_told_of_the_coming_step_is_of_the_layout():
    param = torch.zeros(4, 3, 3, 3)
    opt = smi([param], refresh_every=2, **PAPER)
    param.grad = torch.randn_like(param)
    kept = bw.readings(opt)["smi/kept"]
    M = torch.fft.rfft2(param.grad.reshape(12, 9)).abs()
    told = opt.coming_mask(opt.param_groups[0], param, M)
    G_hat = torch.fft.fft2(param.grad.double().reshape(12, 9))
    opt.step()
    assert torch.equal(told, opt.state[param]["smi_mask"])
    mask = torch.quantile(G_hat.abs(), 0.5) <= G_hat.abs()
    assert kept == pytest.approx(((G_hat * mask).norm() / G_hat.norm()).item() ** 2, rel=1e-4)
