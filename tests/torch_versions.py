"""Limits of some versions of torch, found by trying."""

import pytest
import torch


def needs_groups_that_are_added(optimizer):
    """Skip a test of torch's Adagrad if it makes no state for added groups, as in torch 2.10."""
    if not isinstance(getattr(optimizer, "base", optimizer), torch.optim.Adagrad):
        return
    added = torch.zeros(1, requires_grad=True)
    adagrad = torch.optim.Adagrad([torch.zeros(1, requires_grad=True)])
    adagrad.add_param_group({"params": [added]})
    added.grad = torch.ones(1)
    try:
        adagrad.step()
    except KeyError:
        pytest.skip(f"Adagrad of torch {torch.__version__} cannot train a group that was added")
