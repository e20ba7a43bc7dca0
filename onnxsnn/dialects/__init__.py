"""What else models are written in, brought to ONNX's own operators, in float32."""
