"""Load a class or function that the user named: ``path/to/file.py:Name`` or ``package.Name``."""

import ast
import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


class UserFileError(ValueError):
    """A ``path/to/file.py:Name`` that cannot be loaded or raises; says why and where."""


class UserObject(NamedTuple):
    """What a ``path/to/file.py:Name`` stands for, and what it depends on."""

    value: Any
    # The SHA-256 of the file, by ``path/to/file.py:Name``, and of each module that it imports from
    # its own folder, directly or not, by ``path/to/module.py``.
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
        UserFileError: there is no such file or ``Name``, or the file raises (which is chained).
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
        own = [
            each
            for each, value in vars(module).items()
            if not each.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
        defined = ", ".join(own) or "no class or function"
        raise UserFileError(f"{path} defines no {name!r}; it defines {defined}")
    files = {spec: _hash(sources.pop(path))}
    for beside, source in sources.items():
        files[str(Path(file).parent / beside.relative_to(path.parent))] = _hash(source)
    return UserObject(getattr(module, name), files)


def load_dotted(name: str) -> Any:
    """Load ``Name`` from a module on Python's path; ValueError: it is not there, or raises."""
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
    """Turn what code of the user's raises into a UserFileError with the line; it is chained."""
    try:
        yield
    # A file may call sys.exit. That must not end the command silently.
    except (Exception, SystemExit) as error:
        said = explain(error, spec)
        if said is None:
            raise
        raise UserFileError(said) from error


def explain(error: BaseException, *specs: str) -> str | None:
    """What was raised in a file of ``specs`` and in which lines; ``None`` if it was elsewhere."""
    what = f"{type(error).__name__}: {error}"
    owners: dict[str, str] = {}
    for spec in filter(is_userfile, specs):
        owners |= dict.fromkeys(map(str, _sources(Path(file_of(spec)).resolve())), spec)
    if isinstance(error, SyntaxError) and error.filename in owners:
        return f"{owners[error.filename]}: {what}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in owners]
    if not frames:
        return None
    last = frames[-1]
    line = f"{owners[last.filename]}: {what} ({Path(last.filename).name}, line {last.lineno})"
    several = traceback.format_list(frames) if len(frames) > 1 else []
    return "\n".join([line, *several]).rstrip()


_held: dict[Path, bytes] = {}  # the modules beside the users' files, as they were last run


def _run(path: Path, sources: dict[Path, bytes]) -> ModuleType:
    _forget_edited({own: source for own, source in sources.items() if own != path})
    hashes = sorted(f"{own} {_hash(source)}" for own, source in sources.items())
    name = f"_bandwise_{path.stem}_{_hash(' '.join(hashes).encode())[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    # Pickling and some decorators look a class's module up here.
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    # Python compares a .pyc with its source by size and second alone. One written now may be stale
    # next time.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        # Compiled from the bytes that were hashed: a stale .pyc must not run instead.
        exec(compile(sources[path], str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
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
            its = vars(module)  # torch.ops has every attribute that it is asked for
            if not places.isdisjoint([its.get("__file__"), *(its.get("__path__") or ())]):
                del sys.modules[name]
    _held.update(sources)


def _sources(path: Path) -> dict[Path, bytes]:
    """The content of a file, and of all modules that it imports from its own folder."""
    # ``modulefinder`` would find them, but fails on packages without ``__init__.py``.
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
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        level, module = getattr(node, "level", 0), getattr(node, "module", None) or ""
        for alias in node.names:
            place = file.parents[level - 1] if level else folder
            parts = [part for part in f"{module}.{alias.name}".split(".") if part]
            # Studies record bandwise's version.
            for part in parts if parts[0] != "bandwise" else ():
                yield place / f"{part}.py"
                place /= part
                yield place / "__init__.py"


def _hash(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()
