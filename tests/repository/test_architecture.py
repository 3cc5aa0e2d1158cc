"""The rules that keep the source small and its parts apart."""

import re
import subprocess
import tomllib

import pytest
from room_rules import ROOMS
from source_tree import (
    CORE,
    PLUGINS,
    ROOT,
    arrows,
    circle,
    code_lines,
    functions,
    imports,
    module_graph,
    plugin_code,
    plugin_folders,
    python_files,
    rooms,
    strings,
    words_of_code,
)

from alignzoo.contract import hooks as hookspecs
from alignzoo.recipe.registry import load_plugins

FLOOR = 20  # entries of alignzoo/ that a newcomer sees first

PUBLIC = {"alignzoo", "alignzoo.ops", "alignzoo.testing"}
CODE_LINES = {  # of a method's file
    "alignzoo_dpo/algorithm.py": 40,
    "alignzoo_aligndistil/algorithm.py": 133,
    "alignzoo_ppo/algorithm.py": 120,
    "alignzoo_bco/algorithm.py": 60,
    "alignzoo_tisdpo/algorithm.py": 60,
}
BUDGET = {  # code lines of a room with its sub-rooms; raise one in the commit that says why
    "contract": 1365,
    "ops": 195,
    "types": 5,
    "data": 2125,
    "recipe": 2785,  # rewards on pairs, who values answers, and what may be asked of judges
    "engine": 7975,  # teachers' states kept, rows without padding, sampling replayed on a GPU
    "store": 1400,
    "judging": 1805,  # and answers to one prompt, ranked or graded; bills of tokens
    "closed": 446,  # rows and gradients by formula, and the kernels of a GPU
    "launch": 530,  # worker processes: what was asked, starting, watching, ending together
    "pages": 250,  # what every page shares: the shell, its policy, axes and curves
    "leaderboard": 1080,
    "lens": 1270,  # what methods say of tokens: read, shown, packed for a page, exported
    "studies": 1830,  # recipes over seeds: checked, folded, judged, written; curves as figures
    "report": 1190,  # runs read whatever happened to them, every number a value, one page
    "stages": 3070,  # judges' rewards and their ledger, rewards and judges on given pairs
    "plan": 630,  # and what is refused before anything trains
    "run": 310,
    "testing": 1730,
    "cli": 3540,  # with torch imported on first use, and `reproduce`
}
HOOKS = [name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), "alignzoo_spec")]


def test_every_module_stands_in_a_room_that_says_what_it_may_import():
    assert sorted(ROOMS) == rooms()


def test_no_room_imports_what_it_may_not():
    wrong = [
        f"{place}: {room} imports {used}"
        for room, uses in arrows().items()
        for used, place in uses.items()
        if used not in ROOMS[room]
    ]
    assert wrong == []


def test_no_room_is_allowed_an_import_that_it_does_not_need():
    used = arrows()
    assert {room: spare for room in ROOMS if (spare := ROOMS[room] - used[room].keys())} == {}


def test_rooms_and_modules_form_no_circle():
    assert circle(ROOMS) == []
    assert circle(module_graph()) == []


def test_the_floor_is_small_enough_to_be_taken_in_at_once():
    apart = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    assert len([p for p in CORE.iterdir() if p.name not in apart]) <= FLOOR


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda p: p.name)
def test_a_plugin_imports_only_public_names(folder):
    own = [p.name for p in plugin_folders() if p != folder]
    wrong = []
    for path in plugin_code(folder):
        for line, name in imports(path, PLUGINS):
            core = name.startswith("alignzoo.") and name.rpartition(".")[0] not in PUBLIC
            other = name.split(".")[0] in own
            if (core and name not in PUBLIC) or other:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert wrong == []


def test_no_room_grows_unnoticed():
    lines = dict.fromkeys(BUDGET, 0)
    for path in python_files(CORE):
        part = path.relative_to(CORE).with_suffix("").parts[0]
        if not part.startswith("__"):
            lines[part] += code_lines(path)
    assert {part: n for part, n in lines.items() if n > BUDGET[part]} == {}


def test_no_file_is_longer_than_400_lines():
    every = python_files(CORE, PLUGINS, ROOT / "tests")
    sizes = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in every}
    assert {name: size for name, size in sizes.items() if size > 400} == {}


def test_no_function_is_longer_than_60_lines():
    long = [
        f"{path.relative_to(ROOT)}:{line}: {name} has {length} lines"
        for path in python_files(CORE, PLUGINS)
        for name, line, length in functions(path)
        if length > 60
    ]
    assert long == []


@pytest.mark.parametrize("name", CODE_LINES)
def test_a_method_stays_readable_in_one_sitting(name):
    assert code_lines(PLUGINS / name) <= CODE_LINES[name]


def test_every_plugin_folder_is_an_entry_point_and_the_reverse():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["alignzoo"]
    assert declared == {folder.name: folder.name for folder in plugin_folders()}


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda p: p.name)
def test_every_plugin_has_a_readme_and_a_test(folder):
    assert (folder / "README.md").is_file()
    assert list(folder.glob("test_*.py"))


def method_names():
    """Algorithms as registered, and the models' parts that only plug-ins know."""
    algorithms = load_plugins().algorithms
    roles = {role for cls in algorithms.values() for role in cls.roles}
    return set(algorithms), roles - {"policy"}


def test_the_core_knows_no_method_by_name():
    algorithms, roles = method_names()
    found = []
    for path in python_files(CORE):
        found += [(path, line, w) for line, w in words_of_code(path) if w.lower() in algorithms]
        found += [(path, line, text) for line, text in strings(path) if text in roles]
    assert [f"{path.relative_to(ROOT)}:{line}: {word}" for path, line, word in found] == []


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_and_tested(hook):
    assert getattr(hookspecs, hook).__doc__, "no docstring"
    assert re.search(rf"\b{hook}\b", (ROOT / "CONTRIBUTING.md").read_text())
    tests = [*python_files(ROOT / "tests"), *PLUGINS.glob("*/test_*.py")]
    assert any(re.search(rf"\b{hook}\b", path.read_text()) for path in tests)


def text_files():
    """What a commit would hold: tracked files and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy of the source is not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix not in (".gz", ".safetensors")]


@pytest.mark.parametrize(
    ("mark", "why"),
    [
        (r"NotImplemented" + "Error", "a stub"),
        (r"\bTO" + r"DO\b", "unfinished"),
        (r"(?<![\w.~])/(work|ro" + r"ot|home|op" + r"t/wheels)/", "a path of one machine"),
    ],
)
def test_nothing_unfinished_or_bound_to_one_machine_is_committed(mark, why):
    files = {path: path.read_text(encoding="utf-8", errors="replace") for path in text_files()}
    found = [str(p.relative_to(ROOT)) for p, text in files.items() if re.search(mark, text)]
    assert found == [], why
