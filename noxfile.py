#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.10.14"]
# ///

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"

PROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    return nox.project.dependency_groups(PROJECT, name)


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests and the package's doctests."""
    session.install("--editable", ".[fast,demo]", *group("test"))
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style of the code and of the project."""
    session.install(*group("dev"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    # GH and SEC001 are about one host's workflows; the Markdown is wrapped by hand, and there is no reStructuredText.
    session.run("sp-repo-review", ".", "--ignore", "GH,SEC001,PC170,PC180")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types of the package."""
    session.install("--editable", ".", *group("dev"))
    session.run("mypy")


@nox.session(default=False)
def hostile(session: nox.Session) -> None:
    """Run tests as on machines of other people; after --: --list, --full, --only NAME, --without NAME."""
    session.install("--editable", ".[fast,demo]", *group("test"))
    session.run("python", ".ci/hostile", *session.posargs)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Compare drawn products and matrices with their definition, for two minutes, or with the fuzzer's options after --."""
    session.install("--editable", ".[fast]", *group("test"))
    session.run("python", "-m", "tests.fuzz", *(session.posargs or ["--minutes", "2"]))


@nox.session(default=False)
def caches(session: nox.Session) -> None:
    """Let four processes at once fill an empty cache of compiled code, five times, or with other options after --."""
    session.install("--editable", ".[fast]", *group("test"))
    session.run("python", "-m", "tests.caches", *(session.posargs or ["--count", "5"]))


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Change one operator or number at a time and see a test fail, or with the script's options after --."""
    session.install("--editable", ".[fast]", "cosmic-ray>=8.4", *group("test"))
    session.run("python", ".ci/mutants", *session.posargs)


@nox.session(default=False)
def imports(session: nox.Session) -> None:
    """Check that modules import from floors below them alone, by faces."""
    session.install("--editable", ".[fast]", *group("test"))
    session.run("pytest", "tests/test_imports.py")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the site; a warning is an error. Then look at it in a browser, if there is a Chromium."""
    session.install("--editable", ".[fast,demo]", *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)
    session.run("pytest", "tests/site")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Run the asv suite against the checkout: each benchmark once, keeping nothing, or with asv's options after --."""
    session.install("--editable", ".[fast]", *group("bench"))
    session.run("asv", "machine", "--yes")
    # asv keeps what it measures in its own interpreter only under a commit that it is told.
    commit = session.run("git", "rev-parse", "HEAD", external=True, silent=True) or ""
    options = session.posargs or ["--quick", "--dry-run"]
    session.run("asv", "run", "--python=same", f"--set-commit-hash={commit.strip()}", "--show-stderr", *options)


if __name__ == "__main__":
    nox.main()
