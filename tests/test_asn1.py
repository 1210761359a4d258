"""asn1tools is loaded without what is not needed of it, and whoever needs more gets it."""

import subprocess
import sys

CODE = """
import sys
from builder import asn1
found = asn1.load()
assert found is asn1.load() is sys.modules["asn1tools"]
assert "xml.etree.ElementTree" not in sys.modules
node = {"types": {"A": {"type": "INTEGER"}}, "tags": "EXPLICIT", "extensibility-implied": False}
node |= {"imports": {}, "values": {}, "object-classes": {}, "object-sets": {}}
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", CODE + code], capture_output=True, text=True, check=True).stdout


def test_what_is_used_works() -> None:
    assert run("print(found.compile_dict({'M': node}, 'ber').encode('A', 5).hex())") == "020105\n"


def test_what_is_left_out_is_loaded_when_it_is_used() -> None:
    assert run("print(found.compile_dict({'M': node}, 'uper').encode('A', 5).hex())") == "0105\n"
