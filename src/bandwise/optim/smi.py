"""Spectral Momentum Integration (SMI): any optimizer, fed with spectrally filtered gradients.

Huang, Chen, Zheng, "Spectral momentum integration: hybrid optimization of frequency and time domain
gradients", Front. Artif. Intell. 8:1628943, 2025. Section, equation and line numbers refer to it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from bandwise.optim import _checks, schedules
from bandwise.optim import _spectrum as spectrum
from bandwise.optim import _state as _checkpoint
from bandwise.optim._wrap import Around, Group, State
from bandwise.optim.schedules import Cosine, Linear, Schedule

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from bandwise.optim._paths.sharding import Layout, Layouts

# What section 3.6 advises, as differences from the defaults, which are Algorithm 1's inputs.
_PRESETS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adam": {"beta": 0.995},
    "sgd": {"beta": 0.9, "q": 0.3, "alpha": Linear(0.1, 0.4)},
    "lion": {"q": 0.4, "alpha": Linear(0.1, 0.3)},
    "noisy": {"q": 0.5},
    "stable": {"q": 0.15, "beta": 0.999},
    "dynamic": {"beta": 0.95},
    "conservative": {"alpha": Linear(0.1, 0.3)},
    "aggressive": {"alpha": Cosine(0.1, 0.7)},
}
_STATE_KEYS = frozenset({"smi_history", "smi_mask"})
_SETTINGS = (
    *("smi_total_steps", "smi_alpha", "smi_beta", "smi_q", "smi_min_ndim"),
    *("smi_history_dtype", "smi_refresh_every", "smi_foreach", "smi_fused", "smi_step"),
)


class SMI(Around):
    """Filters every gradient in the frequency domain, then lets ``base`` take its step.

    Per parameter with gradient G, laid out as a matrix of n x d (Algorithm 1):

        Ĝ  = fft2(G),  M = |Ĝ|
        H  ← β H + (1 - β) M            H = M at the first step
        τ  = quantile(H, q)
        G' = ifft2(Ĝ ⊙ [H ≥ τ]).real
        G  ← α_t G' + (1 - α_t) G

    A tensor of more than two dimensions becomes ``(shape[0], rest)``, a vector one row. The
    gradients are changed in place: after ``step()`` they are the blended ones.

    Use it as the optimizer: it shares ``param_groups`` and ``state`` with ``base``, and everything
    that takes an optimizer takes it. Call ``step`` and ``zero_grad`` on it, not on ``base``.

    ``alpha``, ``beta``, ``q``, ``min_ndim``, ``history_dtype``, ``refresh_every`` and
    ``total_steps`` may differ by parameter group under the keys ``smi_alpha``, ``smi_beta`` and so
    on, in the groups given to ``base`` or to ``add_param_group``, and may be changed there at
    any time. A group with ``smi=False`` is not filtered.

    Gradients with inf or NaN go to ``base`` as they are and leave the history alone. float16 and
    bfloat16 gradients are filtered in float32. Complex ones are filtered by their whole spectrum.

    Args:
        base: the optimizer that takes the steps.
        total_steps: T, the number of steps of the training, in which ``alpha`` runs its
            course; after it ``alpha`` stays at its end. Not needed for a constant ``alpha``.
        alpha: α_t, the part of the filtered gradient, a number or a schedule within
            [0, 1].
        beta: β, the decay of the magnitudes' moving average, in [0, 1).
        q: the fraction of coefficients that is removed, in [0, 1]. 0 removes none.
        min_ndim: tensors of fewer dimensions are not filtered. The paper filters all (1).
        history_dtype: floating dtype that H is stored in, ``None`` for the dtype it is
            computed in. ``torch.bfloat16`` halves its memory (section 3.5.2).
        refresh_every: the mask [H ≥ τ] is made anew every so many steps; the history
            is updated at each.
        foreach: whether gradients are filtered in batches by the fast path (``None``, ``True``) or
            one by one as the equations say (``False``); the results differ by rounding. What
            processes share is always filtered in batches.
        fused: whether the fast path takes, between the two transforms, kernels in Triton that find
            the threshold without a sort. They are for CUDA GPUs, for contiguous gradients of
            float32, bfloat16 and float16 that no processes share, and for ``refresh_every=1``; all
            else is filtered as without it.
        shard_work: for parameters of which every process has all, as those of
            ``DistributedDataParallel``: each filters its share and they exchange the results
            (``True``: all processes; or a ``DeviceMesh`` of those that do). Otherwise each filters
            everything and nothing is exchanged. It is no part of a ``state_dict``. Sharded
            parameters (``DTensor``, of ``fully_shard`` or tensor parallel) are always filtered by
            those that share them.

    ``state[param]`` holds, beside what ``base`` keeps there, ``smi_history``: H, of the half
    spectrum, n x (d//2 + 1), -1 before the first finite gradient; and ``smi_mask``: the mask, where
    ``refresh_every`` > 1. Where processes share the work these are ``DTensor`` s of which each has
    its columns, and what one process alone saves is its share: save with
    ``torch.distributed.checkpoint``.

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

    _state_keys = _STATE_KEYS
    shard_work: bool | DeviceMesh = False
    _layouts: Layouts | None = None

    def __init__(
        self,
        base: Optimizer,
        total_steps: int | None = None,
        *,
        alpha: float | Schedule = Cosine(0.1, 0.5),
        beta: float = 0.99,
        q: float = 0.25,
        min_ndim: int = 2,
        history_dtype: torch.dtype | None = None,
        refresh_every: int = 1,
        foreach: bool | None = None,
        fused: bool | None = None,
        shard_work: bool | DeviceMesh = False,
    ) -> None:
        if not isinstance(base, Optimizer):
            raise TypeError(f"base must be a torch.optim.Optimizer, got {type(base).__name__}")
        if isinstance(base, SMI):
            raise TypeError("base must be an optimizer that is not filtered yet, got SMI")
        if any("smi_step" in group for group in base.param_groups):
            # Its groups have the settings of the SMI before, which would win over these.
            raise ValueError("base is filtered already: make a new optimizer to wrap it anew")
        if not isinstance(shard_work, bool) and not hasattr(shard_work, "get_coordinate"):
            raise TypeError(f"shard_work must be True, False or a DeviceMesh, got {shard_work!r}")
        defaults = {
            "smi": True,
            "smi_total_steps": total_steps,
            "smi_alpha": alpha,
            "smi_beta": beta,
            "smi_q": q,
            "smi_min_ndim": min_ndim,
            "smi_history_dtype": history_dtype,
            "smi_refresh_every": refresh_every,
            "smi_foreach": foreach,
            "smi_fused": fused,
            "smi_step": 0,
        }
        _check_group(defaults)
        groups = [{**defaults, **group} for group in base.param_groups]
        for group in groups:
            _check_group(group)
            _warn_of_misnamed(group, base.defaults)
        for group, complete in zip(base.param_groups, groups, strict=True):
            group.update(complete)
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
        - ``"sgd"``: beta 0.9, q 0.3, linear alpha from 0.1 to 0.4 (3.6.4, SGD with momentum: better
          compatibility).
        - ``"lion"``: q 0.4, linear alpha from 0.1 to 0.3 (3.6.4, Lion: experimental, start very
          conservative; alpha's shape is ours).
        - ``"noisy"``: q 0.5 (3.6.1: very noisy gradients or small batches).
        - ``"stable"``: q 0.15, beta 0.999 (3.6.1, 3.6.2: well-conditioned problems with large
          batches).
        - ``"dynamic"``: beta 0.95 (3.6.2: rapidly changing gradient patterns).
        - ``"conservative"``: linear alpha from 0.1 to 0.3 (3.6.3: sensitive models or initial
          experiments).
        - ``"aggressive"``: cosine alpha from 0.1 to 0.7 (3.6.3: only for very noisy gradients,
          watched carefully).

        Args:
            name: one of the above.
            base: the optimizer that takes the steps.
            total_steps: the number of steps of the training; every preset's alpha needs it.
            changes: settings of SMI that replace the preset's.
        """
        if name not in _PRESETS:
            raise ValueError(f"name must be one of {', '.join(_PRESETS)}, got {name!r}")
        return cls(base, total_steps, **{**_PRESETS[name], **changes})

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, filtered as the others are unless it says otherwise (``smi_q`` and so on).

        Its ``alpha`` goes on from the step that training has come to.
        """
        _checks.group(param_group)
        settings = {key: value for key, value in self.defaults.items() if key.startswith("smi")}
        settings["smi_step"] = max(g["smi_step"] for g in self.param_groups)
        complete = {**settings, **param_group}
        _check_group(complete)
        _warn_of_misnamed(complete, self.base.defaults)
        self.base.add_param_group(complete)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch._compile._disable_dynamo  # torch.compiler.disable would import all of dynamo
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Filter the gradients, then take the base's step.

        In what ``torch.compile`` compiles the step stays as it is: there is no code generation for
        complex numbers.

        Args:
            closure: evaluates the model again and returns the loss; every gradient that the base
                asks it for is filtered.
        """
        _checks.not_captured("SMI")
        for group in self.param_groups:
            if "smi_step" not in group:
                raise ValueError(
                    "a parameter group has no settings of SMI: add groups to the SMI, not to its "
                    f"base; it has {', '.join(map(str, group))}"
                )
            _check_group(group)
        # Optimizers create their state where they find none, so a parameter's first history joins
        # only after the base's step.
        first: dict[Tensor, State] = {}
        if closure is None:
            self._filter(first)
            loss = self._step_base()
        else:

            def filtered() -> float:
                value = closure()
                self._filter(first)
                return value

            loss = self._step_base(filtered)
        for param, state in first.items():
            self.state[param].update(state)
        for group in self.param_groups:
            group["smi_step"] += 1
        return loss

    @torch.no_grad()
    def _filter(self, first: dict[Tensor, State]) -> None:
        work = [(group, list(_filtered(group))) for group in self.param_groups]
        if not any(params for _, params in work):
            _warn_of_nothing(self.param_groups)
        shared = []
        for group, params in work:
            grads = [_writable(param) for param in params]
            states = [self._state(param, first) for param in params]
            layouts = [self._layout(param) for param in params]
            for some, their, layout in _batches(grads, states, group, layouts):
                if layout is not None:
                    shared.append(_shared_tensors(some, their, group, layout))
                elif group["smi_foreach"] is False:
                    for grad, state in zip(some, their, strict=True):
                        _single_tensor(grad, state, group)
                elif _fusable(some, their, group):
                    _fused_tensors(some, their, group)
                else:
                    _multi_tensor(some, their, group)
        if shared:
            from bandwise.optim._paths import sharding as _sharded

            _sharded.interleaved(shared)

    def _state(self, param: Tensor, first: dict[Tensor, State]) -> State:
        """Where a parameter's history is, or will be."""
        state: State = self.state.get(param, {})
        return state if "smi_history" in state else first.setdefault(param, {})

    def _layout(self, param: Tensor) -> Layout | None:
        """Where the parts of a parameter's gradient lie, if other ranks have some of the work."""
        if not self.shard_work and not hasattr(param, "device_mesh"):
            return None
        # Brings in torch.distributed.tensor, which takes a second.
        from bandwise.optim._paths import sharding as _sharded

        if self._layouts is None:
            self._layouts = _sharded.Layouts(self.shard_work)
        return self._layouts.of(param)

    def _fit(
        self, groups: list[Group], state: dict[Any, State], matched: list[tuple[Any, Tensor]]
    ) -> None:
        for group in groups:
            if "smi_step" not in group:
                raise ValueError(
                    "the state_dict is not an SMI's: load it into the base before that is wrapped"
                )
            group.setdefault("smi_fused", None)
        _checkpoint.check_groups(groups, _check_group)
        for key, param in matched:
            for name in _STATE_KEYS & state.get(key, {}).keys():
                if hasattr(state[key][name], "device_mesh"):
                    from bandwise.optim._paths import sharding as _sharded

                    _sharded.check_share(state[key][name])
                right = spectrum.spectrum_shape(param.shape, param.is_complex())
                _checkpoint.check_shape(key, name, state[key][name], right)

    def _placed(self, value: Tensor, param: Tensor) -> Tensor:
        layout = self._layout(param)
        if layout is None:
            return super()._placed(value, param)
        with torch.no_grad():
            return layout.placed(value, param.device)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "shard_work": self.shard_work}


def _single_tensor(grad: Tensor, state: State, group: Group) -> None:
    """Algorithm 1, lines 8 to 29, for one gradient, in place."""
    G = spectrum.matrix(grad)  # (7)
    G_hat = spectrum.transform(G)  # (8)
    M = spectrum.magnitude(G_hat, G)  # (9)
    finite = M.amax().isfinite()

    H = _updated_history([state], M[None], finite, group)[0]  # (10)
    if _needs_mask(state, group):
        mask = spectrum.threshold(H, group["smi_q"], G) <= H  # (11), (12)
        _keep_masks(~mask[None], [state], group)
    else:
        mask = state["smi_mask"]

    alpha = _alpha(group)
    if alpha == 0 or group["smi_q"] == 0:
        return  # Exactly the gradient as it was, free of the transforms' rounding.
    G_filtered = spectrum.inverse(G_hat * mask, G)  # (13), (14)
    blended = torch.where(finite, G.lerp(G_filtered, alpha), G)  # (15)
    grad.copy_(blended.view(grad.shape))


def _multi_tensor(grads: list[Tensor], states: list[State], group: Group) -> None:
    """``_single_tensor`` for gradients of one shape, in one transform.

    Mask and blend are one multiplication: a removed coefficient is left with 1 - alpha of itself.
    """
    G = _stacked([spectrum.matrix(grad) for grad in grads])
    G_hat = spectrum.transform(G)
    if spectrum.at_hand(G):
        M = spectrum.quick_magnitude(G_hat, G)
        finite = None
        if not spectrum.squares_fit(M.flatten(1).amax(1)):
            for grad, state in zip(grads, states, strict=True):
                _single_tensor(grad, state, group)
            return
    else:
        M = spectrum.magnitude(G_hat, G)
        finite = M.amax((-2, -1), keepdim=True).isfinite()

    H = _updated_history(states, M, finite, group)
    # M has done its work: its memory becomes 1 where a coefficient is removed.
    if _needs_mask(states[0], group):
        removed = spectrum.removed(H, group["smi_q"], G, out=M)
        _keep_masks(removed, states, group)
    else:
        removed = _removed_before(states, out=M)

    alpha = _alpha(group)
    if alpha == 0 or group["smi_q"] == 0:
        return
    G_hat *= torch.add(M.new_ones(()), removed, alpha=-alpha, out=removed)
    blended = spectrum.inverse(G_hat, G)
    if finite is not None:
        blended = torch.where(finite, blended, G)
    for grad, result in zip(grads, blended, strict=True):
        grad.copy_(result.view(grad.shape))


# What the kernels are for; they count parts of complex numbers in 32 bits.
_FUSED_DEVICES = {"cuda"}
_FUSED_DTYPES = {torch.float32, torch.bfloat16, torch.float16}
_FUSED_LIMIT = 1 << 30


def _fusable(grads: list[Tensor], states: list[State], group: Group) -> bool:
    """Whether ``_fused_tensors`` can and should take gradients of one shape and dtype."""
    if not group["smi_fused"] or grads[0].device.type not in _FUSED_DEVICES:
        return False
    dtypes = {group["smi_history_dtype"] or torch.float32, grads[0].dtype}
    dtypes |= {state["smi_history"].dtype for state in states if "smi_history" in state}
    return (
        dtypes <= _FUSED_DTYPES
        and group["smi_refresh_every"] == 1
        and all(grad.is_contiguous() for grad in grads)
        and grads[0].numel() < _FUSED_LIMIT
    )


def _fused_tensors(grads: list[Tensor], states: list[State], group: Group) -> None:
    """``_multi_tensor`` in kernels."""
    from bandwise.optim._paths import smi_triton as smi_gpu

    shape, q, alpha = spectrum.matrix_shape(grads[0].shape), group["smi_q"], _alpha(group)
    half = spectrum.spectrum_shape(grads[0].shape, is_complex=False)
    _begin_histories(states, grads[0].new_empty(half, dtype=torch.float32), group)
    # All of one dtype: what was loaded may differ from what is made.
    by_dtype = defaultdict(list)
    for grad, state in zip(grads, states, strict=True):
        by_dtype[state["smi_history"].dtype].append((grad, state["smi_history"]))
    for pairs in by_dtype.values():
        # Kernels run on the current device, wherever their tensors are.
        with torch.cuda.device_of(grads[0]):  # type: ignore[no-untyped-call]
            smi_gpu.step(
                pairs,
                shape,
                place=spectrum.order(q, math.prod(shape)),
                alpha=alpha,
                beta=group["smi_beta"],
                blend=alpha > 0 and q > 0,
            )


def _shared_tensors(
    grads: list[Tensor], states: list[State], group: Group, layout: Layout
) -> Iterator[None]:
    """``_multi_tensor`` by all ranks that share gradients of one layout: a coroutine.

    G are the rows that this rank transforms; of spectrum and history it has its columns.
    """
    from bandwise.optim._paths import sharding as _sharded

    rows = yield from layout.rows(grads)
    G = rows.to(spectrum.computing_dtype(rows.dtype))
    G_hat = yield from layout.transform(G)
    M = layout.magnitude(G_hat)
    finite = yield from layout.finite(M)

    parts = [
        {key: _sharded.local(state[key]) for key in _STATE_KEYS & state.keys()} for state in states
    ]
    H = _updated_history(parts, M, finite, group)
    if _needs_mask(states[0], group):
        # Before the first finite gradient H is -1, and nothing to be removed.
        H = H.clamp(min=0)
        tau = yield from layout.threshold(H, group["smi_q"])
        removed = torch.lt(H, tau, out=M)
        _keep_masks(removed, parts, group)
    else:
        removed = _removed_before(parts, out=M)
    for state, part in zip(states, parts, strict=True):
        state.update({key: layout.distributed(value) for key, value in part.items()})

    alpha = _alpha(group)
    if alpha == 0 or group["smi_q"] == 0:
        return
    G_hat *= torch.add(M.new_ones(()), removed, alpha=-alpha, out=removed)
    blended = yield from layout.inverse(G_hat, G)
    blended = torch.where(finite, blended, G).to(rows.dtype)
    results = yield from layout.spread(blended)
    for grad, result in zip(grads, results, strict=True):
        _sharded.local(grad).copy_(result)


# Larger batches leave a processor's cache, and cost more than they save; on other devices, where
# calls cost more, they only take memory.
_CPU_BATCH_NUMEL = 1 << 17
_BATCH_NUMEL = 1 << 25
# A rank's part of the gradients that are exchanged together: large enough for a network, and small,
# as two such batches are under way at a time, each with nine times its size.
_SHARED_BATCH_NUMEL = 1 << 22


def _batches(
    grads: list[Tensor], states: list[State], group: Group, layouts: list[Layout | None]
) -> Iterator[tuple[list[Tensor], list[State], Layout | None]]:
    """Gradients that can share a transform, their states and their layout."""
    alike = defaultdict(list)
    for i, (grad, state, layout) in enumerate(zip(grads, states, layouts, strict=True)):
        shape = spectrum.matrix_shape(grad.shape)
        alike[layout, shape, grad.dtype, grad.device, _needs_mask(state, group)].append(i)
    for (layout, shape, _, device, _), members in alike.items():
        if layout is not None:
            limit = max(1, _SHARED_BATCH_NUMEL // layout.room)
        else:
            most = _CPU_BATCH_NUMEL if device.type == "cpu" else _BATCH_NUMEL
            limit = max(1, most // math.prod(shape))
        for start in range(0, len(members), limit):
            batch = members[start : start + limit]
            yield [grads[i] for i in batch], [states[i] for i in batch], layout


def _stacked(matrices: list[Tensor]) -> Tensor:
    """(n, d) each -> (batch, n, d); without a copy where there is one."""
    return matrices[0][None] if len(matrices) == 1 else torch.stack(matrices)


def _updated_history(states: list[State], M: Tensor, finite: Tensor | None, group: Group) -> Tensor:
    """H after this step's magnitudes (batch, n, m); where they are not finite, as it was."""
    _begin_histories(states, M[0], group)
    stored = [state["smi_history"] for state in states]
    H = _stacked(stored).to(M.dtype)
    # In the stored history itself, where that is one of the right dtype.
    if finite is None and bool((H[:, 0, 0] >= 0).all()):
        H.lerp_(M, 1 - group["smi_beta"])
    else:
        weight = torch.where(H[:, :1, :1] < 0, H.new_ones(()), 1 - group["smi_beta"])
        if finite is not None:
            M = torch.where(finite, M, H)
        H.lerp_(M, weight)
    for history, new in zip(stored, H, strict=True):
        if history.data_ptr() != new.data_ptr():
            # What a smaller dtype cannot hold must not become inf.
            largest = torch.finfo(history.dtype).max
            history.copy_(new.clamp(max=largest) if largest < torch.finfo(new.dtype).max else new)
    return H


def _begin_histories(states: list[State], like: Tensor, group: Group) -> None:
    """Make the histories that are not there; in rows, as the kernels read them."""
    for state in states:
        if "smi_history" not in state:
            dtype = group["smi_history_dtype"] or like.dtype
            state["smi_history"] = like.new_full(like.shape, -1, dtype=dtype)


def _keep_masks(removed: Tensor, states: list[State], group: Group) -> None:
    """For the steps that make none, if there are such."""
    if group["smi_refresh_every"] > 1:
        for state, mask in zip(states, removed == 0, strict=True):
            state["smi_mask"] = mask
    else:
        for state in states:
            state.pop("smi_mask", None)


def _removed_before(states: list[State], out: Tensor) -> Tensor:
    """1 where the masks kept remove a coefficient."""
    return torch.logical_not(_stacked([state["smi_mask"] for state in states]), out=out)


def _needs_mask(state: State, group: Group) -> bool:
    return "smi_mask" not in state or group["smi_step"] % group["smi_refresh_every"] == 0


def _alpha(group: Group) -> float:
    step = group["smi_step"] + 1
    return schedules.value_at(group["smi_alpha"], step, group["smi_total_steps"])


def _filtered(group: Group) -> Iterator[Tensor]:
    """The parameters of a group whose gradients are to be filtered."""
    for param in group["params"]:
        if param.grad is None or not group["smi"]:
            continue
        if param.grad.layout != torch.strided:
            raise RuntimeError(
                "SMI cannot filter a sparse gradient: use a dense one (sparse=False in Embedding), "
                f"or put the parameter in a group with smi=False; shape {tuple(param.shape)}"
            )
        if param.ndim >= max(group["smi_min_ndim"], 1) and param.numel() > 0:
            yield param


def _warn_of_nothing(groups: list[Group]) -> None:
    """A user who wraps an optimizer expects that something is filtered."""
    least = {
        group["smi_min_ndim"]
        for group in groups
        if group["smi"] and any(param.grad is not None for param in group["params"])
    }
    if least:
        _checks.warn(
            "SMI filtered nothing: every gradient is empty or has fewer dimensions than "
            f"min_ndim={min(least)}. min_ndim=1 filters vectors too; what FSDP1 and ZeRO have "
            "flattened has lost its frequencies"
        )


def _writable(param: Tensor) -> Tensor:
    """The gradient, in memory of its own if it was one value shown in many places."""
    if hasattr(param, "device_mesh"):
        from bandwise.optim._paths import sharding as _sharded

        _sharded.aligned(param)
    grad = cast(Tensor, param.grad)
    expanded = any(n > 1 and s == 0 for n, s in zip(grad.shape, grad.stride(), strict=True))
    if expanded or grad.is_inference():
        param.grad = grad = grad.clone()
    return grad


def _warn_of_misnamed(group: Group, known: Group) -> None:
    """A setting of SMI without its prefix is one of the base, if that knows it."""
    names = ("alpha", "beta", "q", "min_ndim", "history_dtype", "refresh_every")
    misnamed = [name for name in names if name in group and name not in known]
    if misnamed:
        _checks.warn(
            f"a parameter group's {', '.join(misnamed)} changes nothing: SMI's settings are called "
            f"{', '.join('smi_' + name for name in misnamed)} there"
        )


def _check_group(group: Group) -> None:
    """Raise unless a complete group's SMI settings are of the right types and ranges."""
    unknown = [key for key in group if str(key).startswith("smi_") and key not in _SETTINGS]
    if unknown:
        raise ValueError(f"a group's settings must be among {', '.join(_SETTINGS)}; got {unknown}")
    _checks.flag("smi", group["smi"])
    schedules.check("alpha", group["smi_alpha"], group["smi_total_steps"], low=0, high=1)
    _checks.number("beta", group["smi_beta"], low=0, below=1)
    _checks.number("q", group["smi_q"], low=0, high=1)
    _checks.whole("min_ndim", group["smi_min_ndim"], low=0)
    _checks.whole("refresh_every", group["smi_refresh_every"], low=1)
    _checks.path(group["smi_foreach"], group["smi_fused"])
    dtype = group["smi_history_dtype"]
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"history_dtype must be a torch.dtype or None, got {dtype!r}")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"history_dtype must be a floating dtype, got {dtype}")
