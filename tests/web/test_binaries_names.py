"""Where symbols come from, by their names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder_web.binaries.names import MAX_DEPTH, split_name


@pytest.mark.parametrize(
    ("name", "unit", "path"),
    [
        ("camlStdlib__List__map_123", None, "Stdlib List map_123"),
        ("camlStdlib__List.map_123", None, "Stdlib List map_123"),
        ("camlLwt__code_begin", "startup.s", "Lwt code_begin"),
        ("camlDune__exe__Main__entry", None, "Dune exe Main entry"),
        ("camlLwt", None, "Lwt"),
        ("caml_alloc", None, "caml_* caml_alloc"),
        ("caml_alloc", "alloc.c", "alloc.c caml_alloc"),
        ("_ZN4core3fmt5write17h0123456789abcdefE", "core.1-cgu.0", "core fmt write"),
        ("_ZNK19xorL_rReg_mem_0Node8pipelineEv", None, "xorL_rReg_mem_0Node pipeline"),
        ("_ZTV4Node", None, "Node"),
        ("_ZNSt6vectorIiE9push_backEv", None, "std vector"),
        ("_ZL6statici", "a.cc", "static"),
        ("_RINvNtCsgEmfK2I1SDS_4core3ptr13drop_in_placeNtNtCs8sGJ_4jiff5zoned5ZonedE", None, "core ptr drop_in_place"),
        ("_RNvMsJ_NtNtCsbUZw8x40d0F_3nix3sys6signalNtB5_6SigSet3add", None, "nix sys signal"),
        ("_RNvC1a4_123", None, "a 123"),
        ("PyDict_New", None, "PyDict_* PyDict_New"),
        ("_PyUnicode_Ready", None, "_PyUnicode_* _PyUnicode_Ready"),
        ("runtime.mallocgc", None, "runtime.* runtime.mallocgc"),
        ("main", None, "main"),
        ("main", "main.c", "main.c main"),
        ("_start", None, "_start"),
        ("a_", None, "a_"),
        ("_Z999a", None, "a"),
        ("", None, ""),
    ],
)
def test_paths(name: str, unit: str | None, path: str) -> None:
    assert " ".join(split_name(name, unit)) == path


@given(
    name=st.text(max_size=40)
    | st.from_regex(r"caml[A-Z]([a-z_.$]|__){0,30}")
    | st.from_regex(r"_(ZN|RNvC)([0-9]_?[a-z]*){0,20}"),
    unit=st.none() | st.text(max_size=5),
)
def test_any_name_has_a_path(name: str, unit: str | None) -> None:
    assert 1 <= len(split_name(name, unit)) <= MAX_DEPTH
