"""Spectral Momentum Integration (SMI): any optimizer, fed with spectrally filtered gradients.

Huang, Chen, Zheng, "Spectral momentum integration: hybrid optimization of frequency and time domain
gradients", Front. Artif. Intell. 8:1628943, 2025. Section and line numbers refer to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from bandwise.optim import _checks, _smi_settings, _state, schedules
from bandwise.optim._paths import quantile, smi_batched, smi_fused, smi_update
from bandwise.optim._paths.smi_update import Entry, Path, State, Update
from bandwise.optim._smi_settings import KEYS, PRESETS, Settings
from bandwise.optim._spectrum import Grid, Layout
from bandwise.optim._wrap import Group, Wrapper
from bandwise.optim.schedules import Cosine, Schedule

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from bandwise.optim._paths.smi_sharded import Sharing, Sharings


class SMI(Wrapper):
    """Filters every gradient in the frequency domain, then lets ``base`` take its step.

    For each parameter with gradient G, laid out as a matrix of n x d (Algorithm 1):

        Ĝ  = fft2(G),  M = |Ĝ|
        H  ← β H + (1 - β) M            H = M at the first step
        τ  = quantile(H, q)
        G' = ifft2(Ĝ ⊙ [H ≥ τ]).real
        G  ← α_t G' + (1 - α_t) G

    A tensor of more than two dimensions is laid out as ``layout`` says, a vector as one row. The
    gradients are changed in place: after ``step()`` they are the blended ones.

    Use it as the optimizer. It shares ``param_groups`` and ``state`` with ``base``, and everything
    that takes an optimizer takes it. Call ``step`` and ``zero_grad`` on it, not on ``base``.

    All arguments but ``base`` and ``shard_work`` may differ by parameter group. In the groups given
    to ``base`` or to ``add_param_group`` they are called ``smi_alpha``, ``smi_beta`` and so on.
    They may be changed there at any time. A group with ``smi=False`` is not filtered.

    A gradient with inf or NaN goes to ``base`` as it is and leaves the history alone. float16 and
    bfloat16 gradients are filtered in float32. Complex ones are filtered by their whole spectrum.

    Args:
        base: the optimizer that takes the steps.
        total_steps: T, the number of steps of the training, in which ``alpha`` runs its course.
            After it ``alpha`` stays at its end. A constant ``alpha`` does not need it.
        alpha: α_t, the part of the filtered gradient, a number or a schedule within [0, 1].
        beta: β, the decay of the magnitudes' moving average, in [0, 1).
        q: the fraction of coefficients that is removed, in [0, 1]. 0 removes none.
        layout: the matrix of a tensor of more than two dimensions. ``"matrix"``: ``shape[0]`` rows,
            as in a linear layer. ``"paper"``: section 3.3's "n represents the flattened spatial
            dimensions and d is the channel dimension", so rows are places in a kernel, columns
            pairs of channels. Another layout begins new histories.
        min_ndim: tensors of fewer dimensions are not filtered. The paper filters all (1).
        history_dtype: floating dtype that H is stored in, ``None`` for the dtype that it is
            computed in. ``torch.bfloat16`` halves its memory (section 3.5.2).
        refresh_every: a new mask [H ≥ τ] is made every so many steps. The history moves at each.
        foreach: whether gradients are filtered in batches (``None``, ``True``), or one by one, as
            the equations say (``False``). The results differ by rounding. Gradients that processes
            share are always filtered in batches.
        fused: whether kernels in Triton do the work between the two transforms, without a sort.
            They take contiguous gradients of float32, bfloat16 and float16 on CUDA GPUs that
            processes do not share. Other gradients are filtered in batches.
        shard_work: for parameters of which every process has all, as those of
            ``DistributedDataParallel``. All processes (``True``), or those of a ``DeviceMesh``,
            filter a share each and exchange the results. With ``False`` each filters everything. It
            is no part of a ``state_dict``. Sharded parameters (``DTensor``, of ``fully_shard`` or
            tensor parallel) are always filtered by the processes that share them.

    ``state[param]`` holds, beside what ``base`` keeps there, ``smi_history``: H of the half
    spectrum, n x (d//2 + 1), NaN before the first finite gradient; for the paper's layout n and d
    change places. With ``refresh_every`` > 1 it also holds ``smi_mask``, True where a coefficient
    is kept. Where processes share the work, both are ``DTensor`` s, and each process has some
    columns. What one process saves alone is its share: save with ``torch.distributed.checkpoint``.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an argument out of range.
        RuntimeError: at ``step``, for a sparse gradient.

    Examples:
        >>> opt = SMI(torch.optim.AdamW(model.parameters(), lr=1e-3), total_steps=5000)
        >>> loss.backward()
        >>> opt.step()
        >>> opt.zero_grad()
    """

    shard_work: bool | DeviceMesh = False
    _state_keys = frozenset({"smi_history", "smi_mask"})
    _sharings: Sharings | None = None

    def __init__(
        self,
        base: Optimizer,
        total_steps: int | None = None,
        *,
        alpha: float | Schedule = Cosine(0.1, 0.5),
        beta: float = 0.99,
        q: float = 0.25,
        layout: Layout = "matrix",
        min_ndim: int = 2,
        history_dtype: torch.dtype | None = None,
        refresh_every: int = 1,
        foreach: bool | None = None,
        fused: bool | None = None,
        shard_work: bool | DeviceMesh = False,
    ) -> None:
        if not isinstance(base, Optimizer):
            raise TypeError(f"base must be a torch.optim.Optimizer, got {type(base).__name__}")
        if any("smi_step" in group for group in base.param_groups):
            # Its groups have the settings of the SMI before, which would win over these.
            raise ValueError("base is filtered already: make a new optimizer to wrap it anew")
        if not isinstance(shard_work, bool) and not hasattr(shard_work, "get_coordinate"):
            raise TypeError(f"shard_work must be True, False or a DeviceMesh, got {shard_work!r}")
        settings = Settings(
            total_steps, alpha, beta, q, layout, min_ndim, history_dtype, refresh_every, foreach,
            fused,
        )  # fmt: skip
        defaults = {"smi": True, **settings.in_group(), "smi_step": 0}
        _smi_settings.check_group(defaults)
        complete = [_smi_settings.completed(g, defaults, base.defaults) for g in base.param_groups]
        for group, settled in zip(base.param_groups, complete, strict=True):
            group.update(settled)
        super().__init__(base, defaults)
        self.shard_work = shard_work

    @classmethod
    def preset(
        cls, name: str, base: Optimizer, total_steps: int | None = None, **changes: Any
    ) -> SMI:
        """SMI with the settings that section 3.6 of the paper advises.

        What a preset does not name stays at the defaults: beta 0.99, q 0.25, cosine alpha from 0.1
        to 0.5.

        - ``"adamw"``: the defaults (3.6.4, AdamW: the most tested).
        - ``"adam"``: beta 0.995 (3.6.4, Adam: slightly higher beta for stability).
        - ``"sgd"``: beta 0.9, q 0.3, linear alpha from 0.1 to 0.4 (3.6.4, SGD with momentum).
        - ``"lion"``: q 0.4, linear alpha from 0.1 to 0.3 (3.6.4, Lion; alpha's shape is ours).
        - ``"noisy"``: q 0.5 (3.6.1: very noisy gradients or small batches).
        - ``"stable-tasks"``: q 0.15 (3.6.1: well-conditioned problems with large batches).
        - ``"stable-gradients"``: beta 0.999 (3.6.2: well-conditioned landscapes).
        - ``"dynamic"``: beta 0.95 (3.6.2: rapidly changing gradient patterns).
        - ``"conservative"``: linear alpha from 0.1 to 0.3 (3.6.3: sensitive models, first trials).
        - ``"aggressive"``: cosine alpha from 0.1 to 0.7 (3.6.3: very noisy gradients, with care).

        Args:
            name: one of the above.
            base: the optimizer that takes the steps.
            total_steps: the number of steps of the training; every preset's alpha needs it.
            changes: settings of SMI that replace the preset's.
        """
        if name not in PRESETS:
            raise ValueError(f"name must be one of {', '.join(PRESETS)}, got {name!r}")
        return cls(base, total_steps, **{**PRESETS[name], **changes})

    def add_param_group(self, param_group: Group) -> None:
        """Add a group. Its ``alpha`` goes on from the step that training has come to."""
        _checks.group(param_group)
        defaults = {key: self.defaults[key] for key in ("smi", *KEYS)}
        defaults["smi_step"] = max(group["smi_step"] for group in self.param_groups)
        complete = _smi_settings.completed(param_group, defaults, self.base.defaults)
        self.base.add_param_group(complete)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch._compile._disable_dynamo  # torch.compiler.disable would import all of dynamo
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Filter the gradients, then take the base's step.

        ``torch.compile`` leaves this method as it is, since it does not compile complex numbers.

        Args:
            closure: evaluates the model again and returns the loss. A base may ask it for several
                gradients. All are filtered by the mask and the alpha that the first one gets.
        """
        _checks.not_captured("SMI")
        groups = [(group, self._settings(group)) for group in self.param_groups]
        # A first history joins the state after the base has made entries of its own.
        first: dict[Tensor, State] = {}
        may_repeat = closure is not None
        loss = self._step_base(closure, before=partial(self._filter, groups, first, may_repeat))
        for param, state in first.items():
            self.state[param].update(state)
        for group, settings in groups:
            group["smi_step"] += 1
            if may_repeat and settings.refresh_every == 1:
                for param in group["params"]:
                    self.state.get(param, {}).pop("smi_mask", None)
        return loss

    @staticmethod
    def alpha(group: Group, ahead: int = 1) -> float:
        """The part α of the filtered gradient in a group at a step near the present one.

        Args:
            group: one of ``param_groups``.
            ahead: how many steps ahead: 1 for the coming step, 0 for the last one.
        """
        step = group["smi_step"] + ahead
        return schedules.value_at(group["smi_alpha"], step, group["smi_total_steps"])

    @staticmethod
    def filters(group: Group, param: Tensor) -> bool:
        """Whether the gradients of a parameter are filtered; ``group`` is the parameter's."""
        least = max(group["smi_min_ndim"], 1)
        return bool(group["smi"]) and param.ndim >= least and param.numel() > 0

    def coming_mask(self, group: Group, param: Tensor, magnitudes: Tensor) -> Tensor | None:
        """The mask that the coming step uses, True where a coefficient is kept. Changes nothing.

        Args:
            group: the parameter's.
            param: a parameter that is filtered.
            magnitudes: those of its gradient's half spectrum, finite.

        Returns:
            n x (d//2 + 1). ``None`` where processes share the history: all of them would have to
            take part in making the mask.
        """
        state = self.state.get(param, {})
        history = state.get("smi_history")
        if hasattr(history, "device_mesh"):
            return None
        if not _makes_mask(state, group):
            return cast(Tensor, state["smi_mask"])
        H = magnitudes
        if history is not None:
            H = smi_update.averaged(history.to(H.dtype), magnitudes, group["smi_beta"])
        return quantile.removed(Grid.of(param, group["smi_layout"]), H, group["smi_q"]) == 0

    def _settings(self, group: Group) -> Settings:
        """The group's settings. They are checked where they have changed since the last step."""
        settings = Settings.of(group)
        # A key that was added may be a misspelt setting.
        seen = settings, group["smi"], len(group)
        if seen != self._checked.get(id(group)):
            _smi_settings.check_group(group)
            self._checked[id(group)] = seen
        return settings

    @torch.no_grad()
    def _filter(
        self,
        groups: list[tuple[Group, Settings]],
        first: dict[Tensor, State],
        may_repeat: bool,
        evaluation: int,
    ) -> None:
        """Filter the gradients of one of the step's evaluations, counted from 0."""
        work = [(group, settings, self._filtered(group)) for group, settings in groups]
        if not any(params for _, _, params in work):
            _smi_settings.warn_of_nothing(self.param_groups)
        exchanging = []
        for group, settings, params in work:
            # A later evaluation has a decay of 1: H stays, so it gives the same mask again. Where H
            # is rounded when it is stored, it would not, and the mask is kept.
            beta = settings.beta if evaluation == 0 else 1.0
            rounded = settings.history_dtype is not None
            keeps_masks = settings.refresh_every > 1 or (may_repeat and rounded)
            update = Update(self.alpha(group), beta, settings.q, keeps_masks)
            entries = []
            for param in params:
                state: State = self.state.get(param, {})
                if "smi_history" not in state:
                    state = first.setdefault(param, {})
                if evaluation == 0 and _makes_mask(state, group):
                    state.pop("smi_mask", None)
                layout = settings.layout
                sharing = self._sharing(param, layout)
                entries.append(Entry.of(param, state, settings.history_dtype, layout, sharing))
            path_of = partial(_path, settings=settings)
            for path, batch in smi_update.batches(entries, path_of):
                coroutine = path(batch, update)
                if coroutine is not None:
                    exchanging.append(coroutine)
        if exchanging:
            from bandwise.optim._paths import sharding

            sharding.interleaved(exchanging)

    def _filtered(self, group: Group) -> list[Tensor]:
        """The parameters of a group whose gradients this step filters."""
        params = [p for p in group["params"] if p.grad is not None] if group["smi"] else []
        for param in params:
            if param.grad.layout != torch.strided:
                raise RuntimeError(
                    "SMI cannot filter a sparse gradient: use a dense one (sparse=False in "
                    "Embedding), or put the parameter in a group with smi=False; shape "
                    f"{tuple(param.shape)}"
                )
        return [param for param in params if self.filters(group, param)]

    def _sharing(self, param: Tensor, layout: Layout) -> Sharing | None:
        """How processes share the work on a parameter's gradient, if they do."""
        if not self.shard_work and not hasattr(param, "device_mesh"):
            return None
        # This import brings in torch.distributed.tensor, which takes a second.
        from bandwise.optim._paths import smi_sharded

        if self._sharings is None:
            self._sharings = smi_sharded.Sharings(self.shard_work)
        return self._sharings.of(param, layout)

    def _update(self, groups: list[Group]) -> None:
        if not all("smi_step" in group for group in groups):
            raise ValueError(
                "the state_dict is not an SMI's: load it into the base before that is wrapped"
            )
        _smi_settings.add_later_settings(groups)
        _state.check_groups(groups, _smi_settings.check_group)

    def _loaded(self, key: Any, name: str, value: Any, param: Tensor, group: Group) -> Tensor:
        if hasattr(value, "device_mesh"):
            from bandwise.optim._paths import smi_sharded

            smi_sharded.check_share(value)
        layout = group["smi_layout"]
        _state.check_shape(key, name, value, Grid.of(param, layout).shape)
        return smi_update.placed(value, param, self._sharing(param, layout))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "shard_work": self.shard_work}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a pickle, also one of an older version."""
        super().__setstate__(state)
        # By the id of a group: what was checked last.
        self._checked: dict[int, tuple[Settings, bool, int]] = {}
        _smi_settings.add_later_settings([self.defaults, *self.param_groups])
        for entries in self.state.values():
            if "smi_history" in entries:
                smi_update.mark_missing(entries["smi_history"])


def _single_tensor(
    grad: Tensor, grid: Grid, H: Tensor, mask: Tensor | None, update: Update
) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 1, lines 8 to 29: gradient, H and mask after a step, from those before it.

    NaN in H stands for "None". A mask that is given is used; otherwise a new one is made.
    """
    alpha, beta, q, _ = update
    G = grid.matrix(grad)  # lines 9, 10
    G_hat = grid.transform(G)  # line 12
    M, H = grid.magnitude(G_hat), H.to(G.real.dtype)  # line 13
    finite = M.amax().isfinite()
    moved = torch.where(H.isnan(), M, beta * H + (1 - beta) * M)  # lines 15 to 19
    H = torch.where(finite, moved, H)
    if mask is None:
        tau = grid.threshold(H, q)  # line 21
        mask = ~(H < tau)  # line 22; all True where there is no H yet
    if not update.blends:
        return grad, H, mask
    G_filtered = grid.inverse(G_hat * mask)  # lines 23, 25
    blended = alpha * G_filtered + (1 - alpha) * G  # line 29
    return torch.where(finite, blended, G).reshape(grad.shape), H, mask  # line 26


def _one_by_one(entries: list[Entry], update: Update) -> None:
    """The readable path: Algorithm 1 for one gradient after another."""
    for entry in entries:
        grad, grid, _, history, mask, _ = entry
        filtered, H, mask = _single_tensor(grad, grid, history, mask, update)
        smi_update.store(H, entry.history)
        if update.keeps_masks:
            entry.keep(mask)
        entry.grad.copy_(filtered)


def _path(entry: Entry, settings: Settings) -> Path:
    """The fastest path that can take an entry."""
    if entry.sharing is not None:
        from bandwise.optim._paths import smi_sharded

        return smi_sharded.step
    if settings.foreach is False:
        return _one_by_one
    if settings.fused and smi_fused.takes(entry):
        return smi_fused.step
    return smi_batched.step


def _makes_mask(state: State, group: Group) -> bool:
    """Whether the coming step makes a new mask for a parameter."""
    return "smi_mask" not in state or group["smi_step"] % group["smi_refresh_every"] == 0
