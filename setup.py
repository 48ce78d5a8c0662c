"""Only the list of Cython modules and how to compile them; everything else is in pyproject.toml.

COLLECTOR_DEBUG=1 builds with bounds, overflow and address checks (`make debug-build` does it); COLLECTOR_DEBUG=fuzz with
coverage for libFuzzer too (clang only; scripts/fuzz does it). Such a build has directories of its own (`setup.py build
--build-base`, and COLLECTOR_BUILD for the C files): it can only be loaded into a program that brings the sanitizers'
runtime. COLLECTOR_EXTENSIONS=0 leaves the extensions out: scripts/setup compiles them in place itself.

A module is compiled again when its .pyx, a .pxd that it cimports or a header that one of these names has changed.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

DEBUG = os.environ.get("COLLECTOR_DEBUG") in ("1", "fuzz")
FUZZ = os.environ.get("COLLECTOR_DEBUG") == "fuzz"
HERE = Path(__file__).parent

if DEBUG and ("--inplace" in sys.argv or "-i" in sys.argv):
    raise SystemExit("an ordinary Python cannot import a debug build, so it is not made in place: see make debug-build")

flags = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-cast-function-type",
    "-Wno-missing-field-initializers",
]
if DEBUG:
    # Python's own flags make signed overflow defined (-fwrapv) and fortify memcpy, which hides what the sanitizers report
    checks = "-fsanitize=address,undefined" + (",fuzzer-no-link" if FUZZ else "")
    flags += [
        "-O2",
        "-g",
        "-fno-omit-frame-pointer",
        "-fno-wrapv",
        "-U_FORTIFY_SOURCE",
        checks,
        "-fno-sanitize-recover=undefined",
    ]
    link = [checks]
else:
    flags += ["-O3", "-g1"]
    link = []

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

if not extensions:
    raise SystemExit("no .pyx files: not a whole source tree")
if os.environ.get("COLLECTOR_EXTENSIONS") == "0":
    extensions = []

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
        build_dir=os.environ.get("COLLECTOR_BUILD"),
    ),
)
