"""``python -m flask_globalstate``"""

from .cli.group import main

main(prog_name="python -m flask_globalstate")
