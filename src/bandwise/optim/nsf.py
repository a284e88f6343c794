"""Natural Spectral Fusion (NSF): Adam with its second moment raised to a power of either sign.

"Natural Spectral Fusion: p-Exponent Cyclic Scheduling and Early Decision-Boundary Alignment in
First-Order Optimization", arXiv 2509.04713, 2025. We had its abstract and a summary. The rule
``scale="none"`` is that of its authors' paper before it, arXiv 2405.18498. The grafting is ours.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any, Self, TypeAlias, cast, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from bandwise.optim import _checks, _state, schedules
from bandwise.optim._nsf_settings import Group, Settings, add_later_settings, preset
from bandwise.optim._paths import nsf_foreach, nsf_fused
from bandwise.optim._paths.nsf_update import Entry, Scale, State, Update, norm, ratio
from bandwise.optim.schedules import Schedule

Norm: TypeAlias = Callable[[Tensor], Tensor]
Path: TypeAlias = Callable[[list[Entry], Update], None]


class NSF(Optimizer):
    """Adam with the second moment to the power of p. The power may be negative and may change.

    With Adam's bias-corrected moments m̂ and v̂, for each parameter tensor:

        u_p = m̂ / (v̂^p + ε)                         scale "none"
        u_p = m̂ · d^(-2p),  d = √v̂ + ε             else, and then
        u   = u_p · ‖u_1/2‖ / ‖u_p‖                 scale "adam"
        u   = u_p · ‖m̂‖ / ‖u_p‖                     scale "sgd"
        θ   ← θ - lr · weight_decay · θ - lr · u

    p = 1/2 is AdamW and p = 0 is momentum SGD with decoupled decay. Above 1/2, p adapts more than
    Adam does. Below 0, p enlarges the steps of coordinates whose gradients are large. The
    paper's abstract says that adaptive methods emphasise low frequencies and negative exponents
    amplify high ones. It does not say of what. ``docs/lens.md`` has our measure.

    Scale ``"none"`` is the authors' rule. Its exponent also changes the length of the step: v̂ is
    small, so v̂^-p spans orders of magnitude. The other scales are ours. They are *grafting*: the
    direction is u_p, and the length is that of Adam's step or of momentum SGD's. Their ε stands in
    units of the gradient: beside v̂^p at p = 0.7, 1e-8 would rule all gradients below 2e-6.

    Every argument may differ by parameter group, and may be changed in ``param_groups`` at any
    time.

    Args:
        params: parameters, or dicts that define parameter groups.
        lr: learning rate, a number or a tensor of one element.
        betas: decays of the first and second moment, each in [0, 1).
        eps: added to √v̂, with scale ``"none"`` to v̂^p; not negative.
        weight_decay: weight decay, not negative.
        p: the exponent, a number or a schedule, within [-3, 3]. The default is ours: it ended
            below AdamW on a small text model (``docs/claims.md``).
        scale: whose length u takes, tensor by tensor: that of ``"adam"`` or of momentum ``"sgd"``,
            or ``"none"``: the authors' rule as it is.
        decoupled_weight_decay: whether the decay acts on θ, as in AdamW, or joins the gradient, as
            in torch's Adam and SGD: g + weight_decay · θ.
        maximize: go up instead of down.
        total_steps: the number of steps of the training, for a ``p`` of ``Linear`` or ``Cosine``.
        foreach: whether the fast path updates tensors together, in single precision (``None``,
            ``True``), or the equations are computed for one tensor after another, in double
            precision (``False``, and whenever ``|p|`` > 1 or ``eps`` is 0). The results differ by
            rounding.
        fused: whether kernels compute every value where they read it. They are compiled at the
            first step: by a C++ compiler on a CPU, where they save a third of the time, by Triton
            on a CUDA GPU. Tensors that are small or not contiguous stay with ``foreach``.

    ``state[param]`` holds ``step``, ``exp_avg`` and ``exp_avg_sq``, as in AdamW. A group's ``step``
    counts the optimizer's steps; the schedule of ``p`` follows it.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an argument out of range.
        RuntimeError: at ``step``, for a sparse gradient.

    Examples:
        >>> opt = NSF(model.parameters(), lr=1e-3)
        >>> cycled = NSF.preset("authors", model.parameters(), p=Cyclic(0.1, -0.1, period=300))
        >>> loss.backward()
        >>> opt.step()
        >>> opt.zero_grad()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        p: float | Schedule = 0.7,
        scale: Scale = "adam",
        decoupled_weight_decay: bool = True,
        maximize: bool = False,
        total_steps: int | None = None,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "p": p,
            "scale": scale,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "total_steps": total_steps,
            "foreach": foreach,
            "fused": fused,
        }
        # By the id of a group: its settings as they were checked last.
        self._checked: dict[int, Settings] = {}
        Settings.of(defaults).check()
        super().__init__(params, defaults)

    @classmethod
    def preset(cls, name: str, params: ParamsT, **settings: Any) -> Self:
        """An NSF with settings that have a name.

        - ``"authors"``: the authors' bare rule, scale ``"none"``, as the first author's public code
          for an earlier paper trains: coupled decay of 5e-4 and SGD's learning rate. Ours: that p
          lies around 0, and the cycle from 0.1 to -0.1 within 300 steps, as their values are not
          public. The learning rate is 1.0: torch's SGD sums gradients with momentum 0.9 and NSF
          averages them, so 1.0 here is 0.1 there. Measured: this cycle ends worse than SGD on two
          small tasks; at SGD's length it is not told from SGD (``docs/nsf.md``).
        - ``"adam-cycle"``: ours: p cycles from 1/2 to -1/4 within 200 steps at Adam's length.
          Measured: worse than AdamW on a small text model.
        - ``"default"``: ours: p = 0.7 at Adam's length. Measured: a lower loss than AdamW on small
          text models, at short trainings.

        Args:
            name: one of the names above.
            params: parameters, or dicts that define parameter groups.
            **settings: further arguments of NSF. A preset's ``scale``, decay's kind and, except
                for ``"authors"``, ``p`` cannot be changed.

        Raises:
            ValueError: an unknown name, or a setting that contradicts the preset.
        """
        return cls(params, **preset(name, settings))

    def add_param_group(self, param_group: Group) -> None:
        """Add a group. Its ``p`` goes on from the step that training has come to."""
        _checks.group(param_group)
        step = max((group["step"] for group in self.param_groups), default=0)
        complete = {**self.defaults, "step": step, **param_group}
        Settings.of(complete).check()
        super().add_param_group(complete)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch._compile._disable_dynamo  # torch.compiler.disable would import all of dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        ``torch.compile`` leaves this method as it is, since torch 2.13 compiles it wrongly.

        Args:
            closure: evaluates the model again and returns the loss.
        """
        _checks.not_captured("NSF")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # An error in any group comes before the first change.
        work = [(g, self._settings(g), _with_gradients(g)) for g in self.param_groups]
        for group, settings, params in work:
            group["step"] += 1
            update = settings.update(group["step"])
            for path, entries in _batches(self._entries(params), settings, update):
                path(entries, update)
        return loss

    @staticmethod
    def exponent(group: Group, ahead: int = 1) -> float:
        """The exponent p of a group at a step near the present one.

        Args:
            group: one of ``param_groups``.
            ahead: how many steps ahead: 1 for the coming step, 0 for the last one.
        """
        return schedules.value_at(group["p"], group["step"] + ahead, group["total_steps"])

    def _settings(self, group: Group) -> Settings:
        """The group's settings. They are checked where they have changed since the last step."""
        settings = Settings.of(group)
        if settings != self._checked.get(id(group)):
            settings.check()
            self._checked[id(group)] = settings
        return settings

    def _entries(self, params: list[Tensor]) -> list[Entry]:
        """The entries of parameters for their next step."""
        states = [self._state(param) for param in params]
        if states:
            torch._foreach_add_([state["step"] for state in states], 1)
        return [Entry.of(param, state) for param, state in zip(params, states, strict=True)]

    def _state(self, param: Tensor) -> State:
        """A parameter's state, which begins with zeros."""
        state = cast(State, self.state[param])
        if "step" not in state:
            state["step"] = _count(0)
            state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a pickle or a loaded ``state_dict``, also one of an older version."""
        super().__setstate__(state)
        self._checked = {}
        add_later_settings([self.defaults, *self.param_groups])
        for param in (param for group in self.param_groups for param in group["params"]):
            own = self.state.get(param, {})
            if "step" in own:
                own["step"] = _count(own["step"])

    def state_dict(self) -> dict[str, Any]:
        """As ``torch.optim.Optimizer.state_dict``; schedules stand in it as plain data."""
        # The hooks of the user see what will be saved.
        with self.register_state_dict_post_hook(_made_plain, prepend=True):
            return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned.

        Raises:
            ValueError: if it does not fit; then nothing has changed.
        """
        # The hooks of the user come first, since they may make it fit.
        with self.register_load_state_dict_pre_hook(_made_loadable):
            super().load_state_dict(state_dict)


def _single_tensor(
    theta: Tensor, g: Tensor, m: Tensor, v: Tensor, t: float, update: Update, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """The equations: θ, m and v after step t, from θ, m, v before it and the gradient g."""
    lr, beta1, beta2, eps, weight_decay, p, scale, decoupled, maximize = update
    if maximize:
        g = -g
    if not decoupled:
        g = g + weight_decay * theta
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    if update.grafts:
        d = v_hat.sqrt() + eps
        u = _usable(m_hat * d ** (-2 * p), m_hat, v_hat)
        wanted = _usable(m_hat / d, m_hat, v_hat) if scale == "adam" else m_hat
        u = u * ratio(norm(wanted), norm(u))
    else:
        u = _usable(m_hat / (v_hat**p + eps), m_hat, v_hat)
    if decoupled:
        theta = theta - lr * weight_decay * theta
    return theta - lr * u, m, v


def _usable(u: Tensor, m_hat: Tensor, v_hat: Tensor) -> Tensor:
    """u, but 0 where m̂ is, even if ε is 0, and where v has overflowed."""
    return torch.where((m_hat == 0) | (m_hat / v_hat.sqrt() == 0), 0, u)


def _one_by_one(entries: list[Entry], update: Update) -> None:
    """The readable path: the equations in double precision, which holds powers of d."""
    for entry in entries:
        theta, g, m, v = (x.double() for x in (entry.theta, entry.g, entry.m, entry.v))
        after = _single_tensor(theta, g, m, v, entry.t, update, partial(norm, entry))
        for kept, new in zip((entry.theta, entry.m, entry.v), after, strict=True):
            kept.copy_(new)


def _path(entry: Entry, settings: Settings, update: Update) -> Path:
    """The fastest path that can take an entry."""
    if settings.foreach is False or not nsf_foreach.takes(update):
        return _one_by_one
    if settings.fused and nsf_fused.takes(entry, update):
        return nsf_fused.step
    return nsf_foreach.step


# More numbers leave a processor's cache between one operation and the next. On other devices a
# call costs more, and large batches only take memory.
_CPU_BATCH_NUMEL = 1 << 18
_BATCH_NUMEL = 1 << 25


def _batches(
    entries: list[Entry], settings: Settings, update: Update
) -> Iterator[tuple[Path, list[Entry]]]:
    """Entries that one call of a path takes: of the same dtypes, on one device, not too many."""
    alike = defaultdict(list)
    for entry in entries:
        path = _path(entry, settings, update)
        alike[path, entry.theta.device, entry.dtypes].append(entry)
    for (path, device, _), members in alike.items():
        most = _CPU_BATCH_NUMEL if device.type == "cpu" else _BATCH_NUMEL
        batch: list[Entry] = []
        numel = 0
        for entry in members:
            # All ranks cut alike, as they count whole parameters.
            numel += entry.numel
            if batch and numel > most:
                yield path, batch
                batch, numel = [], entry.numel
            batch.append(entry)
        yield path, batch


def _with_gradients(group: Group) -> list[Tensor]:
    """The parameters of a group that take part in a step."""
    params = [param for param in group["params"] if param.grad is not None]
    for param in params:
        if param.grad.layout != torch.strided:
            raise RuntimeError(
                "NSF does not support sparse gradients: use a dense one "
                f"(sparse=False in Embedding); shape {tuple(param.shape)}"
            )
    return params


def _count(steps: float | Tensor) -> Tensor:
    """A number of steps as the state holds it: on the CPU, where it is read at every step."""
    return torch.as_tensor(steps, dtype=torch.float32, device="cpu")


def _made_plain(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    return {
        **state_dict,
        "param_groups": _state.plain(state_dict["param_groups"], Settings._fields),
    }


def _made_loadable(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    groups, state = _state.parts(state_dict, Settings._fields)
    add_later_settings(groups)
    _check_fit(groups, state, _state.matched(groups, optimizer.param_groups))
    # torch takes the saved tensors as they are; two optimizers would share them.
    return {**state_dict, "state": deepcopy(state), "param_groups": groups}


def _check_fit(
    groups: list[Group], state: dict[Any, State], matched: list[tuple[Any, Tensor]]
) -> None:
    """Raise unless a state_dict's groups and moments are NSF's and fit the parameters."""
    if not all({"p", "scale", "step"} <= group.keys() for group in groups):
        raise ValueError(
            "the state_dict is not an NSF's: its groups lack p, scale or step; to go on from "
            "AdamW, start NSF anew"
        )
    _state.check_groups(groups, lambda group: Settings.of(group).check())
    for key, param in matched:
        entries = state.get(key)
        if not entries:
            continue
        if not {"step", "exp_avg", "exp_avg_sq"} <= entries.keys():
            raise ValueError(
                f"the state_dict's state of parameter {key} is not an NSF's: it needs step, "
                f"exp_avg and exp_avg_sq, and has {', '.join(map(str, entries))}"
            )
        if not isinstance(entries["step"], (int, float)):  # as older versions of torch saved it
            _state.check_shape(key, "step", entries["step"], ())
        _state.check_shape(key, "exp_avg", entries["exp_avg"], tuple(param.shape))
        _state.check_shape(key, "exp_avg_sq", entries["exp_avg_sq"], tuple(param.shape))
