"""The structs of XLA's interface that include/localconv/xla declares anew, against the header that jaxlib brings."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[3]
OURS = ROOT / "include" / "localconv" / "xla" / "api.h"

# Our structs and constants by XLA's names.
STRUCTS = {
    "lc_xla_extension": "XLA_FFI_Extension_Base",
    "lc_xla_version": "XLA_FFI_Api_Version",
    "lc_xla_metadata": "XLA_FFI_Metadata",
    "lc_xla_metadata_extension": "XLA_FFI_Metadata_Extension",
    "lc_xla_buffer": "XLA_FFI_Buffer",
    "lc_xla_args": "XLA_FFI_Args",
    "lc_xla_rets": "XLA_FFI_Rets",
    "lc_xla_array": "XLA_FFI_Array",
    "lc_xla_attrs": "XLA_FFI_Attrs",
    "lc_xla_error_args": "XLA_FFI_Error_Create_Args",
    "lc_xla_api": "XLA_FFI_Api",
    "lc_xla_frame": "XLA_FFI_CallFrame",
}
MEMBERS = {"error_create": "XLA_FFI_Error_Create"}
CONSTANTS = {
    "LC_XLA_EXTENSION_METADATA": "XLA_FFI_Extension_Metadata",
    "LC_XLA_F16": "XLA_FFI_DataType_F16",
    "LC_XLA_BF16": "XLA_FFI_DataType_BF16",
    "LC_XLA_F32": "XLA_FFI_DataType_F32",
    "LC_XLA_F64": "XLA_FFI_DataType_F64",
    "LC_XLA_S64": "XLA_FFI_DataType_S64",
    "LC_XLA_BUFFER": "XLA_FFI_ArgType_BUFFER",
    "LC_XLA_ARRAY": "XLA_FFI_AttrType_ARRAY",
    "LC_XLA_EXECUTE": "XLA_FFI_ExecutionStage_EXECUTE",
    "LC_XLA_INVALID_ARGUMENT": "XLA_FFI_Error_Code_INVALID_ARGUMENT",
    "LC_XLA_RESOURCE_EXHAUSTED": "XLA_FFI_Error_Code_RESOURCE_EXHAUSTED",
    "LC_XLA_INTERNAL": "XLA_FFI_Error_Code_INTERNAL",
}


def structs():
    """The members of every struct that our header defines."""
    found = re.findall(r"typedef struct (\w+) \{(.*?)\n\}", OURS.read_text(encoding="utf-8"), re.DOTALL)
    members = {}
    for name, body in found:
        declarators = [part for line in body.split(";") for part in line.split(",")]
        members[name] = [
            re.findall(r"\w+", part.split("(lc_xla_error_args")[0])[-1] for part in declarators if part.strip()
        ]
    return members


@pytest.mark.skipif(not OURS.exists(), reason="a test of a checkout; this is not one")
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="both headers are compared by a C++ compiler"
)
def test_both_headers_agree(tmp_path):
    """In the place and the size of every member that we name: what XLA has behind them is no concern of ours."""
    members = structs()
    assert set(members) == set(STRUCTS)
    lines = ["#include <cstddef>", '#include "xla/ffi/api/c_api.h"', 'extern "C" {', f'#include "{OURS}"', "}"]
    for name, names in members.items():
        theirs = STRUCTS[name]
        for member in names:
            other = MEMBERS.get(member, member)
            pair = (f"{name}, {member}", f"{theirs}, {other}")
            lines.append(f'static_assert(offsetof({pair[0]}) == offsetof({pair[1]}), "{name}.{member}");')
            sizes = f"sizeof((({name} *)0)->{member}) {{}} sizeof((({theirs} *)0)->{other})"
            # Structs that hold others may be shorter: XLA adds members behind those that there are.
            lines.append(f'static_assert({sizes.format("<=")}, "{name}.{member}");')
        lines.append(f'static_assert(sizeof({name}) <= sizeof({theirs}), "{name}");')
    lines += [f'static_assert((int){ours} == (int){theirs}, "{ours}");' for ours, theirs in CONSTANTS.items()]
    lines += ['static_assert(LC_XLA_MAJOR == XLA_FFI_API_MAJOR, "major");']
    lines += ['static_assert(LC_XLA_MINOR <= XLA_FFI_API_MINOR, "minor");']
    source = tmp_path / "compare.cpp"
    source.write_text("\n".join(lines) + "\n")
    command = [
        os.environ.get("CXX", "c++"),
        "-std=c++17",
        "-fsyntax-only",
        "-Wno-invalid-offsetof",
        f"-I{jax.ffi.include_dir()}",
    ]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
