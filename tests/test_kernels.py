"""The Triton kernels without a GPU. The interpreter runs SMI's, and all are compiled for a GPU."""

import importlib
import subprocess
import sys

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bandwise.optim import smi
from bandwise.optim._paths.smi_update import Entry, Update

# Kernels are compiled as torch compiles its own for an H100. This runs outside of pytest, because
# pytest interprets kernels.
COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bandwise.optim._paths import nsf_triton as nsf_gpu
from bandwise.optim._paths import smi_triton as smi_gpu

CONSTANTS = {"BLOCK": 2048, "EVEN": True, "SHIFT": 16, "POWERED": True, "LIKE_ADAM": True,
             "COUPLED": True, "MOST": 100.0, "COMPUTING": tl.float32}
WHOLE = {"n", "m", "numel", "tensors"}
REAL = {"alpha", "weight", "largest"}
DOUBLE, LONG = {"squares"}, {"addresses", "numels", "owners", "starts"}
SHORT = {"flags", "tallies", "found", "left"}


def kind(name):
    if name.isupper() and name != "M":
        return "constexpr"
    for names, told in ((WHOLE, "i32"), (REAL, "fp32"), (DOUBLE, "*fp64"), (LONG, "*i64"),
                        (SHORT, "*i32")):
        if name in names:
            return told
    return "*fp32"


def compiled(kernel, dtype, keep):
    given = {**CONSTANTS, **dict.fromkeys(("DTYPE", "KEPT", "STORED"), dtype), "KEEP": keep}
    if kernel is nsf_gpu._applied:
        given["KEPT"] = keep
    signature = {name: kind(name) for name in kernel.arg_names}
    constants = {name: given[name] for name, told in signature.items() if told == "constexpr"}
    return triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32))


for module, names in ((nsf_gpu, ("_whole", "_measured", "_applied")),
                      (smi_gpu, ("_magnitudes", "_averaged", "_tallied", "_chosen", "_weighed",
                                 "_returned"))):
    for name in names:
        for dtype, keep in ((tl.float32, False), (tl.bfloat16, True), (tl.float16, True)):
            assert compiled(getattr(module, name), dtype, keep).asm["cubin"]
            print(name, dtype)
"""


@pytest.fixture(scope="module")
def kernels():
    pytest.importorskip("triton", reason="interprets the kernels for GPUs")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: its own tests run the kernels")
    return importlib.import_module("bandwise.optim._paths.smi_triton")


@given(
    st.sampled_from([(1, 5), (5, 1), (6, 8), (7, 9), (40, 31), (32, 64), (2, 2)]),
    st.integers(1, 3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.9, 0.99]),
    st.integers(0, 2**31),
)
# Shrinking an example takes minutes in Triton's interpreter.
@settings(max_examples=25, phases=(Phase.generate,))
def test_smi_s_kernels_filter_as_the_equations_say(
    kernels, shape, count, dtype, kept, q, alpha, beta, seed
):
    torch.manual_seed(seed)
    update = Update(alpha, beta, q, keeps_masks=False)
    states, right_states = ([{} for _ in range(count)] for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_BLOCK", 256)
        for step in range(4):
            # Magnitudes are distinct, so rounding does not change which coefficients are removed.
            grads = [torch.randn(shape).mul_(10.0**i).to(dtype) for i in range(count)]
            if step == 1:
                grads[-1][0, 0] = float("nan")
            right = [grad.clone() for grad in grads]
            smi._one_by_one(entries(right, right_states, kept), update)
            kernels.step(entries(grads, states, kept), update)
            for found, wanted in zip(grads, right, strict=True):
                eps = torch.finfo(dtype).eps
                size = wanted.float().nan_to_num().norm().item()
                torch.testing.assert_close(
                    found, wanted, rtol=8 * eps, atol=8 * eps * size, equal_nan=True
                )
            for state, right_state in zip(states, right_states, strict=True):
                history, right_history = state["smi_history"], right_state["smi_history"]
                # The interpreter truncates to bfloat16 instead of rounding.
                slack = 4 * torch.finfo(kept).eps
                largest = right_history.nan_to_num().abs().max()
                torch.testing.assert_close(
                    history, right_history, rtol=slack, atol=slack * largest, equal_nan=True
                )
                # So every step is compared with the equations separately.
                history.copy_(right_history)


def entries(grads, states, dtype):
    params = [torch.zeros_like(grad) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    return [Entry.of(param, state, dtype) for param, state in zip(params, states, strict=True)]


def test_all_kernels_compile_for_a_gpu(tmp_path):
    pytest.importorskip("triton", reason="compiles the kernels")
    environment = {"TRITON_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 27
