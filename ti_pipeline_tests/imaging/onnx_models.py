"""Tiny real ONNX models: red pixels are text, colours are letters, or an answer is always the same."""

import numpy as np
import pytest

RED, YELLOW, MAGENTA, WHITE, BLACK = (255, 0, 0), (255, 255, 0), (255, 0, 255), (255, 255, 255), (0, 0, 0)
# Of BGR in -1..1: each colour's product with its own row is 3, with any other at most 1.
_CLASSES = np.array([[-1, -1, -1], [-1, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1]], dtype=np.float32)


def _onnx():
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the ocr extra) is not installed")
    return pytest.importorskip("onnx", reason="onnx (of the dev extra) is not installed")


def _save(path, nodes, x, y, constants, **metadata):
    onnx = _onnx()
    floats, helper = onnx.TensorProto.FLOAT, onnx.helper
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", floats, x)],
        [helper.make_tensor_value_info("y", floats, y)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def red_is_text(path):
    """A model as DBNet's: normalised BGR `[1, 3, h, w]` in, probabilities `[1, 1, h, w]` out, those of redness."""
    onnx = _onnx()
    nodes = [
        onnx.helper.make_node("Gather", ["x", "red"], ["channel"], axis=1),
        onnx.helper.make_node("Sigmoid", ["channel"], ["y"]),
    ]
    red = onnx.helper.make_tensor("red", onnx.TensorProto.INT64, [1], [2])
    return _save(path, nodes, [1, 3, "h", "w"], [1, 1, "h", "w"], [red])


def colours_are_letters(path, *, letters="ABC", sure=5.0):
    """A model as SVTR's: a step for 8 columns, whose classes are black (none), red, yellow, magenta, white (space).

    A step's colour is the brightest of each channel. Logits are `sure` times 3 for its own class.
    """
    onnx = _onnx()
    nodes = [
        onnx.helper.make_node("MaxPool", ["x"], ["steps"], kernel_shape=[48, 8], strides=[48, 8]),
        onnx.helper.make_node("Squeeze", ["steps", "height"], ["flat"]),
        onnx.helper.make_node("Transpose", ["flat"], ["colours"], perm=[0, 2, 1]),
        onnx.helper.make_node("MatMul", ["colours", "classes"], ["logits"]),
        onnx.helper.make_node("Softmax", ["logits"], ["y"], axis=2),
    ]
    weights = (sure * _CLASSES).T
    constants = [
        onnx.helper.make_tensor("classes", onnx.TensorProto.FLOAT, weights.shape, weights.ravel()),
        onnx.helper.make_tensor("height", onnx.TensorProto.INT64, [1], [2]),
    ]
    return _save(path, nodes, [1, 3, 48, "w"], [1, "steps", 5], constants, character="\n".join(letters))


def always(path, answer, *, side, **metadata):
    """A model that answers every picture `[1, 3, side, side]` with the same numbers; a side may be a name: any."""
    onnx = _onnx()
    answer = np.asarray(answer, dtype=np.float32)
    nodes = [
        # What goes in takes part, so that the graph is one: nothing of it is left after a multiplication by 0.
        onnx.helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        onnx.helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        onnx.helper.make_node("Add", ["answer", "nothing"], ["y"]),
    ]
    constants = [
        onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT, [], [0.0]),
        onnx.helper.make_tensor("answer", onnx.TensorProto.FLOAT, answer.shape, answer.ravel()),
    ]
    return _save(path, nodes, [1, 3, side, side], list(answer.shape), constants, **metadata)
