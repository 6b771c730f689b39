"""``python -m flask_globalstate``"""

from .cli.commands import main

main(prog_name="python -m flask_globalstate")
