"""The calls of libraries that are tried with plain objects, with shared globals and with what is in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import frameworks

#: the plain objects that a call is tried with, by the name that it calls them
PLAIN: dict[str, Any] = {
    "D": {"a": 1, "b": "x"},
    "COLUMNS": {"a": [1, 2], "b": [3, 4]},
    "PRICES": {"a": 2.5},
    "GRAPH": {1: [2, 3], 2: [3]},
    "L": [1, 2, 3],
    "ROWS": [{"a": 1, "b": 2}, {"a": 3, "b": 4}],
    "S": {1, 2, 3},
}

SAME = "the same"


@dataclass(frozen=True)
class Call:
    """A call, and what comes of it.

    :ivar code: the expression, of one of the names in `PLAIN`; or what the docs say, if it is a function.
    :ivar function: called with the object instead.
    :ivar shared: what comes of it for a shared global: `SAME` as with the plain object, the name of the
        exception, or else in what the answer differs.
    :ivar inside: the same for what was read from a shared dict.
    :ivar instead: an expression that does it.
    :ivar shown: what the docs show instead of ``code``.
    """

    code: str
    shared: str = SAME
    inside: str = SAME
    instead: str = ""
    function: Callable[[Any], Any] | None = None
    on: str = "D"
    shown: str = ""


def view(what: str, function: Callable[[Any], Any], on: str = "D", **outcome: str) -> Call:
    """A call that takes more than an expression."""
    return Call(what, function=function, on=on, **outcome)


TYPES = "it reports another type"
ITSELF = "it holds the shared dict itself"

CALLS: dict[str, list[Call]] = {
    "the language": [
        Call("isinstance(D, dict)"),
        Call("isinstance(L, list)"),
        Call("isinstance(S, set)"),
        Call("type(D) is dict", "False", "False", "isinstance(D, dict)"),
        Call("matched(D)", shown="match D: case {...}"),
        Call("matched(L)", shown="match L: case [...]"),
        Call("dict(**D)"),
        Call("{'z': 0} | D"),
        Call("{**D, 'z': 0}"),
        Call("[*L, 0]"),
        Call("[0] + L"),
        Call("L[1:]"),
        Call("{0} | S"),
        Call("S <= {1, 2, 3, 4}"),
        Call("'%(a)s, %(b)s' % D"),
        Call("'{a}, {b}'.format_map(D)"),
        Call("','.join(map(str, L))"),
        Call("sorted(D.items())"),
    ],
    "functools": [
        Call("dispatched(D)", shown="@functools.singledispatch"),
        Call("dispatched(L)", shown="@functools.singledispatch"),
        Call("dispatched(S)", shown="@functools.singledispatch"),
    ],
    "copy": [Call("copy.copy(D)"), Call("copy.deepcopy(ROWS)"), Call("copy.copy(S)")],
    "pickle": [Call("pickle.loads(pickle.dumps(D))"), Call("pickle.loads(pickle.dumps(ROWS))")],
    "dataclasses": [Call("dataclasses.asdict(Holder(D))"), Call("dataclasses.asdict(Holder(ROWS))")],
    "collections": [Call("collections.Counter(D)"), Call("dict(collections.ChainMap(D, {'z': 0}))")],
    "string": [Call("string.Template('$a, $b').substitute(D)")],
    "logging": [
        Call("logging.LogRecord('app', 20, 'app.py', 1, '%(a)s', (D,), None).getMessage()"),
    ],
    "urllib": [Call("urllib.parse.urlencode(D)"), Call("urllib.parse.urlencode({'n': L}, doseq=True)")],
    "csv": [
        Call(
            "written(lambda file: csv.DictWriter(file, ['a', 'b']).writerows(ROWS))",
            shown="csv.DictWriter(...).writerows(ROWS)",
        )
    ],
    "random": [Call("random.Random(1).choice(L)"), Call("random.Random(1).sample(L, 2)")],
    "bisect": [Call("bisect.bisect(L, 2)")],
    "statistics": [Call("statistics.mean(L)")],
    "heapq": [
        Call("heapq.nsmallest(2, L)"),
        Call(
            "heapq.heappop(L)", "TypeError", "it changes this worker's copy only", "with X.edit() as plain:"
        ),
    ],
    "sqlite3": [
        Call("selected('?, ?, ?', L)", shown="execute('select ?, ?, ?', L)"),
        Call("selected(':a, :b', D)", "KeyError", SAME, "D.copy()", shown="execute('select :a, :b', D)"),
    ],
    "json": [
        Call("json.dumps(D)", "TypeError", SAME, "json.dumps(D, default=json_default)"),
        Call("json.dumps(L)", "TypeError", SAME, "json.dumps(L, default=json_default)"),
    ],
    "simplejson": [
        Call("simplejson.dumps(D)", "TypeError", SAME, "simplejson.dumps(D, default=json_default)"),
    ],
    "orjson": [
        Call("orjson.dumps(D)", "TypeError", SAME, "orjson.dumps(D, default=json_default)"),
        Call("orjson.dumps(ROWS)", "TypeError", SAME, "orjson.dumps(ROWS, default=json_default)"),
    ],
    "msgpack": [
        Call("msgpack.packb(D)", "TypeError", SAME, "msgpack.packb(D, default=json_default)"),
        Call("msgpack.packb(L)", "TypeError", SAME, "msgpack.packb(L, default=json_default)"),
    ],
    "msgspec": [
        Call("msgspec.json.encode(D)", "TypeError", SAME, "msgspec.json.encode(D, enc_hook=json_default)"),
    ],
    "PyYAML": [
        Call("yaml.dump(D)"),
        Call("yaml.dump(ROWS)"),
        Call("yaml.safe_dump(D)"),
        Call("yaml.safe_dump(S)"),
        Call("yaml.safe_dump({'rows': ROWS})"),
    ],
    "ruamel.yaml": [
        Call("written(lambda file: ruamel.yaml.YAML().dump(D, file))", shown="YAML().dump(D, file)")
    ],
    "tomli-w": [Call("tomli_w.dumps(D)")],
    "NumPy": [
        Call("numpy.array(L)"),
        Call("numpy.array(D)"),
        Call("numpy.array(S)"),
        Call("numpy.arange(3) + L"),
        Call("numpy.arange(9)[L]"),
    ],
    "pandas": [
        Call("pandas.DataFrame(COLUMNS)"),
        Call("pandas.DataFrame(ROWS)"),
        Call("pandas.DataFrame.from_dict(COLUMNS, orient='index')"),
        Call("pandas.json_normalize(ROWS)"),
        Call("pandas.Series(D)"),
        Call("pandas.Series(L)"),
        Call("pandas.Series([1, 9]).isin(S)"),
        Call("pandas.Series(['a', 'c']).map(D)"),
        Call("pandas.Series(['a', 'c']).replace(D)"),
        Call("pandas.DataFrame({'a': [None, 1.0]}).fillna(PRICES)"),
        Call("pandas.DataFrame({'b': [1]}).rename(columns=D)"),
    ],
    "SQLAlchemy": [
        Call("compiled(sqlalchemy.column('n').in_(L))", shown="column.in_(L)"),
        Call(
            "executed(sqlalchemy.text('select :a, :b'), D)",
            shown="connection.execute(text('select :a, :b'), D)",
        ),
    ],
    "requests": [
        Call("requests.Request('GET', 'http://localhost/', params=D).prepare().url"),
        Call("requests.Request('POST', 'http://localhost/', data=D).prepare().body"),
        Call(
            "requests.Request('POST', 'http://localhost/', json=D).prepare().body",
            "TypeError",
            SAME,
            "requests.Request('POST', 'http://localhost/', json=D.copy()).prepare().body",
        ),
    ],
    "jsonschema": [
        Call("jsonschema.Draft202012Validator({'type': 'object', 'required': ['a']}).is_valid(D)"),
        Call("jsonschema.Draft202012Validator({'type': 'array', 'items': {'type': 'string'}}).is_valid(L)"),
    ],
    "deepdiff": [
        Call("deepdiff.DeepDiff({'a': 1}, D)", TYPES, TYPES, "deepdiff.DeepDiff({'a': 1}, unwrap(D))"),
    ],
    "tabulate": [Call("tabulate.tabulate(ROWS, headers='keys')")],
    "networkx": [Call("sorted(networkx.Graph(GRAPH).edges)")],
    "xmltodict": [Call("xmltodict.unparse({'root': D})")],
    "attrs": [Call("attrs.asdict(Thing(D))", ITSELF, SAME, "attrs.asdict(Thing(D.copy()))")],
    "cattrs": [Call("cattrs.structure(D, Model)"), Call("cattrs.unstructure(D)")],
    "pydantic": [
        Call("Item.model_validate(D)"),
        Call("Box(content=D).model_dump()"),
        Call("Box(content=D).model_dump_json()"),
        Call("pydantic.TypeAdapter(list[int]).validate_python(L)"),
        Call(
            "pydantic.TypeAdapter(object).dump_json(D)",
            "PydanticSerializationError",
            SAME,
            "pydantic.TypeAdapter(object).dump_json(unwrap(D))",
        ),
    ],
    "marshmallow": [
        Call("ItemSchema().dump(D)"),
        Call("ItemSchema().load(D)"),
        Call("ItemSchema(many=True).dump(ROWS)"),
    ],
    "Flask": [
        view("a view that returns D", frameworks.flask_view),
        view("a view that returns L", frameworks.flask_view, on="L"),
        view(
            "{{ x.a }}{% for key in x %}{{ key }}{% endfor %}",
            frameworks.flask_template("{{ x.a }}{% for key in x %}{{ key }}{% endfor %}"),
        ),
        view("{{ x|tojson }}", frameworks.flask_template("{{ x|tojson }}")),
        view("{{ x|dictsort }}", frameworks.flask_template("{{ x|dictsort }}")),
        view("{{ x|join(',') }}", frameworks.flask_template("{{ x|join(',') }}"), on="L"),
    ],
    "Flask-RESTful": [
        Call("flask_restful.marshal(D, {'a': flask_restful.fields.Integer})"),
        view(
            "a resource that returns D",
            frameworks.flask_restful_resource,
            shared="TypeError",
            instead='app.config["RESTFUL_JSON"] = {"default": json_default}',
        ),
    ],
    "Flask-RESTX": [
        Call("flask_restx.marshal(D, {'a': flask_restx.fields.Integer})"),
        view(
            "a resource that returns D",
            frameworks.flask_restx_resource,
            shared="TypeError",
            instead='app.config["RESTX_JSON"] = {"default": json_default}',
        ),
    ],
    "FastAPI": [
        view("a view that returns D", frameworks.fastapi_view),
        view("a view that returns ROWS", frameworks.fastapi_view, on="ROWS"),
    ],
    "Bottle": [
        view("a view that returns D", frameworks.bottle_view, shared="TypeError", instead="return D.copy()"),
    ],
    "Dash": [
        view("a callback that returns D", frameworks.dash_callback),
        view("a callback that returns ROWS", frameworks.dash_callback, on="ROWS"),
    ],
}
