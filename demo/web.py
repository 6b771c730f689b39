"""The plumbing of the page: answers, headers, and who may send a POST."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, Response, abort, jsonify, redirect, request, url_for
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Response as BaseResponse

from demo.messages import message_for

MAX_DISCARDED = 16 * 1024 * 1024

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": with it a browser sends "Origin: null" with our own forms, too.
    "Referrer-Policy": "same-origin",
}


def protect(app: Flask) -> None:
    """Refuse what other sites send, and tell the browser to load nothing from elsewhere."""
    app.before_request(refuse_cross_site)
    app.after_request(add_headers)
    app.register_error_handler(RequestEntityTooLarge, too_large)


def answer(code: str, *, line: int | None = None, anchor: str | None = None) -> BaseResponse:
    """What a POST returns: a redirect that shows a message, or the message as JSON for a script."""
    if request.accept_mimetypes.best == "application/json":
        message = message_for(code, line)
        assert message is not None
        response = jsonify(text=message.text, good=message.good)
        response.status_code = message.status
        return response
    return redirect(url_for("demo.index", message=code, line=line, _anchor=anchor), code=303)


def refuse_cross_site() -> None:
    """Stop a change that a page of another site makes in a visitor's name.

    A browser says where a request comes from; a client that says nothing (curl) acts for nobody but itself.
    """
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        allowed = site in ("same-origin", "none")
    else:
        # Browsers send Sec-Fetch-Site over https and to localhost only.
        allowed = origin is None or urlsplit(origin).netloc.lower() == request.host.lower()
    if not allowed:
        abort(403, "This form can only be sent from the page itself.")


def add_headers(response: Response) -> Response:
    """Add the security headers; only the static files may be kept by a browser."""
    response.headers.extend(HEADERS)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


def too_large(error: RequestEntityTooLarge) -> BaseResponse:
    """Say so in the page."""
    discard_body()
    return answer("csv-too-large" if request.endpoint == "demo.upload" else "too-large", anchor="table")


def discard_body() -> None:
    """Read what is too long to be used.

    A browser that is still sending when the connection is closed shows an error of its own in place of
    our answer.
    """
    announced = request.content_length or 0
    if announced <= (request.max_content_length or 0):
        return  # The limit that was met is another one, and nobody knows how far the body has been read.
    left = min(announced, MAX_DISCARDED)
    while left > 0 and (chunk := request.environ["wsgi.input"].read(min(left, 64 * 1024))):
        left -= len(chunk)
