"""Python files read instead of imported, so that questions about classes are answered without torch.

A `Source` knows the top-level names of one file, and `get` gives their values. Constants, functions and
dataclasses are made from their own lines. Of other classes, which may need torch, there are outlines: their
bases, their `Config`, the constants of their body, their docstring, and what `forward` reads.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
LIGHT = ("mmpt.config", "mmpt.registry")  # these of our modules are imported for real
_RECIPES = {
    "dataclass",
    "NamedTuple",
    "Enum",
    "Exception",
    "ValueError",
}  # decorators and bases of classes made here


class Unreadable(Exception):
    """A name whose value needs an import that is not made here."""


class Source:
    """One file.

    Args:
        path: the file.
        module: its dotted name.
    """

    def __init__(self, path: Path, module: str):
        self.path, self.module = path, module
        self.text = path.read_text(encoding="utf-8")
        self._namespace: dict[str, Any] = {
            "__name__": module,
            "__file__": str(path),
            "__builtins__": builtins,
        }
        self._begun: set[str] = set()

    @functools.cached_property
    def tree(self) -> ast.Module:
        """The file, parsed when first asked for: most files are asked for nothing."""
        return ast.parse(self.text, str(self.path))

    @functools.cached_property
    def nodes(self) -> dict[str, ast.stmt]:
        """Top-level name -> the statement that gives it a value."""
        return {name: node for node in self.tree.body for name in _names(node)}

    def get(self, name: str) -> Any:
        """The value of a top-level name.

        Raises:
            Unreadable: there is none, or it takes an import of another package.
        """
        if name not in self._namespace:
            if name not in self.nodes or name in self._begun:
                raise Unreadable(f"{self.path}: {name}")
            self._begun.add(name)
            self._make(name, self.nodes[name])
        return self._namespace[name]

    def imported(self, name: str) -> tuple[str, str] | None:
        """Module and name that `from module import name` brings; None for what is defined here."""
        node = self.nodes.get(name)
        if not isinstance(node, ast.ImportFrom):
            return None
        original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
        parents = self.module.split(".")[: -node.level or None] if node.level else []
        return ".".join([*parents, *([node.module] if node.module else [])]), original

    def _make(self, name: str, node: ast.stmt) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._namespace[name] = self._import(name, node)
        elif isinstance(node, ast.ClassDef) and not _is_recipe(node):
            self._namespace[name] = self._outline(node)
        else:
            self._run(node, self._namespace)

    def _import(self, name: str, node: ast.Import | ast.ImportFrom) -> Any:
        if isinstance(node, ast.Import):
            alias = next(a for a in node.names if (a.asname or a.name.split(".")[0]) == name)
            if alias.name.split(".")[0] in sys.stdlib_module_names:
                whole = importlib.import_module(alias.name)
                return whole if alias.asname else sys.modules[name]
            raise Unreadable(f"{self.path}: {name}")
        named = self.imported(name)
        assert named is not None  # `node` is one of these
        module, original = named
        if module.split(".")[0] in sys.stdlib_module_names or module.startswith(LIGHT):
            return getattr(importlib.import_module(module), original)
        source = find_source(module) if module.split(".")[0] in ("mmpt", self.module.split(".")[0]) else None
        if source is None:
            raise Unreadable(f"{self.path}: {module}.{original}")
        return source.get(original)

    def _run(self, node: ast.stmt, into: dict[str, Any]) -> None:
        """Execute one statement, after the names it uses; annotations of functions are left out."""
        for used in ast.walk(node):
            if isinstance(used, ast.Name) and used.id in self.nodes and used.id not in self._namespace:
                try:
                    self.get(used.id)
                except Unreadable:
                    pass  # of use in the body of a method alone, or the statement itself fails below
        code = compile(ast.Module([_Bare().visit(node)], []), str(self.path), "exec", dont_inherit=True)
        try:
            exec(code, self._namespace, into)
        except NameError as error:
            raise Unreadable(f"{self.path}: line {node.lineno}: {error}") from error

    def _outline(self, node: ast.ClassDef) -> type:
        """A class of the same name, bases, docstring, constants and nested dataclasses, without methods."""
        body: dict[str, Any] = {"__doc__": ast.get_docstring(node), "__module__": self.module}
        for part in node.body:
            if isinstance(part, ast.ClassDef) and _is_recipe(part):
                self._run(part, body)
                body[part.name].__qualname__ = f"{node.name}.{part.name}"
            elif isinstance(part, ast.Assign | ast.AnnAssign) and part.value is not None:
                try:
                    self._run(part, body)
                except Exception:  # a value made of what is not imported, such as a module's function
                    continue
            elif isinstance(part, ast.FunctionDef) and part.name == "__init__":
                body["__takes__"] = tuple(arg.arg for arg in (*part.args.args[1:], *part.args.kwonlyargs))
            elif isinstance(part, ast.FunctionDef) and part.name == "forward":
                given = zip(part.args.kwonlyargs, part.args.kw_defaults, strict=True)
                body["__given__"] = tuple(argument.arg for argument in part.args.kwonlyargs)
                body["__reads__"] = tuple(argument.arg for argument, default in given if default is None)
        return type(node.name, tuple(self._bases(node)), body)

    def _bases(self, node: ast.ClassDef) -> Iterator[type]:
        for base in node.bases:
            target = base.value if isinstance(base, ast.Subscript) else base  # Loss[Config]
            if isinstance(target, ast.Name):
                try:
                    value = self.get(target.id)
                except Unreadable:
                    continue
                if isinstance(value, type) and value.__module__ != "typing":
                    yield value


class _Bare(ast.NodeTransformer):
    """Takes the annotations off functions: they name tensors."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node


def _is_recipe(node: ast.ClassDef) -> bool:
    """A class that its own lines make, without torch."""
    parts = [*node.decorator_list, *node.bases]
    names = {getattr(part.func if isinstance(part, ast.Call) else part, "id", "") for part in parts}
    return bool(names & _RECIPES)


def _names(node: ast.stmt) -> Iterator[str]:
    """Names that a statement gives a value."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or (
                alias.name if isinstance(node, ast.ImportFrom) else alias.name.split(".")[0]
            )
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def find_path(module: str) -> Path | None:
    """The file of a module, found without importing the packages round it."""
    if module.split(".")[0] == "mmpt":
        plain = PACKAGE.parent.joinpath(*module.split("."))
        return next(
            (path for path in (plain.with_suffix(".py"), plain / "__init__.py") if path.is_file()), None
        )
    folders: Any = None
    spec = None
    for depth in range(len(module.split("."))):
        spec = PathFinder.find_spec(".".join(module.split(".")[: depth + 1]), folders)
        if spec is None:
            return None
        folders = spec.submodule_search_locations
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def find_source(module: str) -> Source | None:
    """The source of a module; None where there is no such Python file."""
    path = find_path(module)
    return None if path is None else read_source(path, module)


def read_source(path: Path, module: str) -> Source:
    """The source in a file, read once for as long as the file stays as it is."""
    return _read(path, module, path.stat().st_mtime_ns)


@functools.cache
def _read(path: Path, module: str, changed: int) -> Source:
    return Source(path, module)


def package_sources(module: str) -> Iterator[Source]:
    """The source of a module, or of all modules of a package."""
    path = find_path(module)
    if path is not None and path.name == "__init__.py":
        for file in sorted(path.parent.rglob("*.py")):
            parts = file.relative_to(path.parent).with_suffix("").parts
            yield read_source(file, ".".join([module, *(part for part in parts if part != "__init__")]))
    elif path is not None:
        yield read_source(path, module)
