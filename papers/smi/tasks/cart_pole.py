"""Reinforcement learning: balance a pole on a cart with a policy gradient."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bandwise.tasks import Direction, Recipe, Split, Task, generator

# Barto, Sutton and Anderson (1983): metres, kilograms, seconds, newtons.
_GRAVITY, _CART, _POLE, _HALF_LENGTH, _FORCE, _STEP = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
_EDGE, _FALLEN = 2.4, 12 * math.pi / 180


class CartPole(Task):
    """REINFORCE on cart-pole: push the cart left or right, 50 times a second.

    An episode ends when the pole falls by 12 degrees, when the cart leaves ±2.4 metres, or after
    ``horizon`` steps. Each step has a reward of 1.

    A batch is (starts, chances). The start states, (batch_size, 4) float32, are position, velocity,
    angle and angular velocity, each within ±0.05. The chances, (horizon, batch_size), are uniform
    in [0, 1); the actions are drawn with them. So a step draws with the same chances for every
    optimizer.

    The loss is -mean(log π(action) · advantage). The advantage is the return from this step on,
    undiscounted, minus its mean over the episodes that still run, over the standard deviation in
    the batch. The value of the loss has no meaning. ``evaluate`` has ``reward``, the mean length of
    256 episodes in which the policy takes the likelier action. A large reward is good.

    Args:
        batch_size: episodes in a training batch.
        horizon: steps of the longest episode.
        width: units in the hidden layer.
    """

    name = "cart-pole"
    metric = "reward"
    direction: Direction = "max"
    recipe = Recipe(steps=100, lr=2e-3)

    def __init__(
        self,
        batch_size: Annotated[int, Field(ge=2)] = 16,
        horizon: Annotated[int, Field(ge=1)] = 200,
        width: Annotated[int, Field(ge=1)] = 32,
    ) -> None:
        self.batch_size, self.horizon, self.width = batch_size, horizon, width

    def model(self) -> nn.Module:
        """Logits of the two pushes, left and right."""
        return nn.Sequential(nn.Linear(4, self.width), nn.Tanh(), nn.Linear(self.width, 2))

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        random = generator(seed, step)
        starts = _starts(self.batch_size, random)
        return starts, torch.rand(self.horizon, self.batch_size, generator=random)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        states, chances = batch
        alive = torch.ones(len(states), dtype=torch.bool, device=states.device)
        logs, lives = [], []
        for chance in chances:
            log_p = model(states).log_softmax(-1)
            right = chance < log_p[:, 1].exp()
            logs.append(torch.where(right, log_p[:, 1], log_p[:, 0]))
            lives.append(alive)
            states = torch.where(alive[:, None], advance(states, right), states)
            alive = alive & upright(states)
            if not alive.any():
                break
        living = torch.stack(lives).float()
        returns = living.flip(0).cumsum(0).flip(0) * living
        expected = returns.sum(1, keepdim=True) / living.sum(1, keepdim=True)
        advantages = (returns - expected) * living
        spread = advantages.square().sum().div(living.sum()).sqrt()
        weighted = torch.stack(logs) * advantages / (spread + 1e-8)
        return -weighted.sum() / living.sum()

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        device = next(model.parameters()).device
        states = _starts(256, generator(seed=0, step=0)).to(device)
        alive = torch.ones(len(states), dtype=torch.bool, device=device)
        reward = torch.zeros(len(states), device=device)
        for _ in range(self.horizon):
            reward += alive
            logits = model(states)
            states = torch.where(
                alive[:, None], advance(states, logits[:, 1] > logits[:, 0]), states
            )
            alive &= upright(states)
        return {"reward": reward.mean().item()}


def _starts(count: int, random: torch.Generator) -> Tensor:
    return torch.rand(count, 4, generator=random) * 0.1 - 0.05


def advance(states: Tensor, right: Tensor) -> Tensor:
    """The states (n, 4) after one step of Euler's method.

    Args:
        states: (n, 4).
        right: (n,) bool: whether the push is to the right. Otherwise it is to the left.
    """
    _, velocity, angle, turning = states.unbind(1)
    force = torch.where(right, _FORCE, -_FORCE)
    mass = _CART + _POLE
    sine, cosine = angle.sin(), angle.cos()
    push = (force + _POLE * _HALF_LENGTH * turning**2 * sine) / mass
    angular = (_GRAVITY * sine - cosine * push) / (
        _HALF_LENGTH * (4 / 3 - _POLE * cosine**2 / mass)
    )
    linear = push - _POLE * _HALF_LENGTH * angular * cosine / mass
    change = torch.stack((velocity, linear, turning, angular), dim=1)
    return states + _STEP * change


def upright(states: Tensor) -> Tensor:
    """Whether the cart is on its track and the pole has not fallen."""
    return (states[:, 0].abs() <= _EDGE) & (states[:, 2].abs() <= _FALLEN)
