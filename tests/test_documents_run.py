"""Documents that run: what a page shows is typed in order, loaded or parsed; links lead somewhere."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from backups_app import conf
from backups_app.jobs import cron
from backups_app.management.commands.backup import VERBS
from tests.pages import PAGES, SHELL, Block, anchors, links, parse, prose
from tests.sandbox import SETUPS, Sandbox, is_like, session
from tests.support import PROJECT, needs_tool
from tests.verbs.test_serve import some_port

ELSEWHERE = 5
"""How many shell blocks are not run, each with its reason in the page. Adding one is a decision: count it here."""

BLOCKS = [block for page in PAGES for block in parse(page).blocks]
DIRECTIVES = {"elsewhere", "file"}
LANGUAGES = {*SHELL, "text", "python", "json", "yaml", "ini", "cron", "dockerfile", "nginx"}


def named(block: Block) -> str:
    return block.place


def page_name(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


# Shell


@pytest.mark.slow
@pytest.mark.parametrize("page", [each for each in PAGES if parse(each).shell], ids=page_name)
def test_what_a_page_shows_is_typed_in_order(page: Path, site_template: Path, tmp_path: Path):
    for tool in ("bash", "sqlite3", "zstd", "age", "openssl", "make"):
        needs_tool(tool)
    parsed = parse(page)
    sandbox = Sandbox(tmp_path / "page", site_template, some_port())
    sandbox.prepare(parsed.setup)
    sandbox.run(parsed.blocks)


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language in SHELL], ids=named)
def test_a_shell_block_is_shell(block: Block):
    text = "\n".join(step.command for step in session(block.text)) if block.language == "console" else block.text
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    for verb in re.findall(r"manage\.py backup ([a-z-]+)", text):
        assert verb in VERBS


def test_directives_are_few_and_each_has_its_reason():
    used = [(block, name) for block in BLOCKS for name in block.directives]
    assert {name for _, name in used} <= DIRECTIVES
    assert all(block.directives[name].strip() for block, name in used), "a reason, or a path"
    elsewhere = [block.place for block, name in used if name == "elsewhere" and block.language in SHELL]
    assert len(elsewhere) == ELSEWHERE, elsewhere
    assert all(block.language in SHELL for block, name in used if name == "elsewhere")
    assert {name for page in PAGES for name in parse(page).setup} <= set(SETUPS)
    run = [block for block in BLOCKS if block.language in SHELL and "elsewhere" not in block.directives]
    assert len(run) > 3 * ELSEWHERE


def test_every_block_names_its_language():
    assert [each.place for each in BLOCKS if each.language not in LANGUAGES] == []


# The runner itself must be able to fail


def typed(language: str, text: str, line: int = 1) -> Block:
    return Block(page=PAGES[0], line=line, language=language, text=text)


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("sh", "false\ntrue", "exit code 1"),
        ("sh", "sh -c 'exit 3' | cat", "exit code 3"),
        ("sh", 'echo "$unknown"', "unbound"),
        ("sh", "exit 0\n", "one"),
        ("console", "$ echo one\ntwo", "and not"),
    ],
)
def test_a_block_that_fails_is_noticed(language: str, text: str, said: str, site_template: Path, tmp_path: Path):
    sandbox = Sandbox(tmp_path / "page", site_template, 1)
    with pytest.raises(AssertionError, match=said):
        sandbox.run([typed("sh", "echo one"), typed(language, text), typed("sh", "echo never")])


def test_a_page_is_one_shell_and_its_files_are_written_in_between(site_template: Path, tmp_path: Path):
    sandbox = Sandbox(tmp_path / "page", site_template, 1)
    file = Block(page=PAGES[0], line=2, language="python", text="x = 1", directives={"file": "below/x.py"})
    blocks = [
        typed("sh", "mkdir below; export ONE='a b'"),
        file,
        typed("console", '$ cat below/x.py; echo "$ONE"\nx = 1\na b'),
    ]
    sandbox.run(blocks)
    assert (sandbox.work / "below" / "x.py").read_text().strip() == "x = 1"


def test_expected_output_is_compared_loosely_but_compared():
    assert is_like("id   abc\nstate  ok\nmore", ["id …", "state ok"])
    assert not is_like("id abc\nstate bad", ["id …", "state ok"])
    assert not is_like("state ok\nid abc", ["id abc", "state ok"])


# What is not typed is parsed or loaded


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language == "python"], ids=named)
def test_python_compiles_and_settings_have_names_that_exist(block: Block):
    compile(block.text, block.place, "exec")
    if "BACKUPS = {" not in block.text:
        return
    names: dict[str, Any] = {"BASE_DIR": Path("/srv/site"), "INSTALLED_APPS": [], "DATABASES": {}, "MIDDLEWARE": []}
    exec(block.text, names)
    assert set(names["BACKUPS"]) <= set(conf.DEFAULTS)


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language == "json"], ids=named)
def test_json_is_json(block: Block):
    assert json.loads(block.text)


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language == "yaml"], ids=named)
def test_yaml_is_yaml_and_its_variables_are_documented(block: Block):
    document = yaml.safe_load(block.text)
    assert isinstance(document, dict)
    known = (PROJECT / "docs" / "settings.md").read_text("utf-8")
    for service in document.get("services", {}).values():
        for variable in service.get("environment", {}):
            assert f"`{variable}`" in known, variable


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language == "ini"], ids=named)
def test_a_unit_is_one_that_systemd_takes(block: Block, tmp_path: Path):
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(block.text)
    assert {"Unit", "Service", "Install"} <= set(parser.sections()) or "Timer" in parser.sections()
    if shutil.which("systemd-analyze") is None:
        return
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "python").symlink_to("/bin/true")
    unit = tmp_path / "walsafe.service"
    text = re.sub(r"^User=.*$", "User=root", block.text, flags=re.MULTILINE)
    text = re.sub(r"^WorkingDirectory=.*$", f"WorkingDirectory={tmp_path}", text, flags=re.MULTILINE)
    unit.write_text(re.sub(r"=/srv/\S*/python\b", f"={tmp_path}/srv/python", text))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False, timeout=60
    )
    ours = [line for line in checked.stderr.splitlines() if "walsafe" in line]
    assert ours == []


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language == "cron"], ids=named)
def test_a_line_of_a_crontab_is_due_at_some_time_and_calls_a_verb(block: Block):
    lines = [line for line in block.text.split("\n") if line.strip() and not line.startswith("#")]
    assert lines
    for line in lines:
        fields = line.split(maxsplit=5)
        assert cron.parse(" ".join(fields[:5]))
        (verb,) = re.findall(r"manage\.py backup ([a-z-]+)", fields[5])
        assert verb in VERBS


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language == "dockerfile"], ids=named)
def test_an_image_starts_a_verb(block: Block):
    instructions = re.findall(r"^([A-Z]+) ", block.text, re.MULTILINE)
    assert instructions[0] == "FROM"
    (command,) = re.findall(r"^CMD (.+)$", block.text, re.MULTILINE)
    assert json.loads(command)[:3] == ["python", "manage.py", "backup"]


# Links


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_files_and_headings_that_exist(page: Path):
    wrong = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        if re.match(r"https?://|mailto:", link):
            continue
        path = (page.parent / target).resolve() if target else page
        is_there = path.is_relative_to(PROJECT) and path.exists()
        if not is_there or (anchor and anchor not in anchors(path)):
            wrong.append(link)
    assert wrong == []


def test_the_index_names_every_page_once():
    index = PROJECT / "docs" / "README.md"
    listed = [link.partition("#")[0] for link in links(index)]
    pages = {each.name for each in PAGES if each.parent.name == "docs"} - {"README.md"}
    assert {each for each in listed if each.endswith(".md") and "/" not in each} == pages
    assert all(listed.count(each) == 1 for each in pages)


def test_pictures_are_small_and_each_is_shown():
    pictures = sorted((PROJECT / "docs" / "images").glob("*"))
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page) if link.endswith(".png")}
    assert {each.resolve() for each in pictures} == shown
    assert all(each.stat().st_size < 150_000 for each in pictures)


def test_no_page_names_a_command_that_does_not_exist():
    for page in PAGES:
        for verb in re.findall(r"`(?:python )?(?:manage\.py )?backup ([a-z][a-z-]+)", prose(page)):
            assert verb in VERBS, f"{page.name}: backup {verb}"
