"""``python -m fuzz CORPUS -max_total_time=3600``: searches with atheris, which must be installed; see libFuzzer's options.

A find is a file ``crash-…`` in the directory in which it runs: once it is mended, it goes to ``tests/data/fuzz``.
"""

import importlib
import sys
from typing import Any

atheris: Any = importlib.import_module("atheris")  # nothing else needs it

with atheris.instrument_imports(include=["builder", "builder_server", "builder_worker"]):
    from fuzz.properties import check

atheris.Setup(sys.argv, check)
atheris.Fuzz()
