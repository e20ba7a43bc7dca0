"""`python -m onnxsnn` is the command `onnxsnn`."""

from onnxsnn_command import main

if __name__ == "__main__":
    main()
