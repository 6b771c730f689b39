"""``python -m flask_globalstate``"""

from .cli import main

main(prog_name="python -m flask_globalstate")
