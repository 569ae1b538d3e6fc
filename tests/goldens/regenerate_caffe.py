"""Writes the goldens caffe_*.npz: what OpenCV's Caffe reader computes, with weights and images by formula.

The networks are written out as the authors' released descriptions state them (SENet, Caffe):
layer names, strides in the first 1x1, poolings that round up, norms that keep sums.

Needs opencv-python-headless 4 and protobuf; neither TensorFlow nor this package. One command:

    python tests/goldens/regenerate_caffe.py
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import cv2
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from formula import fill, images, thin  # noqa: E402

# At 75x53 Caffe itself refuses SE-BN-Inception: its convolutions of step 2 round up, its poolings down.
SIZES = {"caffe_se_resnet50": ((64, 64), (75, 53)), "caffe_se_bn_inception": ((64, 64), (101, 69))}

# Message: (field, number, type, repeated), as in Caffe's caffe.proto.
MESSAGES = {
    "Shape": (("dim", 1, "int64", True),),
    "Blob": (("data", 5, "float", True), ("shape", 7, "Shape", False)),
    "Layer": (("name", 1, "string", False), ("type", 2, "string", False), ("blobs", 7, "Blob", True)),
    "Net": (("layer", 100, "Layer", True),),
}


def message_classes() -> dict[str, type]:
    """The few protobuf messages that a .caffemodel consists of."""
    file = descriptor_pb2.FileDescriptorProto(name="weights.proto", package="weights", syntax="proto2")
    field_type = descriptor_pb2.FieldDescriptorProto
    for message, fields in MESSAGES.items():
        description = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            field = description.field.add(name=name, number=number, label=label)
            if kind in MESSAGES:
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".weights.{kind}"
            else:
                field.type = getattr(field_type, f"TYPE_{kind.upper()}")
                field.options.packed = repeated
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"weights.{name}")) for name in MESSAGES}


class Net:
    """Collects layers: their description as text and the shapes of their blobs.

    Every method returns the name of what its layer computes. A gate is kept by our name of
    its SE block, whose stages begin with their step of 2.
    """

    def __init__(self, size: tuple[int, int], batch: int = 2) -> None:
        self.text: list[str] = []
        self.blobs: dict[tuple[str, str], list[tuple[int, ...]]] = {}
        self.channels = {"data": 3}
        self.gates: dict[str, str] = {}
        dims = " ".join(f"dim: {number}" for number in (batch, 3, *size))
        self.layer("data", "Input", (), f"input_param {{ shape {{ {dims} }} }}")

    def layer(self, name: str, kind: str, bottoms: tuple[str, ...], text: str = "", *, top: str | None = None) -> str:
        top = top or name
        inputs = "".join(f' bottom: "{bottom}"' for bottom in bottoms)
        self.text.append(f'layer {{ name: "{name}" type: "{kind}"{inputs} top: "{top}" {text} }}')
        if bottoms:
            self.channels.setdefault(top, self.channels[bottoms[0]])
        return top

    def conv(
        self, x: str, name: str, filters: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> str:
        pad = kernel // 2
        self.blobs[name, "Convolution"] = [(filters, self.channels[x] // groups, kernel, kernel)]
        if bias:
            self.blobs[name, "Convolution"].append((filters,))
        self.channels[name] = filters
        numbers = f"num_output: {filters} kernel_size: {kernel} pad: {pad} stride: {stride} group: {groups}"
        text = f"convolution_param {{ {numbers} bias_term: {str(bias).lower()} }}"
        return self.layer(name, "Convolution", (x,), text)

    def conv_norm(self, x: str, name: str, filters: int, kernel: int = 1, *, relu: bool = True, **numbers: int) -> str:
        x = self.conv(x, name, filters, kernel, **numbers)
        self.blobs[f"{name}/bn", "BatchNorm"] = [(filters,), (filters,), (1,)]
        self.layer(f"{name}/bn", "BatchNorm", (x,), "batch_norm_param { use_global_stats: true }", top=x)
        self.blobs[f"{name}/bn/scale", "Scale"] = [(filters,), (filters,)]
        self.layer(f"{name}/bn/scale", "Scale", (x,), "scale_param { bias_term: true }", top=x)
        return self.layer(f"{name}/relu", "ReLU", (x,), top=x) if relu else x

    def pool(self, x: str, name: str, numbers: str) -> str:
        return self.layer(name, "Pooling", (x,), f"pooling_param {{ {numbers} }}")

    def excite(self, x: str, prefix: str, top: str, *, gate: str) -> str:
        filters = self.channels[x]
        z = self.pool(x, f"{prefix}_global_pool", "pool: AVE global_pooling: true")
        z = self.conv(z, f"{prefix}_1x1_down", filters // 16, bias=True)
        self.layer(f"{prefix}_1x1_down/relu", "ReLU", (z,), top=z)
        z = self.conv(z, f"{prefix}_1x1_up", filters, bias=True)
        self.gates[gate] = f"{prefix}_prob"
        z = self.layer(f"{prefix}_prob", "Sigmoid", (z,), top=z)
        z = self.layer(f"{prefix}_prob_reshape", "Reshape", (z,), "reshape_param { shape { dim: 0 dim: 0 } }")
        return self.layer(f"{prefix}_scale", "Scale", (x, z), "scale_param { axis: 0 bias_term: false }", top=top)

    def classifier(self, x: str) -> str:
        x = self.pool(x, "pool5", "pool: AVE global_pooling: true")  # the authors' 7x7 at 224x224
        self.blobs["classifier", "InnerProduct"] = [(1000, self.channels[x]), (1000,)]
        return self.layer("classifier", "InnerProduct", (x,), "inner_product_param { num_output: 1000 }")

    def load(self, folder: pathlib.Path) -> cv2.dnn.Net:
        """Writes description and weights, and reads both with OpenCV."""
        classes = message_classes()
        net = classes["Net"]()
        for (name, kind), shapes in self.blobs.items():
            layer = net.layer.add(name=name, type=kind)
            for number, shape in enumerate(shapes):
                blob = layer.blobs.add()
                blob.shape.dim.extend(shape)
                blob.data.extend(fill(f"{name}[{number}]", shape).ravel())
        description, weights = folder / "net.prototxt", folder / "net.caffemodel"
        description.write_text("\n".join(self.text))
        weights.write_bytes(net.SerializeToString())
        loaded = cv2.dnn.readNetFromCaffe(str(description), str(weights))
        loaded.enableFusion(False)  # a fused layer has no output to look at
        return loaded


def se_resnet50(size: tuple[int, int]) -> Net:
    net = Net(size)
    x = net.conv_norm("data", "conv1/7x7_s2", 64, 7, stride=2)
    x = net.pool(x, "pool1/3x3_s2", "pool: MAX kernel_size: 3 stride: 2")
    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        width = 2 ** (stage + 4)
        for block in range(1, blocks + 1):
            name = f"conv{stage}_{block}"
            stride = 2 if stage > 2 and block == 1 else 1
            branch = net.conv_norm(x, f"{name}_1x1_reduce", width, stride=stride)
            branch = net.conv_norm(branch, f"{name}_3x3", width, 3)
            branch = net.conv_norm(branch, f"{name}_1x1_increase", 4 * width, relu=False)
            if block == 1:
                x = net.conv_norm(x, f"{name}_1x1_proj", 4 * width, stride=stride, relu=False)
            branch = net.excite(branch, name, f"{name}_scale", gate=f"stage{stage}_block{block}_se")
            # scale and sum in one are the authors' Axpy
            x = net.layer(name, "Eltwise", (branch, x), "eltwise_param { operation: SUM }")
            x = net.layer(f"{name}/relu", "ReLU", (x,), top=x)
    net.classifier(x)
    return net


# Name, 1x1, 3x3 reduced and 3x3, double 3x3 reduced and 3x3, projection; 0 for what is missing.
MODULES = (
    ("3a", 64, 64, 64, 64, 96, 32),
    ("3b", 64, 64, 96, 64, 96, 64),
    ("3c", 0, 128, 160, 64, 96, 0),
    ("4a", 224, 64, 96, 96, 128, 128),
    ("4b", 192, 96, 128, 96, 128, 128),
    ("4c", 160, 128, 160, 128, 160, 128),
    ("4d", 96, 128, 192, 160, 192, 128),
    ("4e", 0, 128, 192, 192, 256, 0),
    ("5a", 352, 192, 320, 160, 224, 128),
    ("5b", 352, 192, 320, 192, 224, 128),
)


def se_bn_inception(size: tuple[int, int]) -> Net:
    net = Net(size)
    x = net.conv_norm("data", "conv1/7x7_s2", 64, 7, stride=2)
    x = net.pool(x, "pool1/3x3_s2", "pool: MAX kernel_size: 3 stride: 2")
    x = net.conv_norm(x, "conv2/3x3_reduce", 64)
    x = net.conv_norm(x, "conv2/3x3", 192, 3)
    x = net.pool(x, "pool2/3x3_s2", "pool: MAX kernel_size: 3 stride: 2")
    stage, block = 3, 0
    for label, conv1x1, reduce3x3, conv3x3, reduce_double, double3x3, projection in MODULES:
        name = f"inception_{label}"
        stride = 1 if conv1x1 else 2
        stage, block = (stage, block + 1) if conv1x1 else (stage + 1, 1)
        branches = [net.conv_norm(x, f"{name}/1x1", conv1x1)] if conv1x1 else []
        y = net.conv_norm(x, f"{name}/3x3_reduce", reduce3x3)
        branches.append(net.conv_norm(y, f"{name}/3x3", conv3x3, 3, stride=stride))
        y = net.conv_norm(x, f"{name}/double3x3_reduce", reduce_double)
        y = net.conv_norm(y, f"{name}/double3x3a", double3x3, 3)
        branches.append(net.conv_norm(y, f"{name}/double3x3b", double3x3, 3, stride=stride))
        if projection:
            kind = "MAX" if label == "5b" else "AVE"
            y = net.pool(x, f"{name}/pool", f"pool: {kind} kernel_size: 3 stride: 1 pad: 1")
            branches.append(net.conv_norm(y, f"{name}/pool_proj", projection))
        else:
            branches.append(net.pool(x, f"{name}/pool", "pool: MAX kernel_size: 3 stride: 2"))
        net.channels[f"{name}/concat"] = sum(net.channels[branch] for branch in branches)
        x = net.layer(f"{name}/concat", "Concat", tuple(branches))
        x = net.excite(x, name, f"{name}/output", gate=f"stage{stage}_block{block}_se")
    net.classifier(x)
    return net


NETWORKS = {"caffe_se_resnet50": se_resnet50, "caffe_se_bn_inception": se_bn_inception}


def main() -> None:
    for golden, build in NETWORKS.items():
        arrays = {"source": np.array(f"opencv {cv2.__version__}")}
        for size in SIZES[golden]:
            net = build(size)
            with tempfile.TemporaryDirectory() as folder:
                loaded = net.load(pathlib.Path(folder))
            loaded.setInput(images(size))
            logits, *gates = loaded.forward(["classifier", *net.gates.values()])
            key = "x".join(map(str, size))
            arrays[f"{key}/logits"] = logits
            for name, values in zip(net.gates, gates, strict=True):
                arrays[f"{key}/gates/{name}"] = thin(values[:, :, 0, 0])
            low, high = np.percentile(np.concatenate([values.ravel() for values in gates]), (5, 95))
            largest, apart = np.abs(logits).max(), np.ptp(logits, axis=0).max()
            print(f"{golden:22} {key:6} logits to {largest:.2f}, apart {apart:.2f}; gates {low:.2f}..{high:.2f}")
        np.savez_compressed(HERE / f"{golden}.npz", **arrays)


if __name__ == "__main__":
    main()
