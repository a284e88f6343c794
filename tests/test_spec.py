"""The short texts that name optimizers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bandwise as bw
from bandwise.study import by_name, spec
from bandwise.tasks import Recipe

RECIPE = Recipe(steps=100, lr=1e-3)


def build(text, recipe=RECIPE):
    named = [("weight", torch.nn.Parameter(torch.zeros(4, 3)))]
    return by_name.build(spec.parse(text), named, recipe.lr, recipe)


def test_commas_separate_optimizers_and_options():
    text = "adamw,smi-adamw:q=0.5,beta=0.9, nsf:p=cyclic(0.5,-0.25,200),scale=sgd,my/o.py:make:k=1"
    adamw, smi, nsf, mine = spec.parse_list(text)
    assert (adamw.name, adamw.options) == ("adamw", {})
    assert (smi.text, smi.options) == ("smi-adamw:q=0.5,beta=0.9", {"q": 0.5, "beta": 0.9})
    assert nsf.options == {"p": bw.Cyclic(0.5, -0.25, 200), "scale": "sgd"}
    assert (mine.name, mine.options) == ("my/o.py:make", {"k": 1})


def test_values():
    options = spec.parse("x:a=(0.9,0.99),b=True,c=None,d='a,b',e=bfloat16,f=-1e-3").options
    assert options == {
        "a": (0.9, 0.99), "b": True, "c": None, "d": "a,b", "e": torch.bfloat16, "f": -1e-3,
    }  # fmt: skip
    options = spec.parse("nsf:maximize=false,fused=true,scale=none").options
    assert options == {"maximize": False, "fused": True, "scale": "none"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "name is missing"),
        ("nsf:p=cyclic(1", "key=value"),
        ("nsf:p", "key=value"),
        ("nsf:**x", "key=value"),
        ("nsf:p=cyclic(1,2)", "period"),
        ("nsf:p=cyclic(1,2,0)", "at least 2"),
        ("nsf:p=sine(1)", "schedule must be one of constant, linear, cosine, cyclic"),
        ("nsf:p=__import__('os').system('true')", "no number, word or schedule"),
        ("nsf:p=" + "(" * 500 + ")" * 500, "key=value"),
    ],
)
def test_what_cannot_be_read_says_so(text, says):
    with pytest.raises(ValueError, match=r".") as caught:
        spec.parse(text)
    assert says in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_parses_or_raises_value_error(text):
    try:
        parsed = spec.parse_list(text)
    except ValueError:
        return
    assert all(item.name for item in parsed)


def test_smi_options_go_to_smi_and_the_others_to_the_base():
    opt = build("smi-adamw:q=0.5,alpha=linear(0.1,0.9),weight_decay=0.3,lr=0.02")
    assert isinstance(opt.base, torch.optim.AdamW)
    group = opt.param_groups[0]
    assert group["smi_q"] == 0.5
    assert group["smi_alpha"] == bw.Linear(0.1, 0.9)
    assert group["smi_total_steps"] == 100
    assert (group["weight_decay"], group["lr"]) == (0.3, 0.02)


def test_what_both_know_goes_to_smi_with_its_prefix():
    group = build("smi-adamw:fused=true,smi_fused=false").param_groups[0]
    assert (group["fused"], group["smi_fused"], group["smi_foreach"]) == (True, False, None)
    group = build("smi-adamw:foreach=true,smi_foreach=false").param_groups[0]
    assert (group["foreach"], group["smi_foreach"], group["smi_fused"]) == (True, False, None)


def test_total_steps_of_smi_may_be_set_as_nsf_s():
    assert build("smi-adamw:total_steps=5").param_groups[0]["smi_total_steps"] == 5


def test_smi_takes_the_preset_of_its_base():
    assert build("smi-sgd").param_groups[0]["smi_q"] == 0.3
    assert build("smi-sgd").param_groups[0]["momentum"] == 0.9
    assert build("smi-nadam").param_groups[0]["smi_beta"] == 0.99
    assert build("smi-sgd:preset=noisy").param_groups[0]["smi_q"] == 0.5


def test_every_name_there_is_can_be_built_and_wrapped():
    for name in by_name.names():
        assert isinstance(build(name), torch.optim.Optimizer)
        assert isinstance(build(f"smi-{name}"), bw.SMI)


def test_the_recipe_reaches_those_that_take_it():
    recipe = Recipe(steps=10, lr=1e-3, betas=(0.8, 0.9), weight_decay=0.1)
    for name in ("adamw", "nsf"):
        group = build(name, recipe).param_groups[0]
        assert (group["betas"], group["weight_decay"]) == ((0.8, 0.9), 0.1)
    # Adam's and SGD's decay is coupled, so the same number has another effect.
    assert build("adam", recipe).param_groups[0]["weight_decay"] == 0
    assert build("nsf:betas=(0.5,0.6)", recipe).param_groups[0]["betas"] == (0.5, 0.6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("adamv", "name must be one of nsf"),
        ("adamw:moment=1", "no option 'moment'; its options are lr, betas, eps"),
        ("nsf:pp=3", "no option 'pp'; its options are lr, betas, eps, weight_decay, p, scale"),
        ("smi-adamw:qq=1", "no option 'qq'; its options are total_steps, alpha, beta, q, layout"),
        ("adamw:lr=abc", "lr must be a number, got 'abc'"),
        ("smi-adamw:q=2", "q must be at most 1, got 2"),
        ("nsf:p='a'", "p must be a number"),
        ("smi-smi-adamw", "base is filtered already"),
        ("smi-adamw:preset=fast", "must be one of adamw"),
        ("adamw:lr='1e-3'", "lr"),
    ],
)
def test_errors_name_the_optimizer(text, says):
    with pytest.raises(ValueError, match=r".") as caught:
        build(text)
    assert repr(text) in str(caught.value)
    assert says in str(caught.value)


def test_a_factory_of_the_user(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "def make(params, lr, total_steps, k=1):\n"
        "    opt = torch.optim.SGD(params, lr=lr * k)\n"
        "    opt.told = total_steps\n"
        "    return opt\n"
        "def plain(params, lr):\n"
        "    return torch.optim.SGD(params, lr)\n"
        "def wrong(params, lr):\n"
        "    return None\n"
    )
    opt = build(f"{file}:make:k=3")
    assert (opt.param_groups[0]["lr"], opt.told) == (3e-3, 100)
    assert build(f"{file}:plain").param_groups[0]["lr"] == 1e-3
    wrapped = build(f"smi-{file}:make:k=3,q=0.5")
    assert isinstance(wrapped, bw.SMI)
    assert (wrapped.param_groups[0]["lr"], wrapped.param_groups[0]["smi_q"]) == (3e-3, 0.5)
    assert wrapped.base.told == 100
    with pytest.raises(ValueError, match=r"must be a torch\.optim\.Optimizer, .* got None"):
        build(f"{file}:wrong")
    with pytest.raises(ValueError, match="defines no 'absent'"):
        build(f"{file}:absent")
