"""Random histories of use from Hypothesis: the fast path equals the reference path."""

import copy
import math

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import bandwise as bw

SHAPES = [(), (5,), (4, 6), (3, 2, 2), (1, 7), (0, 3), (70, 130)]
EXPONENTS = [0.7, 0.5, 0.0, -0.25, 1.2, bw.Cyclic(0.9, -0.5, 3)]
SEEDS = st.integers(0, 2**31)


class Life(RuleBasedStateMachine):
    """Two optimizers that differ only in their path have the same history of use.

    They compute in double precision, so that rounding stays far below the effect of a mistake.
    """

    PATHS = ({"foreach": False}, {"foreach": None})

    def make(self, groups, **path):
        raise NotImplementedError

    @property
    def pairs(self):
        slow, fast = (
            [param for group in opt.param_groups for param in group["params"]] for opt in self.both
        )
        return list(zip(slow, fast, strict=True))

    def tensors(self, shapes, seed):
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]

    @initialize(shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4), seed=SEEDS)
    def born(self, shapes, seed):
        self.both = [self.make(self.tensors(shapes, seed), **path) for path in self.PATHS]

    @rule(missing=st.integers(0, 31), seed=SEEDS, size=st.sampled_from([1.0, 1e-6, 1e6, 0.0]))
    def step(self, missing, seed, size):
        gradients = self.tensors([a.shape for a, _ in self.pairs], seed)
        for i, (pair, gradient) in enumerate(zip(self.pairs, gradients, strict=True)):
            for param in pair:
                param.grad = None if missing >> i & 1 else gradient * size
        for opt in self.both:
            opt.step()

    @rule(bad=st.sampled_from([math.inf, -math.inf, math.nan]), which=st.integers(0, 9), seed=SEEDS)
    def step_that_is_not_finite(self, bad, which, seed):
        """Afterwards the state is restored, as a user does from a checkpoint."""
        saved = [copy.deepcopy(opt.state_dict()) for opt in self.both]
        kept = [[x.clone() for x in pair] for pair in self.pairs]
        gradients = self.tensors([a.shape for a, _ in self.pairs], seed)
        gradients[which % len(gradients)].view(-1)[:1] = bad
        for pair, gradient in zip(self.pairs, gradients, strict=True):
            for param in pair:
                param.grad = gradient.clone()
        for opt in self.both:
            opt.step()
        for a, b in self.pairs:
            assert torch.equal(a.isfinite(), b.isfinite())
        for opt, state in zip(self.both, saved, strict=True):
            opt.load_state_dict(state)
        for pair, right in zip(self.pairs, kept, strict=True):
            for param, value in zip(pair, right, strict=True):
                param.copy_(value)
                param.grad = None

    @rule(shape=st.sampled_from(SHAPES), seed=SEEDS, lr=st.sampled_from([0.0, 0.1]))
    @precondition(lambda self: len(self.pairs) < 8)
    def add_a_group(self, shape, seed, lr):
        for opt in self.both:
            opt.add_param_group({"params": self.tensors([shape], seed), "lr": lr})

    @rule(which=st.integers(0, 9), lr=st.sampled_from([0.0, 1e-3, 0.5]))
    def change_the_learning_rate(self, which, lr):
        for opt in self.both:
            opt.param_groups[which % len(opt.param_groups)]["lr"] = lr

    @rule(fresh=st.booleans())
    def save_and_load(self, fresh):
        """Load the state into the same optimizer, or into a new one with the same parameters."""
        for i, (opt, path) in enumerate(zip(self.both, self.PATHS, strict=True)):
            saved = copy.deepcopy(opt.state_dict())
            if fresh:
                groups = [{"params": group["params"]} for group in opt.param_groups]
                self.both[i] = self.make(groups, **path)
            self.both[i].load_state_dict(saved)

    @rule()
    def go_on_as_a_copy(self):
        self.both = copy.deepcopy(self.both)

    @rule(set_to_none=st.booleans())
    def zero_grad(self, set_to_none):
        for opt in self.both:
            opt.zero_grad(set_to_none=set_to_none)

    @rule()
    def step_again(self):
        """Step with the present gradients. SMI's are filtered, NSF's are unchanged."""
        for opt in self.both:
            opt.step()

    @invariant()
    def alike(self):
        for a, b in self.pairs:
            same(b, a)
            slow, fast = self.both[0].state.get(a, {}), self.both[1].state.get(b, {})
            assert slow.keys() == fast.keys()
            for name in slow:
                same(fast[name], slow[name])
        for one, two in zip(*(opt.param_groups for opt in self.both), strict=True):
            paths = {"params", "foreach", "smi_foreach"}
            assert {k: one[k] for k in one.keys() - paths} == {
                k: two[k] for k in two.keys() - paths
            }


def same(found, right):
    assert found.dtype == right.dtype
    if right.is_floating_point():
        largest = right.abs().max().item() if right.numel() else 0.0
        torch.testing.assert_close(found, right, rtol=1e-8, atol=1e-8 * largest)
    else:
        assert torch.equal(found, right)


class LifeOfNSF(Life):
    def make(self, groups, **path):
        return bw.NSF(groups, lr=0.01, p=0.7, **path)

    @rule(which=st.integers(0, 9), p=st.sampled_from(EXPONENTS))
    def change_p(self, which, p):
        for opt in self.both:
            opt.param_groups[which % len(opt.param_groups)]["p"] = p


class LifeOfSMI(Life):
    def make(self, groups, **path):
        base = torch.optim.AdamW(groups, lr=0.01, eps=1e-2)
        return bw.SMI(base, 10, beta=0.8, min_ndim=1, **path)

    @rule(which=st.integers(0, 9), q=st.sampled_from([0.0, 0.15, 0.5, 1.0]))
    def change_q(self, which, q):
        for opt in self.both:
            opt.param_groups[which % len(opt.param_groups)]["smi_q"] = q

    @rule(which=st.integers(0, 9), every=st.sampled_from([1, 3]))
    def change_how_long_a_mask_is_held(self, which, every):
        for opt in self.both:
            opt.param_groups[which % len(opt.param_groups)]["smi_refresh_every"] = every

    @rule(which=st.integers(0, 9))
    def filter_or_not(self, which):
        for opt in self.both:
            group = opt.param_groups[which % len(opt.param_groups)]
            group["smi"] = not group["smi"]


LifeOfNSF.TestCase.settings = settings(max_examples=80, stateful_step_count=20)
LifeOfSMI.TestCase.settings = settings(max_examples=80, stateful_step_count=20)
TestLifeOfNSF = LifeOfNSF.TestCase
TestLifeOfSMI = LifeOfSMI.TestCase
