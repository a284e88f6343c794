"""Load a class or function that the user named: ``path/to/file.py:Name`` or ``package.Name``."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any


class UserFileError(ValueError):
    """A ``path/to/file.py:Name`` that cannot be loaded or raises; says why and where."""


@dataclass(frozen=True)
class UserObject:
    """What a ``path/to/file.py:Name`` stands for.

    Attributes:
        value: the object called ``Name``.
        files: SHA-256 of the file's content, by ``path/to/file.py:Name``, and of each module that
            it imports from its own folder, directly or not, by ``path/to/module.py``.
    """

    value: Any
    files: dict[str, str]


def is_userfile(spec: str) -> bool:
    """Whether ``spec`` has the form ``path/to/file.py:Name``."""
    return spec.rpartition(":")[0].endswith(".py")


def file_of(spec: str) -> str:
    """``path/to/file.py`` of ``path/to/file.py:Name``; anything else as it is."""
    return spec.rpartition(":")[0] if is_userfile(spec) else spec


def load(spec: str) -> UserObject:
    """Load ``Name`` from ``path/to/file.py:Name``, in this process or in any worker.

    The file runs as a script would: its folder heads ``sys.path``, so it can import the files
    beside it. A process runs the same content of the same files once.

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
    try:
        with blamed(spec):
            sources = _sources(path)
            module = _run(path, sources)
    except UserFileError:
        raise
    except Exception as error:  # a file that is no Python has no line to name
        raise UserFileError(f"{spec}: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise UserFileError(f"{path} defines no {name!r}; it defines {_defined(module)}")
    named = {
        spec if own == path else str(Path(file).parent / own.relative_to(path.parent)): _hash(
            source
        )
        for own, source in sources.items()
    }
    return UserObject(getattr(module, name), named)


def load_dotted(name: str) -> Any:
    """Load ``Name`` from an installed package or a module on Python's path, ``package.Name``.

    Raises:
        ValueError: there is no such module, it raises, or it has no ``Name``.
    """
    module_name, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} needs the package {error.name!r}: it is not installed") from error
    except Exception as error:  # whatever the module's own code raises
        raise ValueError(f"{name}: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise ValueError(f"the module {module_name} has no {attribute!r}")
    return getattr(module, attribute)


@contextmanager
def blamed(spec: str) -> Iterator[None]:
    """Run code of the user's, and explain its errors in its own terms.

    Raises:
        UserFileError: the code has raised something, which is chained.
    """
    try:
        yield
    # A file may call sys.exit. That must not end the command silently.
    except (Exception, SystemExit) as error:
        said = explain(error, spec)
        if said is None:
            raise
        raise UserFileError(said) from error


def explain(error: BaseException, *specs: str) -> str | None:
    """An error of the user's code in its own terms: what was raised and in which line.

    If it went through several lines of the user's files, these follow.

    Args:
        error: as caught.
        specs: the names of optimizers and tasks. Those in files, ``path/to/file.py:Name``, are
            looked for.

    Returns:
        ``None`` if the error did not come from any of these files.
    """
    what = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    owners = {
        str(own): spec
        for spec in specs
        if is_userfile(spec)
        for own in _sources(Path(spec.rpartition(":")[0]).resolve())
    }
    own_frames = [frame for frame in frames if frame.filename in owners]
    if isinstance(error, SyntaxError) and error.filename in owners:
        return f"{owners[error.filename]}: {what}"
    if not own_frames:
        return None
    last = own_frames[-1]
    line = f"{owners[last.filename]}: {what} ({Path(last.filename).name}, line {last.lineno})"
    several = traceback.format_list(own_frames) if len(own_frames) > 1 else []
    return "\n".join([line, *several]).rstrip()


# The content of the modules beside the users' files, when they were last run.
_held: dict[Path, bytes] = {}


def _run(path: Path, sources: dict[Path, bytes]) -> ModuleType:
    _forget_edited({own: source for own, source in sources.items() if own != path})
    hashes = sorted(f"{own} {_hash(source)}" for own, source in sources.items())
    module_name = f"_bandwise_{path.stem}_{_hash(' '.join(hashes).encode())[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    # Pickling and some decorators look a class's module up here.
    sys.modules[module_name] = module
    # Python compares a .pyc with its source by size and second alone. One written now may be stale
    # next time.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        # Compiled from the bytes that were hashed: a stale .pyc must not run instead.
        exec(compile(sources[path], str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module_name]
        raise
    finally:
        sys.dont_write_bytecode = writes
    return module


def _forget_edited(sources: dict[Path, bytes]) -> None:
    """If a module was edited, import all anew: the others may hold objects of the old one."""
    if any(_held.get(own, source) != source for own, source in sources.items()):
        # A package keeps its modules as attributes; one without __init__.py has no file, but paths.
        places = {str(place) for own in sources for place in (own, own.parent)}
        for name, module in list(sys.modules.items()):
            # vars() because torch.ops has every attribute that it is asked for.
            its = vars(module)
            if not places.isdisjoint([its.get("__file__"), *(its.get("__path__") or ())]):
                del sys.modules[name]
    _held.update(sources)


def _sources(path: Path) -> dict[Path, bytes]:
    """The content of a file, and of all modules that it imports from its own folder.

    They are found by the import statements, also by those inside functions.
    (``modulefinder`` fails on packages without ``__init__.py``.)
    """
    found: dict[Path, bytes] = {}
    left = [path]
    while left:
        file = left.pop()
        if file not in found and file.is_file() and file.is_relative_to(path.parent):
            found[file] = file.read_bytes()
            left += _imported(found[file], file, path.parent)
    return found


def _imported(source: bytes, file: Path, folder: Path) -> Iterator[Path]:
    """The paths that the modules imported by ``source`` would have in ``folder``."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # the import itself will raise
    for node in nodes:
        match node:
            case ast.Import(names=names):
                start, dotted = folder, [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                start = file.parents[level - 1] if level else folder
                dotted = [f"{module or ''}.{alias.name}" for alias in names]
            case _:
                continue
        for name in dotted:
            place = start
            parts = [part for part in name.split(".") if part]
            # Studies record bandwise's version.
            for part in parts if parts[0] != "bandwise" else ():
                yield place / f"{part}.py"
                place /= part
                yield place / "__init__.py"


def _hash(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _defined(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return ", ".join(names) or "no class or function"
