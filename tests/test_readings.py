"""The readings for loggers, compared with the SMI paper's algorithm and the schedules."""

from types import SimpleNamespace

import pytest
import torch

import bandwise as bw
from algorithm1 import Algorithm1

SHAPES = [(6, 10), (4, 3, 2, 2), (7,)]
SETTINGS = {"beta": 0.9, "q": 0.4, "alpha": bw.Linear(0.2, 0.6)}


def params_and_gradients(t):
    generator = torch.Generator().manual_seed(t)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def made(**settings):
    params = params_and_gradients(99)
    base = bw.NSF(params, p=bw.Cyclic(0.9, 0.1, period=4))
    return params, bw.SMI(base, 8, **SETTINGS, **settings)


def walk(params, opt, steps, read=bw.readings):
    """The readings at every step."""
    seen = []
    for t in steps:
        for param, gradient in zip(params, params_and_gradients(t), strict=True):
            param.grad = gradient
        seen.append(read(opt))
        opt.step()
    return seen


def test_alpha_and_p_are_those_of_the_coming_step():
    seen = walk(*made(), range(8))
    assert [row["smi/alpha"] for row in seen] == pytest.approx(
        [0.2 + 0.4 * t / 8 for t in range(1, 9)]
    )
    assert [row["nsf/p"] for row in seen] == pytest.approx([0.5, 0.1, 0.5, 0.9] * 2)


def test_kept_energy_is_that_of_the_filtered_gradients_over_all():
    """Algorithm 1 with alpha = 1 leaves the part that the mask keeps. Vectors are not filtered."""
    judges = [Algorithm1(lambda t: 1.0, 0.9, 0.4) for _ in SHAPES[:2]]
    for t, row in enumerate(walk(*made(), range(8))):
        gradients = params_and_gradients(t)[:2]
        kept = [judge.filter(g) for judge, g in zip(judges, gradients, strict=True)]
        energy, of_all = (sum(x.square().sum().item() for x in some) for some in (kept, gradients))
        assert row["smi/kept"] == pytest.approx(energy / of_all, rel=1e-5)
        assert row["smi/kept"] < 0.99


def test_a_mask_that_stays_is_the_one_that_counts():
    """A new mask is made every third step. The gradients between them get the same mask."""
    params, opt = made(refresh_every=3)
    kept = [row["smi/kept"] for row in walk(params, opt, range(2))]
    masks = [opt.state[param]["smi_mask"] for param in params[:2]]
    energy = of_all = 0.0
    for gradient, mask in zip(params_and_gradients(1), masks, strict=False):
        G = gradient.reshape(len(gradient), -1).double()
        filtered = torch.fft.irfft2(torch.fft.rfft2(G) * mask, s=G.shape)
        energy, of_all = energy + filtered.square().sum(), of_all + G.square().sum()
    assert kept[1] == pytest.approx((energy / of_all).item(), rel=1e-5)


def test_reading_changes_nothing():
    runs = [made(refresh_every=2) for _ in range(2)]
    walk(*runs[0], range(6))
    walk(*runs[1], range(6), read=lambda opt: None)
    (params, opt), (others, unread) = runs
    assert all(map(torch.equal, params, others))
    state, right = opt.state_dict(), unread.state_dict()
    assert state["param_groups"] == right["param_groups"]
    for i in state["state"]:
        for name, value in state["state"][i].items():
            assert torch.equal(value, right["state"][i][name])


def test_several_groups_are_numbered():
    a, b, c = params_and_gradients(1)
    groups = [{"params": [a], "smi_q": 0.0}, {"params": [b], "smi": False}, {"params": [c]}]
    opt = bw.SMI(torch.optim.AdamW(groups), 10, alpha=0.3)
    for param in (a, b, c):
        param.grad = torch.randn(param.shape)
    assert bw.readings(opt) == {
        "smi/alpha/0": 0.3, "smi/kept/0": pytest.approx(1.0), "smi/alpha/2": 0.3,
    }  # fmt: skip


def test_without_a_finite_gradient_there_is_no_kept_energy():
    params, opt = made()
    assert "smi/kept" not in bw.readings(opt)
    for value in (0.0, float("inf"), float("nan")):
        for param in params:
            param.grad = torch.full_like(param, value)
        assert bw.readings(opt).keys() == {"smi/alpha", "nsf/p"}


def test_a_sparse_gradient_has_no_kept_energy():
    params, opt = made()
    for param in params:
        param.grad = torch.ones_like(param).to_sparse()
    assert bw.readings(opt).keys() == {"smi/alpha", "nsf/p"}


@pytest.mark.parametrize("wrong", [None, torch.nn.Linear(2, 2), [], {}])
def test_what_is_no_optimizer_is_refused(wrong):
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer, got "):
        bw.readings(wrong)


def test_wrapped_or_of_another_kind():
    params, opt = made()
    wrapped = SimpleNamespace(optimizer=opt, param_groups=opt.param_groups)
    assert bw.readings(wrapped) == bw.readings(opt) != {}
    assert bw.readings(torch.optim.AdamW(params)) == {}
    assert bw.readings(bw.NSF(params, p=0.7)) == {"nsf/p": 0.7}
