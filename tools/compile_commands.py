"""Write compile_commands.json, by which clangd and its kin know how the C files are compiled.

python tools/compile_commands.py CC FLAGS... -- FILES...
"""

import json
import sys
from pathlib import Path

command, files = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
rows = [{"directory": str(Path.cwd()), "file": file, "arguments": [*command, "-c", file]} for file in files]
Path("compile_commands.json").write_text(json.dumps(rows, indent=1) + "\n")
