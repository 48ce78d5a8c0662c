"""Cython modules of the tests: they see the compiled core from inside, and are compiled by the test that needs them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[3]
_BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
root, name = sys.argv[1:]
setup(name=name, script_args=["-q", "build_ext", "--inplace"], ext_modules=cythonize(
    [Extension(name, [name + ".pyx"], include_dirs=[root + "/bpf/abi", root + "/collector/shards"],
        extra_compile_args=["-O0", "-g0"])],
    include_path=[root], compiler_directives={"language_level": 3, "cdivision": True, "wraparound": False}))
"""


def load(source: Path, folder: Path) -> ModuleType:
    """Compile ``source`` in ``folder``, and import it."""
    name = source.stem
    shutil.copy(source, folder)
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, str(ROOT), name],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (library,) = folder.glob(f"{name}*.so")
    spec = importlib.util.spec_from_file_location(name, library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
