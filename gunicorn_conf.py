"""A ready configuration: gunicorn -c gunicorn_conf.py package.module:app"""

import os

from flask_globalstate.gunicorn import *  # noqa: F403

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WEB_CONCURRENCY", "4"))
