"""Fetches the engines that the tests here run, into cache/engines (`make engines`).

    python tests/engines/fetch.py             all three
    python tests/engines/fetch.py flink

- prism  Beam's engine in Go, in the version of our Beam; needs go, which checks its hash
- flink  Flink's distribution from PyPI (by hash), Beam's job server from Maven Central; needs Java
- spark  Spark's distribution from PyPI (by hash), Beam's job server from Maven Central; needs Java

Prints which could not be fetched, and why; exit code 1 if none could.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import apache_beam

ENGINES = Path(__file__).resolve().parent.parent.parent / "cache" / "engines"

# The newest Java release of Beam that Maven Central's mirrors had in full for both engines. Its job
# servers accept jobs of newer Python SDKs: the protocol between them is stable.
BEAM_JAVA = "2.62.0"
RUNNERS = {"flink": "beam-runners-flink-1.19", "spark": "beam-runners-spark-3"}
DISTRIBUTIONS = {
    "flink": (
        "apache-flink-libraries==1.19.3",
        "4a58e3a1fb7d83340bc96b6c080624c6d792d69fae5d294b96224775204a9c60",
    ),
    "spark": (
        "pyspark==3.5.7",
        "80e36514e0c5c126d35a26adf4f405cd4a69de96a8ea8a3c1e9a65fce2fb4eaa",
    ),
}
KEPT = {"flink": ("bin", "lib"), "spark": ("jars",)}
POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>winnow</groupId><artifactId>job-server</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.beam</groupId><artifactId>{runner}</artifactId><version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.beam</groupId><artifactId>beam-runners-java-job-service</artifactId>
      <version>{version}</version>
    </dependency>
  </dependencies>
</project>
"""


def main() -> None:
    """Fetch the engines that are missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ("prism", "flink", "spark")
    parser.add_argument("engines", nargs="*", default=known, help=f"{', '.join(known)}")
    engines = parser.parse_args().engines
    if unknown := set(engines) - set(known):
        parser.error(f"no engine is called {', '.join(sorted(unknown))}")
    here = 0
    for engine in engines:
        fetch: Callable[[Path], None] = prism if engine == "prism" else clusters
        try:
            fetch(ENGINES / engine)
        except (OSError, RuntimeError) as error:
            print(f"{engine}: not fetched: {error}", file=sys.stderr)
        else:
            here += 1
            print(f"{engine}: {ENGINES / engine}")
    sys.exit(not here)


def prism(place: Path) -> None:
    """Build Prism, unless Go has it in its cache."""
    package = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{apache_beam.__version__}"
    _run("go", "install", package, env={"GOBIN": str(place.parent)})


def clusters(place: Path) -> None:
    """Fetch an engine's distribution and Beam's job server for it, each atomically."""
    engine = place.name
    if shutil.which("java") is None:
        raise FileNotFoundError("java is missing")
    place.mkdir(parents=True, exist_ok=True)
    for part, fetch in (("distribution", _distribution), ("job_server", _job_server)):
        if not (place / part).is_dir():
            with tempfile.TemporaryDirectory(dir=place) as partial:
                fetch(engine, Path(partial)).rename(place / part)


def _distribution(engine: str, folder: Path) -> Path:
    requirement, sha256 = DISTRIBUTIONS[engine]
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    _run(*pip, "--no-binary=:all:", f"--dest={folder}", f"--requirement={wanted}")
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    kept = folder / "kept"
    kept.mkdir()
    for name in KEPT[engine]:
        next(folder.glob(f"*/deps/{name}")).rename(kept / name)
    return kept


def _job_server(engine: str, folder: Path) -> Path:
    (folder / "pom.xml").write_text(POM.format(runner=RUNNERS[engine], version=BEAM_JAVA))
    # -C: a wrong checksum is an error.
    maven = ["mvn", "--batch-mode", "--quiet", "-C", f"--file={folder}/pom.xml"]
    _run(*maven, "dependency:copy-dependencies", f"-DoutputDirectory={folder}/jars")
    return folder / "jars"


def _run(program: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Run a command.

    Raises:
        FileNotFoundError: there is no such program.
        RuntimeError: it failed; the message is its first line with "error".
    """
    if shutil.which(program) is None:
        raise FileNotFoundError(f"{program} is missing")
    command = [program, *arguments]
    environment = os.environ | (env or {})
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        spoken = [line for line in lines if "error" in line.lower()]
        raise RuntimeError((spoken or lines or [f"{program} failed"])[0])


if __name__ == "__main__":
    main()
