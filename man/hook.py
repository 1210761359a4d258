"""Puts the manual pages into the wheel: hatchling runs this when it builds one."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))


class ManualPages(BuildHookInterface[Any]):
    """Makes the pages in a directory of its own, which goes once the wheel is there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the pages; an editable installation has none."""
        if version == "editable":
            return
        import pages

        self._directory = tempfile.TemporaryDirectory(prefix="builder-man-")
        pages.write(Path(self._directory.name))
        build_data["shared_data"][self._directory.name] = "share/man"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the pages."""
        del build_data, artifact_path
        if version != "editable":
            self._directory.cleanup()
