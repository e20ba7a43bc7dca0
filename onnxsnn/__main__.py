"""`python -m onnxsnn` is the command `onnxsnn`."""

from onnxsnn.cli import main

if __name__ == "__main__":
    main(prog_name="onnxsnn")
