"""Only the list of Cython modules and how to compile them; everything else is in pyproject.toml.

COLLECTOR_DEBUG=1 builds with bounds, overflow and address checks, for tests and fuzzers.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

DEBUG = os.environ.get("COLLECTOR_DEBUG") == "1"
HERE = Path(__file__).parent

flags = ["-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-cast-function-type",
         "-Wno-missing-field-initializers"]
flags += ["-O1", "-g", "-fsanitize=address,undefined", "-fno-omit-frame-pointer"] if DEBUG else ["-O3", "-g1"]
link = ["-fsanitize=address,undefined"] if DEBUG else []

extensions = [
    Extension(
        str(path.relative_to(HERE).with_suffix("")).replace("/", "."),
        [str(path.relative_to(HERE))],
        include_dirs=["bpf/abi", "collector/shards"],
        extra_compile_args=flags,
        extra_link_args=link,
    )
    for path in sorted((HERE / "collector").rglob("*.pyx"))
]

setup(
    # bpf/ stays at the top of the repository and travels inside the package (compiler.py looks in both places)
    packages=[*find_packages(include=["collector", "collector.*"]), "collector.bpf"],
    package_dir={"collector.bpf": "bpf"},
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
            "embedsignature": True,
        },
        nthreads=2,
    ),
)
