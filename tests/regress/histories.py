"""Repositories for tests: git, and the smallest history that revisions are taken from."""

import os
import subprocess

CONFIG = {
    f"GIT_{who}_{what}": "nobody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


def git(folder, *arguments, **environment):
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | CONFIG | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def write(folder, path, text):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


def commit(folder, message="a change", **files):
    """Its id; files: text by path, with "__" for a slash."""
    for path, text in files.items():
        write(folder, path.replace("__", "/"), text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", f"--message={message}")
    return git(folder, "rev-parse", "HEAD")


def made(folder):
    """A package with one kernel and one variant, as the first commit of `main`."""
    write(folder, "src/twolayer/__init__.py", "")
    write(folder, "variants/v.py", "a variant")
    write(folder, "kernels/k.py", "a kernel")
    write(folder, "docs/d.md", "a page")
    write(folder, ".gitignore", "*.log\n")
    for name in ("kernels", "variants"):
        (folder / "src" / "twolayer" / name).symlink_to(f"../../{name}")
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "first")
    return folder
