"""The legacy application with its globals shared; its settings come from the environment."""

from legacy_app import app

from flask_globalstate import GlobalState, SharedCounter

state = GlobalState(app)
state.share_globals("legacy_app", "ORDERS", "STOCK", "LOG", "QUEUE", "TAGS", "THEME", "LIMITS")
state.share_globals("legacy_app", HITS=SharedCounter, LAST_ID=SharedCounter)
