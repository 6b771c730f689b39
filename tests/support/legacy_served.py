"""The legacy application with its globals shared; its settings come from the environment."""

from flask_globalstate import GlobalState, SharedCounter
from tests.support.legacy_app import app

state = GlobalState(app)
state.share_globals("tests.support.legacy_app", "ORDERS", "STOCK", "LOG", "QUEUE", "TAGS", "THEME", "LIMITS")
state.share_globals("tests.support.legacy_app", HITS=SharedCounter, LAST_ID=SharedCounter)
