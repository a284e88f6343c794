"""The short texts that name optimizers and their options: ``nsf:p=cyclic(0.5,-0.25,200)``.

Commas separate the optimizers of a list and the options of an optimizer. A piece that starts with
``key=`` belongs to the optimizer before it. A value is a Python literal (``true`` is ``True``), a
schedule with its arguments, a dtype, or a bare word, which is text. Nothing is executed.
"""

import ast
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from bandwise.optim.schedules import SCHEDULES

_NAME = re.compile(r"(?P<name>.+?\.py:\w+|[^:]+)(?::(?P<options>.*))?", re.DOTALL)
WRAPPED = "smi-"  # before a name: SMI around that optimizer
_OPTION = re.compile(r"\s*[A-Za-z_]\w*\s*=")
_WORDS = {"true": True, "false": False}  # "none" stays a text: scale=none
_SCHEDULES = {key.lower(): cls for key, cls in SCHEDULES.items()}


@dataclass(frozen=True)
class Spec:
    """An optimizer as the user named it, with the values of its options."""

    text: str  # its label in tables
    name: str  # short, ``package.Class`` or ``file.py:factory``, perhaps with ``smi-`` before it
    options: dict[str, Any]

    @property
    def base(self) -> str:
        """The name of the optimizer within, without ``smi-``."""
        return self.name.removeprefix(WRAPPED)


def parse_list(text: str) -> list[Spec]:
    """The optimizers in a comma-separated list. A ValueError says what is wrong, and where."""
    pieces: list[str] = []
    for piece in _split(text):
        if pieces and _OPTION.match(piece):
            # The first option follows a colon, the others a comma.
            pieces[-1] += "," + piece
        else:
            pieces.append(piece)
    return [parse(piece) for piece in pieces]


def parse(text: str) -> Spec:
    """One optimizer: ``name`` or ``name:key=value,key=value``."""
    if not isinstance(text, str):
        raise TypeError(
            "an optimizer must be written as a text, such as 'adamw:lr=1e-3' or 'file.py:factory', "
            f"got {text!r}"
        )
    text = text.strip()
    match = _NAME.fullmatch(text)
    if match is None:
        raise ValueError(f"an optimizer's name is missing: {text!r}")
    return Spec(text, match["name"].strip(), _options(match["options"] or "", text))


def _options(options: str, text: str) -> dict[str, Any]:
    wrong = f"cannot read the options of {text!r}"
    call = None
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        call = ast.parse(f"_({options.strip()})", mode="eval").body
    match call:
        case ast.Call(func=ast.Name(), args=[], keywords=pairs) if all(p.arg for p in pairs):
            pass
        case _:
            raise ValueError(f"{wrong}: write key=value,key=value")
    values: dict[str, Any] = {}
    for pair in pairs:
        name = str(pair.arg)
        if name in values:
            raise ValueError(f"{wrong}: {name} is given twice")
        try:
            values[name] = _value(pair.value)
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            raise ValueError(f"{wrong}: {name}: {error}") from error
    return values


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name), args=args, keywords=pairs):
            if name.lower() not in _SCHEDULES:
                known = ", ".join(_SCHEDULES)
                raise ValueError(f"schedule must be one of {known}, got {name!r}")
            named = {str(pair.arg): _value(pair.value) for pair in pairs}
            return _SCHEDULES[name.lower()](*map(_value, args), **named)
        case ast.Name(id=name):
            dtype = getattr(torch, name, None)
            return dtype if isinstance(dtype, torch.dtype) else _WORDS.get(name, name)
        case _:
            try:
                return ast.literal_eval(node)
            except ValueError:
                raise ValueError(f"{ast.unparse(node)!r} is no number, word or schedule") from None


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets and quotes."""
    pieces, depth, quote = [""], 0, ""
    for character in text:
        if character in "'\"" and quote in ("", character):
            quote = "" if quote else character
        elif not quote:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0 and not quote:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces
