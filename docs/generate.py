"""The pages that come from the package: a page a corpus, the settings, the reference, the experiments. Nothing is imported for them."""

import ast
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, CONF, EXPERIMENTS = ROOT / "labelgen", ROOT / "conf", ROOT / "experiments"
NOT_SETTINGS = {"defaults", "call", "hydra", "_target_", "_partial_", "keep_config"}


def write(folder: Path) -> None:
    """Writes every page below `folder`; what a former run wrote there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = {"settings.md": settings(), **corpora(), **reference()}
    for page, place in moved().items():
        pages[place.removeprefix("generated/")] = on_the_site(page.read_text("utf-8"), page, place)
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    for picture in EXPERIMENTS.glob("*/*.svg"):
        shutil.copy(picture, folder / "experiments")


# -- pages of other folders ------------------------------------------------------------------------------------------------------


def moved() -> dict[Path, str]:
    """Markdown outside of docs/ -> its place on the site."""
    pages = {ROOT / f"{name}.md": f"generated/{name.lower()}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")}
    return pages | {page: f"generated/experiments/{page.parent.name}.md" for page in sorted(EXPERIMENTS.glob("*/README.md"))}


def on_the_site(text: str, file: Path, place: str) -> str:
    """The text of a Markdown file of the repository with links that lead to pages of the site; a link to any other file is its words."""
    pages = moved()

    def link(found: re.Match[str]) -> str:
        path, mark, section = found[2].partition("#")
        target = (file.parent / path).resolve()
        if not path or path.startswith(("http:", "https:")) or found[2].endswith(".svg"):
            return found[0]
        where = pages.get(target) or (target.relative_to(ROOT / "docs").as_posix() if target.is_relative_to(ROOT / "docs") else None)
        return f"[{found[1]}]({os.path.relpath(where, Path(place).parent)}{mark}{section})" if where else found[1]

    return re.sub(r"\[([^][]*)\]\(([^()\s]+)\)", link, text)


# -- the reference ---------------------------------------------------------------------------------------------------------------


def module_name(file: Path) -> str:
    """labelgen/io/rows.py -> labelgen.io.rows; a folder is its __init__.py."""
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def reference() -> dict[str, str]:
    """A page a part of the package (a folder, or a file at its top), with all its modules."""
    pages = {}
    for part in sorted({file.relative_to(PACKAGE).parts[0] for file in PACKAGE.rglob("*.py")}):
        files = sorted((PACKAGE / part).rglob("*.py")) if (PACKAGE / part).is_dir() else [PACKAGE / part]
        name = module_name(files[0])
        pages[f"reference/{name}.md"] = "\n".join([f"# {name}", "", *(_module(file, heading=file != files[0]) for file in files)])
    return pages


def _module(file: Path, heading: bool) -> str:
    """What a module says of itself, its public classes and functions."""
    tree = ast.parse(file.read_text("utf-8"))
    name = module_name(file)
    title = [f"## {name}", ""] if heading else []
    lines = [*title, f"```{{py:module}} {name}\n```", "", markdown(ast.get_docstring(tree) or ""), ""]
    source = file.read_text("utf-8").splitlines()
    for node in public(tree):
        lines += _class(node, source) if isinstance(node, ast.ClassDef) else _function(node, "function")
    return "\n".join(lines)


def public(node: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """The classes and functions of a module, or the methods of a class, that are not private."""
    for child in node.body:
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and not child.name.startswith("_"):
            yield child


def _function(node: ast.FunctionDef, kind: str) -> list[str]:
    arguments = ast.unparse(node.args)
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if kind == "method" and "staticmethod" not in decorators:
        arguments = re.sub(r"^(self|cls)(, )?", "", arguments)
    if "property" in decorators:
        signature, kind = node.name, "property"
    else:
        signature = f"{node.name}({arguments})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")
    return _directive(kind, signature, [markdown(ast.get_docstring(node) or "")], 3)


def _class(node: ast.ClassDef, source: list[str]) -> list[str]:
    init = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
    arguments = "(" + re.sub(r"^self(, )?", "", ast.unparse(init[0].args)) + ")" if init else ""
    body = [markdown(ast.get_docstring(node) or ""), "", *_fields(node, source), ""]
    for method in public(node):
        if isinstance(method, ast.FunctionDef) and ast.get_docstring(method):
            body += _function(method, "method")
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    return _directive("class", f"{node.name}{arguments}", [f"Bases: `{bases}`" if bases else "", "", *body], 4)


def _fields(node: ast.ClassDef, source: list[str]) -> list[str]:
    """The annotated fields of a record or dataclass, with the docstrings or the comments behind them."""
    lines = []
    for field, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name) or field.target.id.startswith("_"):
            continue
        meaning = source[field.end_lineno - 1][field.end_col_offset :].partition("# ")[2]
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) and isinstance(following.value.value, str):
            meaning = " ".join(following.value.value.split())
        lines.append(f"- `{ast.unparse(field)}`" + (f": {markdown(meaning)}" if meaning else ""))
    return lines


def _directive(kind: str, signature: str, body: list[str], colons: int) -> list[str]:
    fence = ":" * colons
    return [f"{fence}{{py:{kind}}} {signature}", "", *body, "", fence, ""]


# -- the corpora -----------------------------------------------------------------------------------------------------------------


def corpora() -> dict[str, str]:
    """A page a module of corpora/: where to get the data and how it is labelled (its docstring), and the options of `corpus=`."""
    options: dict[str, list[Path]] = {}
    for file in sorted((CONF / "corpus").glob("*.yaml")):
        (target,) = re.findall(r"^_target_: labelgen\.corpora\.(\w+)\.", file.read_text("utf-8"), re.MULTILINE)
        options.setdefault(target, []).append(file)
    pages = {}
    for name, files in options.items():
        text = ast.get_docstring(ast.parse((PACKAGE / "corpora" / f"{name}.py").read_text("utf-8"))) or ""
        choices = [f"```yaml\n# corpus={file.stem}\n{file.read_text('utf-8')}```\n" for file in files]
        title = re.split(r"[,:;(]", first_comment(files[0]))[0].strip(" .")
        use = "Choose it with " + " or ".join(f"`corpus={file.stem}`" for file in files) + "."
        pages[f"corpora/{name}.md"] = "\n".join([f"# {title}", "", use, "", markdown(text), "", "## Settings", "", *choices])
    return pages


def markdown(docstring: str) -> str:
    """A docstring as Markdown: outside of code, addresses become links and "<" is no HTML. Code is what is indented by four."""
    lines: list[str] = []
    for line in docstring.splitlines():
        before = lines[-1] if lines else ""
        if line.startswith("    ") and before and not before.startswith((" ", "- ")):
            lines.append("")
        lines.append(line if line.startswith("    ") else _plain(line))
    return "\n".join(lines)


def _plain(line: str) -> str:
    parts = re.split(r"(`[^`]*`)", line)
    for k, part in enumerate(parts[::2]):
        text = part.replace("<", r"\<").replace(" -> ", " → ")
        parts[2 * k] = re.sub(
            r"(?<![\w/.])(?:https://)?((?:github\.com|huggingface\.co|arxiv\.org|platform\.openai\.com)/[\w./#-]*\w)", r"<https://\1>", text
        )
    return "".join(parts)


# -- the settings ----------------------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """A key of a yaml, dotted, with its value as written and its comment."""

    key: str
    default: str
    comment: str


def read_settings(file: Path) -> Iterator[Setting]:
    """The settings of a yaml in its order: what it sets for the user to change, not what it passes on."""
    parents: list[tuple[int, str]] = []
    for line in file.read_text("utf-8").splitlines():
        found = re.match(r"( *)([\w@.]+):(?: +(.*?))?(?: +# (.*))?$", line)
        if not found:
            continue
        indent = len(found[1])
        parents = [(depth, key) for depth, key in parents if depth < indent]
        parents.append((indent, found[2]))
        if parents[0][1] in NOT_SETTINGS or found[2] in NOT_SETTINGS or re.fullmatch(r"\$\{\w+\}", found[3] or ""):
            continue
        if found[3] or found[4]:
            yield Setting(".".join(key for _, key in parents), found[3] or "", found[4] or "")


def first_comment(file: Path) -> str:
    """The first line of a yaml that says what it is."""
    comments = [line.lstrip("# ") for line in file.read_text("utf-8").splitlines() if line.startswith("#") and "@package" not in line]
    return comments[0] if comments else ""


def _with_command(comment: str) -> str:
    """A comment whose end is a command, as Markdown."""
    words, found, command = comment.partition("labelgen ")
    return f"{markdown(words.rstrip())}\n\n```text\n{found}{command}\n```" if found else markdown(words)


def _table(rows: list[Setting]) -> list[str]:
    if not rows:
        return []
    cells = [[f"`{row.key}`", f"`{row.default}`" if row.default else "", row.comment] for row in rows]
    lines = [[cell.replace("|", r"\|") for cell in line] for line in cells]
    return ["| key | default | meaning |", "|---|---|---|", *("| " + " | ".join(line) + " |" for line in lines), ""]


def settings() -> str:
    """Verbs with their own keys and groups, then each group's options with theirs."""
    lines = [
        "# Settings",
        "",
        "Every verb reads one file of `conf/`. `key=value` on the command line changes a key, and `group=option` chooses one of the",
        "files of a group. `???` is a value that you must give; `null` is none. `labelgen VERB --help` prints the same.",
        "",
    ]
    for file in sorted(CONF.glob("*.yaml")):
        groups = re.findall(r"^  - (\w+)(@[\w.]+)?: (\w+|\?\?\?)$", file.read_text("utf-8"), re.MULTILINE)
        lines += [f"## labelgen {file.stem}", "", _with_command(first_comment(file)), "", *_table(list(read_settings(file)))]
        if groups:
            chosen = [f"[{group}{place}](#{group})`={option}`" for group, place, option in groups]
            lines += ["Groups and what is chosen by default: " + ", ".join(chosen) + ".", ""]
    for group in sorted(folder for folder in CONF.iterdir() if folder.is_dir()):
        lines += [f"## {group.name}", ""]
        for file in sorted(group.glob("*.yaml")):
            lines += [f"### {group.name}={file.stem}", "", _with_command(first_comment(file)), "", *_table(list(read_settings(file)))]
    return "\n".join(lines)
