"""Reading the project's own source: imports, code lines, names, functions."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "alignzoo"
PLUGINS = ROOT / "plugins"


def python_files(*folders: Path) -> list[Path]:
    """Python files below the folders."""
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def plugin_folders() -> list[Path]:
    """Folders of plugins/ that are packages or pretend to be."""
    return sorted(p for p in PLUGINS.iterdir() if p.is_dir() and p.name != "__pycache__")


def plugin_code(folder: Path) -> list[Path]:
    """A plug-in's Python files without its tests."""
    return [path for path in python_files(folder) if not path.name.startswith("test_")]


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path, root: Path) -> str:
    """Dotted name of a file below a source root."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Every imported name, absolute, with its line: `from a import b` gives a.b."""
    own = module_name(path, root).split(".")
    package = own if path.name == "__init__.py" else own[:-1]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def docstring_lines(tree: ast.AST) -> set[int]:
    """Lines taken by strings that stand alone as statements."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def code_lines(path: Path) -> int:
    """Lines that are neither blank, nor comment, nor docstring."""
    text = path.read_text(encoding="utf-8")
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT}
    silent |= {tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in silent
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - docstring_lines(ast.parse(text)))


def functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, first line and length of every function, decorators not counted."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def words_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """Identifiers and the words of string literals, with lines; docstrings and comments left out.

    An identifier with underscores counts as a whole and in its parts.
    """
    text = path.read_text(encoding="utf-8")
    quiet = docstring_lines(ast.parse(text))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL) or token.start[0] in quiet:
            continue
        for word in re.findall(r"[A-Za-z0-9_]+", token.string):
            yield from ((token.start[0], part) for part in {word, *word.split("_")})


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """String literals with lines; docstrings left out."""
    tree = parse(path)
    quiet = docstring_lines(tree)
    literals = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    for node in literals:
        if isinstance(node.value, str) and node.lineno not in quiet:
            yield node.lineno, node.value


def rooms() -> list[str]:
    """Dotted names of the core's packages below `alignzoo`, and of the modules on its floor."""
    packages = (path.parent for path in CORE.rglob("__init__.py") if path.parent != CORE)
    floor = (path for path in CORE.glob("*.py") if path.name != "__init__.py")
    return sorted(module_name(path, CORE) for path in (*packages, *floor))


def room_of(name: str, known: list[str]) -> str:
    """The innermost room a dotted name below `alignzoo` stands in, or an empty string."""
    within = (room for room in known if name == room or name.startswith(f"{room}."))
    return max(within, key=len, default="")


def arrows() -> dict[str, dict[str, str]]:
    """Room -> room it imports -> one place of such an import."""
    known = rooms()
    found: dict[str, dict[str, str]] = {room: {} for room in known}
    for path in python_files(CORE):
        own = room_of(module_name(path, CORE), known)
        for line, name in imports(path, ROOT):
            used = room_of(name.removeprefix("alignzoo."), known)
            if own and used and own != used and name.startswith("alignzoo."):
                found[own].setdefault(used, f"{path.relative_to(ROOT)}:{line}")
    return found


def module_graph() -> dict[str, set[str]]:
    """Module of the core or of a plug-in -> the modules of both that it imports."""
    sources = [(path, ROOT) for path in python_files(CORE)]
    sources += [(path, PLUGINS) for path in python_files(PLUGINS)]
    files = {module_name(path, root): (path, root) for path, root in sources}
    graph: dict[str, set[str]] = {}
    for module, (path, root) in files.items():
        names = {name for _, name in imports(path, root)}
        used = {n if n in files else n.rpartition(".")[0] for n in names}
        graph[module] = (used & files.keys()) - {module}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a directed graph, or an empty list."""
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
