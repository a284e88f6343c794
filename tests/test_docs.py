"""The documentation's code runs, its commands and links lead somewhere, its site builds."""

import importlib
import inspect
import itertools
import re
import shlex
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path
from typing import get_args

import papers
import pytest
import torch
import typer
from benchmarks import __main__ as benchmarks_cli
from benchmarks import distributed
from papers import __main__ as papers_cli
from papers.ledger import editions, markdown
from papers.nsf.tables import studies
from papers.paper import ScaleName, Verdict
from papers.stored import Study, final
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

import bandwise as bw
from bandwise import cli, tasks
from bandwise.study import by_name, spec
from bandwise.study.paired import Sample
from bandwise.tasks import Recipe, options

ROOT = Path(__file__).parent.parent
if not (ROOT / "docs").exists():
    pytest.skip("docs is not beside the tests", allow_module_level=True)

DOCS = sorted((ROOT / "docs").rglob("*.md"))
AROUND = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "papers/results/README.md")
]


def of(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def examples(page, *parsers):
    return Sybil(parsers=[*parsers, SkipParser()]).parse(page)


# Python: each page runs from top to bottom, as a reader pastes it. Nothing is defined beforehand.


@of(DOCS)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = examples(page, PythonCodeBlockParser())
    for example in document.examples():
        example.evaluate()


def test_a_name_that_a_page_does_not_define_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(model)\n```\n")
    (example,) = examples(page, PythonCodeBlockParser()).examples()
    with pytest.raises(NameError, match="model"):
        example.evaluate()


# Shell: commands are not run, but they must exist.


@of([*DOCS, *AROUND])
def test_the_commands_of_a_page_exist(page):
    check_commands(page)


def check_commands(page):
    for example in examples(page, CodeBlockParser("sh", check_shell)).examples():
        example.evaluate()


def check_shell(example):
    for line in example.parsed.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            CHECKS[words[0]](words[1:])


def parsed(app, words):
    """The command's name, its parameters and the remaining words of a command line."""
    command = typer.main.get_command(app)
    with command.make_context(command.name, list(words)) as context:
        if not hasattr(command, "resolve_command"):
            return command.name, context.params, context.args
        name, chosen, rest = command.resolve_command(context, words)
        given = chosen.make_context(name, rest, parent=context)
    return name, given.params, given.args


def check_bandwise(words):
    name, given, rest = parsed(cli.app, words)
    if name == "compare":
        check_study(given["task"], given["optimizers"], rest)


def check_papers(words):
    name, given, _ = parsed(papers_cli.app, words)
    if name == "reproduce":
        assert given["scale"] in get_args(ScaleName)
        assert set(given["part"] or ()) <= {p.name for p in papers.load(given["paper"]).parts}
    else:
        assert (ROOT / given["folder"]).is_dir(), given["folder"]


def check_benchmarks(words):
    parsed(benchmarks_cli.app, words)


def check_distributed(words):
    distributed.parser().parse_args(words)


MODULES = {
    "bandwise": check_bandwise,
    "benchmarks": check_benchmarks,
    "benchmarks.distributed": check_distributed,
    "papers": check_papers,
}


def check_python(words):
    if words[0] == "-m":
        MODULES[words[1]](words[2:])
    else:
        check_files(words)


def check_study(task, texts, extra):
    if ".py:" not in task:
        given = options.read(tasks.find(task), cli._task_options(extra))
        options.check(task, tasks.find(task), given)
    for item in spec.parse_list(texts):
        if ".py:" not in item.name:
            named = [("weight", torch.nn.Parameter(torch.zeros(3, 3)))]
            by_name.build(item, named, 1e-3, Recipe(steps=10, lr=1e-3))


def check_make(words):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def check_pip(words):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = re.findall(r"\[(.*?)\]", " ".join(words))
    assert {name for extra in extras for name in extra.split(",")} <= set(
        project["optional-dependencies"]
    )


def check_files(words):
    """Check that Python files exist. The pages may name several as tests/test_{this,that}.py."""
    for word in words:
        if word.endswith(".py") and not word.startswith("-"):
            before, names, after = re.fullmatch(r"([^{]*)\{?([^{}]*?)\}?(\.py)", word).groups()
            for name in names.split(","):
                assert (ROOT / f"{before}{name}{after}").exists(), word


def check_mutmut(words):
    for word in words:
        if word.startswith("bandwise."):
            path = word.removesuffix(".*").replace(".", "/")
            assert (ROOT / "src" / f"{path}.py").exists(), word


CHECKS = {
    "bandwise": check_bandwise,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    "pytest": check_files,
    "torchrun": check_files,
    "coverage": check_files,
    "mutmut": check_mutmut,
}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("bandwise compare no-such-task", "no task 'no-such-task'"),
        (
            "bandwise compare digits --optimizers adamw,nsf:q=0.7",
            "no option 'q'; its options",
        ),
        ("bandwise compare digits --no-such-option 1", "no option 'no_such_option'"),
        ("bandwise compare digits --seeds many", "should be a valid integer"),
        ("bandwise report", "Missing parameter: folder"),
        ("python -m papers reproduce smi --part no-such-part", "no-such-part"),
        ("python -m papers reproduce no-such-paper", "PAPER must be one of smi, nsf"),
        ("python -m papers claims no-such-folder", "no-such-folder"),
        ("python -m benchmarks --no-such-option", "No such option: --no-such-option"),
        ("python -m no_such_module", "no_such_module"),
        ("bandwise no-such-command", "No such command 'no-such-command'"),
        ("make coffee", "coffee"),
        ("pip install 'bandwise[no-such-extra]'", "no-such-extra"),
        ("python no_such_file.py", "no_such_file.py"),
        ("mutmut run 'bandwise.no_such_module.*'", "no_such_module"),
        ("no-such-program", "no-such-program"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line, why, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"```sh\nmake test\n{line}\n```\n")
    with pytest.raises(Exception, match=why):
        check_commands(page)


# Links, as GitHub follows them. mkdocs checks those of the site.


@of([*DOCS, *AROUND])
def test_the_links_to_files_lead_somewhere(page):
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


# The site.


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return {
        str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*.html")
    }


def test_every_page_is_in_the_site(site):
    assert {str(page.relative_to(ROOT / "docs").with_suffix(".html")) for page in DOCS} < set(site)


def test_pages_fetch_nothing(site):
    for name, text in site.items():
        fetched = re.findall(r'<(?:script|img|iframe)\b[^>]*?src="(\w*:?//[^"]*)"', text)
        fetched += re.findall(r'<link\b(?![^>]*rel="canonical")[^>]*?href="(\w*:?//[^"]*)"', text)
        assert fetched == [], name


def test_formulas_are_set_by_the_browser_alone(site):
    for name in ("smi.html", "nsf.html"):
        assert site[name].count("<math") > 10
    for name, text in site.items():
        prose = re.sub(r"<(code|script)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r"arithmatex|:math:|\.\. math|\\frac|\\hat|\$\$", prose), name


def test_docstrings_are_in_the_notation_that_the_site_reads(site):
    for name, text in site.items():
        if name.startswith("api/"):
            prose = unescape(re.sub(r"<[^>]+>", "", text))
            assert not re.search(r":(class|func|meth|attr|math):|>>> .*>>>", prose), name


@pytest.mark.parametrize(
    ("module", "page"),
    [
        ("bandwise", "optimizers"),
        ("bandwise.lens", "lens"),
        ("bandwise.figures", "figures"),
        ("bandwise.study", "study"),
        ("bandwise.tasks", "tasks"),
    ],
)
def test_every_public_name_is_in_the_reference(site, module, page):
    public = importlib.import_module(module)
    values = [getattr(public, name) for name in public.__all__]
    shown = {value for value in values if inspect.isclass(value) or inspect.isfunction(value)}
    # The names of bandwise.lens have their own page.
    for value in shown - ({bw.Lens, bw.readings} if public is bw else set()):
        places = {f"{place}.{value.__name__}" for place in (module, value.__module__)}
        ids = set(re.findall(r'<h\d id="([\w.]+)"', site[f"api/{page}.html"]))
        assert places & (ids - set(sys.modules)), value.__name__


# Figures: the ledger equals the stored results, and the pages equal the ledger.


def test_the_ledger_is_made_from_the_stored_results():
    found = editions(ROOT / "papers" / "results")
    assert (ROOT / "docs" / "claims.md").read_text("utf-8") == markdown(found)


@of([ROOT / "README.md", ROOT / "docs" / "index.md", ROOT / "docs" / "smi.md"])
def test_kept_claims_are_counted_right(page):
    (smi,) = (e for e in editions(ROOT / "papers" / "results") if e.paper.name == "smi")
    found = smi.counts()
    text = " ".join(page.read_text("utf-8").split())
    assert (
        f"{found.total()} comparisons, {found['reproduced']} are reproduced, "
        f"{found['not reproduced at this scale']} are not reproduced at this scale, "
        f"{found['contradicted']} is contradicted, {found['cannot tell yet']} cannot be told yet, "
        f"and {found['not defined in the paper']} are not defined in the paper"
    ) in text


def test_a_verdict_on_every_claim_has_one_of_the_words_and_the_summary_counts_them():
    found = editions(ROOT / "papers" / "results")
    text = (ROOT / "docs" / "claims.md").read_text("utf-8")
    for each in found:
        comparisons = {claim.comparison or claim.text for claim in each.paper.claims}
        assert each.counts().total() == len(comparisons)
        words = [str(each.counts()[word]) for word in get_args(Verdict)]
        assert f"| {each.paper.name.upper()}, {each.scale} | {' | '.join(words)} |" in text
        chapter = text.partition(f"## {each.paper.name.upper()}, scale {each.scale}")[2]
        rows = chapter.partition("### Claims")[2].partition("###")[0]
        assert sum(rows.count(f"| **{word}**") for word in get_args(Verdict)) == len(
            each.paper.claims
        )


SIGNED = r"([+\N{MINUS SIGN}]\d+\.\d+)"
FIGURE = re.compile(rf"{SIGNED}%?(?: points)? \[{SIGNED}, {SIGNED}\]")
UNSTABLE = (1, 5, 7)  # the seeds on which AdamW as tuned trained unstably


def stored_differences():
    """Each stored difference of the NSF studies from their baseline: its mean and interval."""
    (nsf,) = (e for e in editions(ROOT / "papers" / "results") if e.paper.name == "nsf")
    for _, data in studies(nsf.data):
        study = Study(data)
        baseline, *others = study.optimizers
        metric = data["metric"]
        figures = {metric: 1, metric.replace("val_", "test_"): 100}
        for name, optimizer in itertools.product(figures, others):
            if name in data["runs"][0]["final"]:
                every = study.difference(optimizer, baseline, final(name)).each(
                    lambda value, scale=figures[name]: scale * value
                )
                seeds = [run["seed"] for run in study.runs(optimizer)]
                stable = [v for v, seed in zip(every.values, seeds, strict=True)
                          if seed not in UNSTABLE]  # fmt: skip
                for sample in (every, Sample(tuple(stable))):
                    if sample.interval:
                        yield sample.mean, *sample.interval


def figures_of(page):
    """The figures with an interval on a page."""
    text = " ".join(page.read_text("utf-8").split())
    return [match.group(0) for match in FIGURE.finditer(text)]


@of([ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("index", "nsf", "settings"))])
def test_the_figures_of_a_page_are_the_stored_ones(page):
    ledger = set(figures_of(ROOT / "docs" / "claims.md"))
    stored = list(stored_differences())
    claimed = figures_of(page)
    assert len(claimed) >= 5
    for figure in claimed:
        mean, low, high = (
            text.replace("\N{MINUS SIGN}", "-") for text in FIGURE.fullmatch(figure).groups()
        )
        form = f"+.{len(mean.partition('.')[2])}f"
        found = any([format(x, form) for x in three] == [mean, low, high] for three in stored)
        assert found or figure in ledger, figure
