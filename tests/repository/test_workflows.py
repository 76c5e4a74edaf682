"""What the workflows may do, what they call, and that their scripts tell the outcomes apart."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.iterdir())}
JOBS = {
    f"{name}:{job}": (flow, about)
    for name, flow in WORKFLOWS.items()
    for job, about in flow["jobs"].items()
}
STEPS = [(job, step) for job, (_, about) in JOBS.items() for step in about["steps"]]
SCRIPTS = [pytest.param(step["run"], id=job) for job, step in STEPS if "run" in step]
# A job that runs nothing of what was checked out or measured may write this much.
WRITING = {
    "regress-comment.yml:comment": {"pull-requests"},
    "asv.yml:keep": {"contents"},
    "asv.yml:deploy": {"pages", "id-token"},
    "release.yml:publish": {"id-token"},
}
# Whatever else an event says, somebody outside may have written.
SAFE = re.compile(
    r"github\.(ref|token|workflow|repository|event\.pull_request\.number"
    r"|event\.workflow_run\.(id|html_url|head_sha))"
    r"|matrix\.python-version|runner\.temp|steps\.pages\.outputs\.page_url"
)


def script(job, name):
    """The script of a job's step."""
    (found,) = (step["run"] for at, step in STEPS if (at, step.get("name")) == (job, name))
    return found


def bash(command, folder, **environment):
    """Run a script as GitHub does."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def git(folder, *arguments):
    """What git prints."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def program(tmp_path):
    """program(path, script): an executable below tmp_path."""

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    return write


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_grants_nothing_or_reading(name):
    assert set(WORKFLOWS[name]["permissions"].values()) <= {"read"}


@pytest.mark.parametrize("job", JOBS)
def test_only_jobs_that_run_nothing_measured_may_write(job):
    _, about = JOBS[job]
    granted = {name for name, right in about.get("permissions", {}).items() if right != "read"}
    assert granted == WRITING.get(job, set())
    if granted:
        said = " ".join(step.get("run", "") for step in about["steps"])
        assert not re.search(r"make|python|pip|twolayer|source|\./", said)
        assert not any("setup-python" in step.get("uses", "") for step in about["steps"])


@pytest.mark.parametrize("job", sorted(JOBS.keys() - WRITING.keys()))
def test_the_token_is_not_left_to_what_runs(job):
    for at, step in STEPS:
        if at == job and step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("name", WORKFLOWS)
def test_events_give_no_stranger_the_rights_of_main(name):
    events = set(WORKFLOWS[name][True])  # YAML 1.1 reads `on` as true
    assert events <= {"push", "pull_request", "workflow_run", "schedule", "workflow_dispatch"}
    if "workflow_run" in events:
        uses = [step["uses"] for job, step in STEPS if job.startswith(name) and "uses" in step]
        assert not uses


def test_actions_are_pinned_with_their_version():
    for path in FOLDER.iterdir():
        for line in path.read_text().splitlines():
            if "uses:" in line:
                assert re.search(r"uses: [\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("text", SCRIPTS)
def test_scripts_hold_no_expressions(text):
    assert "${{" not in text


@pytest.mark.parametrize("name", WORKFLOWS)
def test_expressions_hold_nothing_that_a_stranger_words(name):
    for found in re.findall(r"\$\{\{ *(.*?) *\}\}", (FOLDER / name).read_text()):
        condition = re.fullmatch(r"!cancelled\(\)( && needs\.measure\.result != 'skipped')?", found)
        assert condition or SAFE.fullmatch(found), found


@pytest.mark.parametrize("text", SCRIPTS)
def test_scripts_are_bash_and_what_they_make_exists(text):
    subprocess.run(["bash", "-n", "-c", text], check=True)
    for target in re.findall(r"\bmake (.+)", text):
        found = bash(f"make --dry-run --always-make {target}", ROOT)
        assert found.returncode == 0, found.stderr
        for tool in re.findall(r"\btools/\S+\.py", found.stdout):
            assert (ROOT / tool).is_file()


@pytest.mark.parametrize(
    ("tag", "version", "heading", "said"),
    [
        ("v0.2.0", "0.2.0", "## [0.2.0] - 2026-12-01", ""),
        ("v0.2.1", "0.2.0", "## [0.2.1] - 2026-12-01", "has another version"),
        ("v0.2.0", "0.2.0", "## [Unreleased]", "no dated section"),
        ("v0.2.0", "0.2.0", "## [0x2.0] - 2026-12-01", "no dated section"),
        ("v0.2.0", "0.2.0", "## [0.2.0]", "no dated section"),
    ],
)
def test_only_a_version_that_is_told_is_released(tmp_path, tag, version, heading, said):
    package = tmp_path / "src" / "twolayer"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f'__version__ = "{version}"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    check = script("release.yml:build", "The tag, the version and the changelog agree")
    found = bash(check, tmp_path, GITHUB_REF_NAME=tag)
    assert (found.returncode, said in found.stdout) == (int(bool(said)), True)


def test_nothing_is_published_until_it_is_switched_on():
    assert JOBS["release.yml:publish"][1]["if"] == "vars.PUBLISH == 'yes'"


def test_one_workflow_waits_for_the_other():
    assert WORKFLOWS["regress-comment.yml"][True]["workflow_run"]["workflows"] == ["regress"]
    assert WORKFLOWS["regress.yml"]["name"] == "regress"


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize(
    ("code", "ends", "said"),
    [
        (0, 0, ""),
        (1, 1, "::error title=Regression::"),
        (2, 2, "::error title=Failure::"),
        (3, 0, "::warning title=Too little measured::"),
    ],
)
def test_the_outcomes_of_a_pull_request_are_told_apart(tmp_path, program, code, ends, said, table):
    writing = "echo the table > table.md" if table else ""
    program(".venv/bin/twolayer", f'echo "$@" > arguments\n{writing}\nexit {code}')
    summary = tmp_path / "summary"
    given = {"NUMBER": "12", "GITHUB_STEP_SUMMARY": str(summary)}
    found = bash(script("regress.yml:regress", "Compare"), tmp_path, **given)
    assert found.returncode == ends
    assert found.stdout.startswith(said)
    assert bool(found.stdout) == bool(said)
    early = f"`twolayer regress` ended early, with exit code {code}.\n"
    assert summary.read_text() == ("the table\n" if table else early)
    arguments = "regress HEAD^1 HEAD --exact --markdown table.md --json table.json\n"
    assert (tmp_path / "arguments").read_text() == arguments
    assert (tmp_path / "number").read_text() == "12\n"


GH = """
case "$1 $2" in
  "run download") test -d ../kept && cp -RP ../kept "$7" ;;
  "api repos/o/r/pulls/12") echo abc ;;
  "pr comment") echo "$@" > posted; cp "$5" body ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def comment(tmp_path, program):
    """comment(files): what the script prints and the comment, for files that were kept."""

    def run(**files):
        program("bin/gh", GH)
        folder = tmp_path / "here"
        folder.mkdir()
        if files:
            (tmp_path / "kept").mkdir()
        for name, text in files.items():
            file = tmp_path / "kept" / name.replace("table", "table.md")
            file.symlink_to(text) if isinstance(text, Path) else file.write_text(text)
        given = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "GH_REPO": "o/r", "RUN": "5", "URL": "https://r/5", "HEAD": "abc",
        }  # fmt: skip
        found = bash(script("regress-comment.yml:comment", "Comment"), folder, **given)
        posted = (folder / "posted").exists()
        return found, (folder / "body").read_text() if posted else None

    return run


def test_the_table_is_posted_as_it_is_and_calls_nobody(comment):
    table = "| `$(touch data/ran)` | ${{ github.token }} | @somebody |\n"
    found, body = comment(number="12\n", table=table)
    assert found.returncode == 0, found.stderr
    first, rest = body.split("\n\n")
    assert first.startswith("At abc, [measured](https://r/5)")
    assert rest == table.replace("@", "@<!-- -->")


def test_a_long_table_still_fits_a_comment(comment):
    found, body = comment(number="12", table="@" * 3_000_000)
    assert found.returncode == 0, found.stderr
    assert 60_000 < len(body) < 65_536


@pytest.mark.parametrize("number", ["", "x", "12; gh", "0", "-1", "1\n2", "../../x", "9" * 30])
def test_what_is_no_number_is_not_posted(comment, number):
    found, body = comment(number=number, table="t")
    assert body is None
    assert found.returncode == 1
    assert "::error title=Not posted::" in found.stdout


def test_another_pull_request_is_not_written_to(comment):
    found, body = comment(number="13", table="t")
    assert body is None
    assert found.stdout.startswith("::warning title=Not posted::")


def test_links_show_no_file_of_the_job_that_posts(comment, tmp_path):
    (tmp_path / "secret").write_text("secret")
    found, body = comment(number="12", table=tmp_path / "secret")
    assert body is None
    assert found.returncode == 1


def test_no_table_is_a_warning(comment):
    found, body = comment()
    assert body is None
    assert (found.returncode, found.stdout[:26]) == (0, "::warning title=No table::")


def test_results_go_from_night_to_night(tmp_path):
    """Through the branch that one job pushes and another one reads, the first time and later."""
    origin, first = tmp_path / "origin", tmp_path / "first"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    git(tmp_path, "clone", "--quiet", str(origin), str(first))
    (first / "code").touch()
    git(first, "add", "code")
    git(first, "commit", "--quiet", "--message=code")
    git(first, "push", "--quiet", "origin", "HEAD:main")
    for night, kept in enumerate([{"a-1"}, {"a-1", "b-2"}, {"a-1", "b-2"}]):
        job = tmp_path / f"night{night}"
        git(tmp_path, "clone", "--quiet", str(origin), str(job))
        found = bash(script("asv.yml:measure", "Results so far"), job)
        assert found.returncode == 0, found.stderr
        results = job / ".asv" / "results"
        (results / "local").mkdir(exist_ok=True)
        (results / "benchmarks.json").write_text("{}")
        (results / "local" / ("a-1.json" if night == 0 else "b-2.json")).write_text("{}")
        done = bash(script("asv.yml:keep", "Keep"), job, RESULTS=str(results), GITHUB_SHA="abc")
        assert done.returncode == 0, done.stderr
        files = git(origin, "ls-tree", "-r", "--name-only", "asv-results").split()
        assert files == ["benchmarks.json", *(f"local/{name}.json" for name in sorted(kept))]
    assert git(origin, "rev-list", "--count", "asv-results") == "2"  # nothing new, no commit


def test_results_are_kept_and_published_after_a_failure_too():
    """asv's exit code is 2 where a single benchmark failed."""
    steps = JOBS["asv.yml:measure"][1]["steps"]
    measured = [step.get("name") for step in steps].index("Measure")
    assert all(step["if"] == "${{ !cancelled() }}" for step in steps[measured + 1 :])
    for job in ("keep", "deploy"):
        assert JOBS[f"asv.yml:{job}"][1]["if"].startswith("${{ !cancelled() && needs.measure")
