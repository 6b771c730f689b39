"""In the templates of an application a shared or tracked dict is looked into as a dict is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, render_template_string

from flask_globalstate import GlobalState, SharedDict
from tests.support.apps import make_app

CONTENT: dict[str, Any] = {
    **{name: f"the {name}" for name in ("name", "edit", "apply", "sync", "increment", "snapshot", "_name")},
    "items": "hidden by the method, as in a dict",
    "deep": {"name": "Ann", "proxy": 1, "key": [{"name": "Bob"}]},
    "rows": [1, 2],
}
TEMPLATES = """
{{ d.name }}
{{ d.edit }}
{{ d.apply }}
{{ d.sync }}
{{ d.increment }}
{{ d.snapshot }}
{{ d['name'] }}
{{ d['edit'] }}
{{ d.deep.name }}
{{ d.deep.key[0].name }}
{{ d._name }}
{{ d.compare_and_set }}
{{ d['compare_and_set'] }}
{{ d.none is defined }}
{{ d['x'] }}
{{ d.deep._path }}
{{ d.deep._tracked_value }}
{{ d.deep.proxy }}
{{ d.rows._path }}
{{ d.get('name') }}
{{ d.items is callable }}
{{ d.keys() | list | length }}
{{ d | length }}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}
{{ d.rows[1] }}
{{ d.deep | tojson }}
{{ l.sync }}
{{ l.name }}
{{ l[0] }}
{{ l.0 }}
{{ l.append is callable }}
{{ l | join }}
{{ s.sync }}
{{ s | length }}
{{ d.rows.sync }}
{{ d | attr('items') is callable }}
""".strip().splitlines()


@pytest.fixture(params=["memory", "shelve"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    app = make_app(STORE_BACKEND=request.param, STORE_PATH=str(tmp_path / "store"))
    app.extensions["state"] = state = GlobalState(app)
    yield app
    state.close()


def rendered(app: Flask, template: str, **context: Any) -> str:
    with app.test_request_context():
        app.preprocess_request()
        return render_template_string(template, **context)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_shows_what_it_shows_of_plain_objects(app: Flask, template: str) -> None:
    state: GlobalState = app.extensions["state"]
    plain = {"d": CONTENT, "l": [1, 2], "s": {1}}
    shared = {"d": state.dict("D", CONTENT), "l": state.list("L", [1, 2]), "s": state.set("S", {1})}
    assert rendered(app, template, **shared) == rendered(Flask("plain"), template, **plain)


def test_a_shared_value_in_a_template_is_its_value_or_an_error_that_names_it(app: Flask) -> None:
    user = app.extensions["state"].value("USER", {"name": "Ann"})
    assert rendered(app, "{{ u.value.name }} {{ u }}", u=user) == "Ann {&#39;name&#39;: &#39;Ann&#39;}"
    for template in ("{{ u.name }}", "{{ u['name'] }}"):
        with pytest.raises(AttributeError, match=r"USER\.value\.name"):
            rendered(app, template, u=user)


def test_nobody_adds_a_public_name_to_a_shared_dict_lightly() -> None:
    assert {name for name in set(dir(SharedDict)) - set(dir(dict)) if not name.startswith("_")} == {
        "apply",
        "compare_and_set",
        "edit",
        "increment",
        "snapshot",
        "sync",
    }
