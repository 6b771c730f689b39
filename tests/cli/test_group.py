"""The group of verbs in an application and in the package: help, documentation, imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from flask import Flask

from flask_globalstate import GlobalState
from flask_globalstate.cli.group import VERBS, main
from tests.support.verbs import Run, application, cli_of, run

pytestmark = pytest.mark.slow


def test_every_verb_has_help_in_both_groups(app: Flask, flask: Run) -> None:
    for verb in VERBS:
        ours, its = run(verb, "--help"), flask(verb, "--help")
        assert ours.exit_code == its.exit_code == 0
        assert ours.stdout.splitlines()[1:] == its.stdout.splitlines()[1:]
        assert verb in run("--help").stdout


def test_a_command_of_the_application_stays_its_own(tmp_path: Path) -> None:
    app = application(tmp_path, "memory")

    @app.cli.command("globalstate")
    def own() -> None:
        click.echo("mine")

    GlobalState(app)
    assert cli_of(app).invoke(args=["globalstate"]).stdout == "mine\n"


def test_an_application_imports_no_verb() -> None:
    script = (
        "import sys, flask; from flask_globalstate import GlobalState; GlobalState(flask.Flask('x'));"
        "print(*[name for name in sys.modules if name.startswith(('flask_globalstate.cli.', "
        "'flask_globalstate.scan'))])"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["flask_globalstate.cli.group"]


def test_every_verb_and_option_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.rst").read_text(encoding="utf-8")
    options = {
        option
        for parameter in main.get_command(click.Context(main), "names").params
        for option in parameter.opts
    }
    assert [name for name in {*VERBS, *options} if f"``{name}" not in page] == []
