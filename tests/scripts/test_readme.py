"""The commands of README and docs parse: all flags of scripts, all targets of the Makefile; links lead somewhere."""

import re
import subprocess

from tests.scripts.processes import ROOT, run_all

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[list[str]]:
    """Words of each line in the pages' shell blocks that calls one of our scripts or make."""
    text = "\n".join(page.read_text() for page in PAGES).replace("\\\n", " ")
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    found = [re.findall(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""", line) for line in lines]
    found = [[word.replace('"', "").replace("'", "") for word in words] for words in found]
    return [words for words in found if re.match(r"(\S*python scripts/|make )", " ".join(words))]


def test_the_commands_of_the_pages_parse(tmp_path):
    assert len(PAGES) > 10
    scripts = {" ".join(words): [*words[1:], "--only_check_args"] for words in commands() if words[0] != "make"}
    targets = [words[1:] for words in commands() if words[0] == "make"]
    assert ["reproduce"] in targets and any(argv[0] == "scripts/train.py" for argv in scripts.values())
    for target in targets:
        assert subprocess.run(["make", "-n", *target], cwd=ROOT, capture_output=True).returncode == 0, target
    for line, (code, output) in run_all(scripts, tmp_path).items():
        assert code == 0, (line, output)


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, ROOT / "results" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), (page, target)
