"""What frameworks answer for a view that returns something; each application has been handed to no state."""

from __future__ import annotations

import io
from typing import Any

from tests.support.visiting import app_answer


def flask_view(thing: Any) -> Any:
    """Of Flask, whose state has taken the application."""
    from flask import Flask

    from flask_globalstate import GlobalState

    app = Flask(__name__)
    app.config["STORE_BACKEND"] = "memory"
    GlobalState(app)
    app.add_url_rule("/", view_func=lambda: thing, endpoint="view")
    return answered(app)


def flask_template(source: str) -> Any:
    """Of a template of such an application."""
    from flask import Flask, render_template_string

    from flask_globalstate import GlobalState

    def rendered(thing: Any) -> Any:
        app = Flask(__name__)
        app.config["STORE_BACKEND"] = "memory"
        GlobalState(app)
        app.add_url_rule("/", view_func=lambda: render_template_string(source, x=thing), endpoint="view")
        return answered(app)

    return rendered


def flask_restful_resource(thing: Any) -> Any:
    import flask_restful

    return resource(flask_restful, thing)


def flask_restx_resource(thing: Any) -> Any:
    import flask_restx

    return resource(flask_restx, thing)


def resource(module: Any, thing: Any, **config: Any) -> Any:
    """Of a resource of Flask-RESTful or Flask-RESTX, in an application with a configuration."""
    from flask import Flask

    kind = type("Resource", (module.Resource,), {"get": lambda self: thing})
    app = Flask(__name__)
    app.config.update(config)
    module.Api(app).add_resource(kind, "/thing")
    return answered(app, "/thing")


def fastapi_view(thing: Any) -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    app.get("/")(lambda: thing)
    return answered(app)


def bottle_view(thing: Any) -> Any:
    from bottle import Bottle

    app = Bottle()
    app.catchall = False
    app.route("/")(lambda: thing)
    environment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
    }
    return b"".join(app(environment, lambda status, headers, error=None: None))


def dash_callback(thing: Any) -> Any:
    from dash import Dash, Input, Output, dcc, html

    app = Dash(__name__)
    app.layout = html.Div([dcc.Store(id="store"), html.Button(id="button")])
    app.callback(Output("store", "data"), Input("button", "n_clicks"))(lambda clicks: thing)
    app.server.testing = True
    response = app.server.test_client().post(
        "/_dash-update-component",
        json={
            "output": "store.data",
            "outputs": {"id": "store", "property": "data"},
            "inputs": [{"id": "button", "property": "n_clicks", "value": 1}],
            "changedPropIds": ["button.n_clicks"],
        },
    )
    return response.get_json()["response"]["store"]["data"]


def answered(app: Any, path: str = "/") -> Any:
    """What an application answers; what a view of Flask raises is raised."""
    if hasattr(app, "testing"):
        app.testing = True
        app.config["PROPAGATE_EXCEPTIONS"] = True
    return app_answer(app, path)
