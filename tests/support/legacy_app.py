"""An application as it was written before there were several workers: plain globals everywhere.

It knows nothing of flask_globalstate, and is served both as it is and by ``legacy_served.py``.
"""

import json
import os

from flask import Flask, jsonify, request

app = Flask(__name__)

ORDERS = {"ann": [{"item": "tea", "done": False}]}
STOCK = {"tea": 10, "milk": 5}
LOG = []
QUEUE = ["first"]
TAGS = {"new"}
HITS = 0
LAST_ID = 100
THEME = "dark"
LIMITS = ("orders", 5)


@app.before_request
def count():
    global HITS
    HITS += 1


@app.after_request
def say_who(response):
    response.headers["X-Worker"] = str(os.getpid())
    return response


@app.post("/orders/<name>")
def order(name):
    global LAST_ID
    LAST_ID += 1
    item = request.get_json()
    orders = ORDERS.setdefault(name, [])
    if len(orders) >= LIMITS[1]:
        return jsonify(error="too many", limit=LIMITS), 409
    orders.append({"id": LAST_ID, "item": item, "done": False, "notes": []})
    STOCK[item] = STOCK.get(item, 0) - 1
    LOG.append(f"{LAST_ID} {name} {item}")
    return jsonify(orders[-1])


@app.post("/orders/<name>/<int:number>/done")
def finish(name, number):
    try:
        ORDERS[name][number]["done"] = True
        ORDERS[name][number].setdefault("notes", []).append(f"done at {HITS}")
        return jsonify(ORDERS[name][number])
    except (KeyError, IndexError) as error:
        return jsonify(error=type(error).__name__), 404


@app.delete("/orders/<name>")
def forget(name):
    gone = ORDERS.pop(name, None)
    ORDERS.update({"nobody": [], **{other: ORDERS[other] for other in list(ORDERS)}})
    LOG[:] = [line for line in LOG if f" {name} " not in line]
    return jsonify(gone)


@app.post("/clean")
def clean():
    global ORDERS, LOG, STOCK
    ORDERS = {name: [one for one in orders if not one["done"]] for name, orders in ORDERS.items()}
    LOG = LOG[-5:]
    STOCK = {item: max(count, 3) for item, count in STOCK.items()}
    return jsonify(ORDERS, LOG, STOCK)


@app.post("/queue")
def push():
    QUEUE.insert(0, HITS)
    QUEUE.extend(sorted(TAGS))
    if len(QUEUE) > 8:
        del QUEUE[2:4]
    return jsonify(QUEUE)


@app.delete("/queue")
def take():
    return jsonify(QUEUE.pop() if QUEUE else None)


@app.post("/tags/<tag>")
def tag(tag):
    global TAGS
    before = tag in TAGS
    TAGS.symmetric_difference_update({tag})
    TAGS |= {tag[:1]}
    if len(TAGS) > 6:
        TAGS = {"new"}
    return jsonify(before=before, tags=sorted(TAGS))


@app.post("/theme/<theme>")
def dress(theme):
    global THEME, LIMITS
    before, THEME = THEME, theme
    LIMITS = ("orders", 3 + len(theme) % 4)
    return jsonify(before=before, theme=THEME)


@app.post("/hits/reset")
def reset():
    global HITS
    before, HITS = HITS, 0
    return str(before)


@app.get("/orders")
def orders():
    return ORDERS


@app.get("/log")
def log():
    return "\n".join(LOG) or "nothing"


@app.get("/everything")
def everything():
    return json.dumps(
        [dict(ORDERS), str(STOCK), list(LOG), f"{QUEUE}", sorted(TAGS), HITS, LAST_ID, THEME, LIMITS]
    )
