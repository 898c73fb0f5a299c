"""The extension modules; everything else is in pyproject.toml.

`HOLDFAST_EXTENSIONS=engine python setup.py build_ext -i` builds one package's.
"""

import os
import platform
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
PACKAGES = os.environ.get("HOLDFAST_EXTENSIONS", "engine persistence recovery api").split()
ARGUMENTS = ["-O3", "-fno-math-errno", "-fwrapv", "-Wno-unused-function"]
if platform.machine() in ("x86_64", "AMD64"):
    # SSE4.2 is the CRC32C instruction; every x86-64 server since 2009 has it.
    ARGUMENTS += ["-msse4.2", "-mpopcnt"]

extensions = [
    Extension(
        ".".join(source.relative_to(ROOT).with_suffix("").parts),
        [str(source.relative_to(ROOT))],
        include_dirs=[numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=ARGUMENTS,
    )
    for package in PACKAGES
    for source in sorted((ROOT / package).rglob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        language_level=3,
        compiler_directives={
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    )
    if extensions
    else [],
)
