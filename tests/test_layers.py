"""The house's order: imports go down only, importing costs nothing, and only a few files print."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the bottom up; each may import its own layer and those below. A new name gets its place here.
LAYERS = (
    ("system", "stages"),
    ("gpt", "gpt_config", "kv_cache", "fused", "sampling"),
    ("tokenizer", "clean_typing", "conversation"),
    ("engine", "decode_graph", "tasks", "data"),
    ("evals", "training", "model_choice"),
    ("run",),
    ("server", "export", "report"),
    ("scripts",),
)
LAYER = {name: height for height, names in enumerate(LAYERS) for name in names}
# What a module must not know although it lies below: (who, whom, why).
STRANGERS = (
    ("nanochat.gpt", "nanochat.system", "the model knows neither optimizer nor logger"),
    ("nanochat.gpt_config", "nanochat.system", "nor does its config"),
    ("nanochat.fused", "nanochat.system", "nor do its pieces"),
    ("nanochat.tasks", "nanochat.tokenizer", "tasks know no tokenizer"),
    ("nanochat.data.tinyworld", "nanochat.tokenizer", "tinyworld knows no tokenizer"),
    ("nanochat.data.tinyworld", "nanochat.system.storage", "tinyworld writes no files"),
    ("nanochat.data.tinyworld", "nanochat.system.log", "and prints nothing"),
    ("nanochat.data", "nanochat.gpt", "data knows no model"),
    ("nanochat.engine", "nanochat.data", "the engine knows token ids"),
)
PRINTS = {
    "nanochat/system/log.py",
    "nanochat/system/cli.py",  # a command's last line, to standard error
    "nanochat/run/pipeline.py",  # a command of the drivers'; bash reads what it prints
}


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, full name) of every import, in functions and for types alone as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def place(module: str) -> str:
    """The name under which a module has its layer: scripts, or what follows nanochat."""
    parts = module.split(".")
    return parts[0] if parts[0] == "scripts" else parts[1]


@pytest.mark.parametrize("path", sources("nanochat") + sources("scripts"), ids=module_of)
def test_imports_go_down_only(path: Path) -> None:
    module = module_of(path)
    ours = [
        (line, name)
        for line, name in imported(path)
        if name.split(".")[0] in ("nanochat", "scripts")
    ]
    if module == "nanochat":
        assert not ours, "importing nanochat imports nothing"
        return
    assert place(module) in LAYER, f"give {place(module)} a place in LAYERS"
    for line, name in ours:
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        assert place(name) in LAYER, where
        assert LAYER[place(name)] <= LAYER[place(module)], where
        assert place(name) != "scripts", f"{where}: scripts never import scripts"
        for who, whom, why in STRANGERS:
            assert not (below(module, who) and below(name, whom)), f"{where}: {why}"


def test_the_reader_of_imports_sees_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "from typing import TYPE_CHECKING\nimport os.path as p\n"
        "if TYPE_CHECKING:\n    from nanochat.gpt import GPT\n"
        "def f():\n    from nanochat.system import log, storage\n"
    )
    names = {"typing.TYPE_CHECKING", "os.path", "nanochat.gpt.GPT"}
    names |= {"nanochat.system.log", "nanochat.system.storage"}
    assert {name for _, name in imported(tmp_path / "a.py")} == names


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Not even for a type, nor inside of a function."""
    modules = {module_of(path): path for path in sources("nanochat") + sources("scripts")}
    arrows = {
        module: {name if name in modules else name.rpartition(".")[0] for _, name in imported(path)}
        & (modules.keys() - {module})
        for module, path in modules.items()
    }
    while leaves := [module for module, below in arrows.items() if not below & arrows.keys()]:
        for module in leaves:
            del arrows[module]
    assert arrows == {}, "each of these is in a circle, or above one"


def test_only_scripts_and_a_few_files_print() -> None:
    printing = set()
    for path in sources("nanochat"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                printing.add(str(path.relative_to(ROOT)))
    assert "nanochat/system/log.py" in printing
    assert printing <= PRINTS


def test_every_folder_says_what_it_is() -> None:
    for path in sources("nanochat"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{path} has no docstring"


def test_importing_is_free_of_torch_and_of_traces(tmp_path: Path) -> None:
    """Flags are parsed before torch is loaded; nothing is written by an import."""
    names = [module_of(path) for path in sources("scripts")]
    assert "scripts.base_train" in names
    code = f"""
import importlib, sys
for name in ["nanochat", *{names!r}]:
    importlib.import_module(name)
    heavy = {{"torch", "pyarrow", "tokenizers", "tiktoken"}} & sys.modules.keys()
    assert not heavy, f"{{name}} imports {{heavy}}"
"""
    env = {**os.environ, "NANOCHAT_BASE_DIR": str(tmp_path / "base")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
