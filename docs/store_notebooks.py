"""Run the notebooks of examples/ and store them with what they show.

python docs/store_notebooks.py [NOTEBOOK.ipynb …]
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbclient
import nbformat


def main(files: list[Path]) -> None:
    for file in files:
        print(f"{file} …", flush=True)
        notebook = nbformat.read(file, as_version=4)
        with TemporaryDirectory() as folder:
            nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times, which differ whenever it is run
        file.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(
        [Path(name) for name in sys.argv[1:]]
        or sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
    )
