"""Load a class or function that the user named as ``path/to/file.py:Name``."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any


class UserFileError(ValueError):
    """A ``path/to/file.py:Name`` that cannot be loaded; says why."""


@dataclass(frozen=True)
class UserObject:
    """What a ``path/to/file.py:Name`` stands for.

    Attributes:
        value: the object called ``Name``.
        sha256: of the file's content, the very bytes that were run.
    """

    value: Any
    sha256: str


def is_userfile(spec: str) -> bool:
    """Whether ``spec`` has the form ``path/to/file.py:Name``."""
    return spec.rpartition(":")[0].endswith(".py")


def load(spec: str) -> UserObject:
    """Load ``Name`` from ``path/to/file.py:Name``, in this process or in any worker.

    The file runs as a script would: its folder heads ``sys.path``, so it can import the files
    beside it. A process runs the same content of the same file once.

    Raises:
        UserFileError: the spec has another form, there is no such file, the file does not define
            ``Name``, or running it raises (the exception is chained).
    """
    file, _, name = spec.rpartition(":")
    if not is_userfile(spec) or not name.isidentifier():
        raise UserFileError(f"expected path/to/file.py:Name, got {spec!r}")
    path = Path(file).resolve()
    if not path.is_file():
        raise UserFileError(f"{spec!r}: there is no file {path}")
    source = path.read_bytes()
    sha256 = hashlib.sha256(source).hexdigest()
    module = _run(path, source, sha256)
    if not hasattr(module, name):
        raise UserFileError(f"{path} defines no {name!r}; it defines {_defined(module)}")
    return UserObject(getattr(module, name), sha256)


def _run(path: Path, source: bytes, sha256: str) -> ModuleType:
    key = hashlib.sha256(f"{path} {sha256}".encode()).hexdigest()
    module_name = f"_bandwise_{path.stem}_{key[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    # Pickling and some decorators look a class's module up here.
    sys.modules[module_name] = module
    try:
        # Compiled from the bytes that were hashed: a stale .pyc must not run instead.
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[module_name]
        # A file that calls sys.exit must not end the command without a word.
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise UserFileError(f"running {path} raised {type(error).__name__}: {error}") from error
    return module


def _defined(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return ", ".join(names) or "no class or function"
