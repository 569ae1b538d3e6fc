"""All tables of variants in one, and the functions that look up and build networks by name."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import keras

from se_keras.blocks.excitation import SEConfig
from se_keras.class_names import get_class_names, set_class_names
from se_keras.errors import one_of
from se_keras.images.record import Preprocessing
from se_keras.models import inception, inverted_networks, mobile, regnet, resnet, vgg
from se_keras.models.network import Network, Options, assemble
from se_keras.preprocessing import preprocessing_of, stored_preprocessing
from se_keras.weights.find import find_record, names_file
from se_keras.weights.load import load
from se_keras.weights.published import RECORDS
from se_keras.weights.records import WeightsRecord
from se_keras.weights.structure import LINEAGES, fingerprint_of
from se_keras.weights.timm_layout import is_layout, read_layout
from se_keras.weights.timm_names import ARCHITECTURES, tag_of


def _union(*tables: dict[str, Network]) -> dict[str, Network]:
    networks: dict[str, Network] = {}
    for table in tables:
        repeated = networks.keys() & table.keys()
        if repeated:
            raise ValueError(f"Two tables name the same network: {sorted(repeated)}.")
        networks.update(table)
    return networks


NETWORKS = _union(
    resnet.NETWORKS, regnet.NETWORKS, inverted_networks.NETWORKS, inception.NETWORKS, vgg.NETWORKS, mobile.NETWORKS
)


def create_model(model: str, *, weights: str | os.PathLike | None = None, **options: Any) -> keras.Model:
    """Builds a network by its registry name.

    Args:
        model: Registry name, such as "se_resnet50"; `list_models()` returns all of them. "model.tag"
            also names a published checkpoint, and is equivalent to `weights=tag`. timm's names of the same
            networks work too: "seresnet50.ra2_in1k", "legacy_senet154", "regnety_032". "hf-hub:OWNER/REPO",
            "hf-hub:OWNER/REPO@REVISION", and "local-dir:PATH" name a network in timm's layout, on the
            Hugging Face Hub or in a folder: it is built with its classes and its preprocessing.
        weights: None (random initialization), the tag of a published checkpoint, "imagenet" for the
            network's default tag, or the path of a file: `.safetensors`, `.pth`, or `.caffemodel` as
            published or saved here, `.weights.h5` or `.keras` of the same network.
        **options: The other arguments of the builders, such as `classes` (see `SEResNet50`).

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: The name is unknown (the message names the closest ones), the weights do not exist
            or do not fit, or an option does not fit the network.
        FileNotFoundError: A folder in timm's layout, or a file in it, does not exist.
        DownloadError: A published checkpoint, or a repository, could not be downloaded.
        TypeError: An option is unknown (the message names the closest ones).

    Example:

    >>> create_model("se_resnet20").output_shape
    (None, 10)
    """
    return _built(plan(model, weights, _checked(options)))


def _checked(options: dict[str, Any]) -> Options:
    known = [field.name for field in dataclasses.fields(Options)]
    for name in options.keys() - set(known):
        try:
            one_of("argument of create_model", name, ("weights", *known))
        except ValueError as error:
            raise TypeError(str(error)) from None
    return Options(**options)


@dataclasses.dataclass(frozen=True)
class Named:
    """A network as it can be built.

    Args:
        model: Its registry name.
        weights: Its weights. None: random ones.
        lineage: Its structure if it has random weights. None, or one that the network lacks: its own.
    """

    model: str
    weights: str | os.PathLike | None = None
    lineage: str | None = None


def resolve(name: str, weights: str | os.PathLike | None = None) -> Named:
    """Returns the network that a name stands for.

    Args:
        name: A registry name or timm's name, alone or with a tag, such as "se_resnet50" or "seresnet50.ra2_in1k".
        weights: Weights as for `create_model`.

    Returns:
        The network and its weights, under the names of this package.

    Raises:
        ValueError: The name or tag is unknown (the message names the closest ones), or `name` and `weights` both
            name weights.
    """
    model, _, tag = name.partition(".")
    _check_single(name, tag, weights)
    if model in NETWORKS:
        return Named(model, tag or weights)
    _check_name(model)
    architecture = ARCHITECTURES[model]
    if tag or not (weights is None or names_file(weights)):
        weights = tag_of(model, tag or os.fspath(weights or ""))
    return Named(architecture.model, weights, architecture.lineage)


def _check_name(model: str) -> None:
    one_of("model", model, (*NETWORKS, *(name for name in ARCHITECTURES if name not in NETWORKS)))


def _check_single(name: str, tag: str, weights: str | os.PathLike | None) -> None:
    if tag and weights is not None:
        raise ValueError(f"{name!r} already names weights; also received weights={weights!r}. Pass only one.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The structure of a network that is not built yet, and its weights.

    Args:
        model: The network's registry name.
        network: Its description, with the preprocessing and the classes of the checkpoint.
        options: The builder's arguments, with the SE configuration of the checkpoint.
        lineage: Name of the structure in `network.lineages`. None: the network's own.
        record: The checkpoint. None: random weights.
    """

    model: str
    network: Network
    options: Options
    lineage: str | None = None
    record: WeightsRecord | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the checkpoint's class names if the network has as many classes, else ()."""
        if self.record is None or not self.record.class_names:
            return ()
        known = self.record.classes or len(self.record.class_names)
        return tuple(self.record.class_names) if known == (self.options.classes or self.network.classes) else ()


def plan(model: str, weights: str | os.PathLike | None, options: Options) -> Plan:
    """Returns what `create_model` would build; arguments and errors as there.

    Args:
        model: As in `create_model`.
        weights: As in `create_model`.
        options: The builder's arguments.

    Returns:
        The network's structure and its weights.
    """
    if is_layout(model):
        _check_single(model, model, weights)
        return _plan_of(read_layout(model), options)
    named = resolve(model, weights)
    if named.weights is not None:
        return _plan_of(find_record(named.model, named.weights), options)
    network = NETWORKS[named.model]
    lineage = named.lineage if named.lineage in network.lineages else None
    return Plan(model=named.model, network=network, options=options, lineage=lineage)


def build(identifier: str, weights: str | os.PathLike | None, options: Options) -> keras.Model:
    """Builds a network in the structure that its weights were trained in, and fills it with them.

    Args:
        identifier: The network's registry name.
        weights: None (random initialization), a tag, "imagenet" for the default tag, or the path of a file.
        options: The builder's arguments.

    Returns:
        A functional model.

    Raises:
        ValueError: The weights do not exist or do not fit, or an option does not fit the network.
        DownloadError: A published checkpoint could not be downloaded.
    """
    return _built(plan(identifier, weights, options))


def _plan_of(record: WeightsRecord, options: Options) -> Plan:
    """Returns the network of a record, in its structure."""
    network = NETWORKS[record.model]
    if options.include_top and record.classes == 0:
        raise ValueError(f"{record.tag!r} has no classifier. Pass include_top=False.")
    network = dataclasses.replace(
        network,
        preprocessing=record.preprocessing or network.preprocessing,
        classes=record.classes or network.classes,
    )
    options = dataclasses.replace(options, se=_se_of(record, options.se, network.own_se))
    lineage = record.lineage if record.lineage in network.lineages else None
    return Plan(model=record.model, network=network, options=options, lineage=lineage, record=record)


def _built(planned: Plan) -> keras.Model:
    model = assemble(planned.model, planned.network, planned.options, lineage=planned.lineage)
    if planned.record is not None:
        load(planned.record, model)
        if planned.options.include_top and planned.options.include_preprocessing and planned.class_names:
            set_class_names(model, planned.class_names)
    return model


def _se_of(record: WeightsRecord, se: SEConfig | None, own: SEConfig) -> SEConfig | None:
    """Returns the SE configuration that a checkpoint was trained with; the caller's, if a file does not state it."""
    if record.plain is None:
        return se
    if record.plain:
        if se not in (None, SEConfig()):
            raise ValueError(f"{record.tag!r} has no SE blocks; received se={se!r} as well. Leave it out.")
        return None
    if se is None:
        plain = [repr(other.tag) for other in RECORDS.values() if other.plain and other.model == record.model]
        remedy = f"weights={' or '.join(plain)}" if plain else "weights=None"
        raise ValueError(
            f"{record.tag!r} has SE blocks; received se=None as well. For the plain network pass {remedy}."
        )
    trained = SEConfig(reduction=record.reduction).completed(own)
    if dataclasses.replace(se, squeeze_divisor=None).completed(trained) != trained:
        raise ValueError(
            f"The SE blocks of {record.tag!r} are the network's own with reduction {trained.reduction}; received "
            f"se={se!r}. Leave it out, or pass weights=None."
        )
    return dataclasses.replace(se, reduction=trained.reduction)


def list_weights(model: str | None = None) -> list[str]:
    """Lists the published checkpoints that can be loaded, sorted.

    Args:
        model: Registry name of a network, or timm's. None for those of all networks.

    Returns:
        Identifiers "model.tag", each valid for `create_model`.

    Raises:
        ValueError: The model is unknown (the message names the closest ones).
    """
    if model is None:
        return sorted(RECORDS)
    _check_name(model)
    own = model if model in NETWORKS else ARCHITECTURES[model].model
    theirs = "" if model in NETWORKS else f"{model}."
    return sorted(name for name, one in RECORDS.items() if one.model == own and one.timm.startswith(theirs))


def get_preprocessing(model: str | keras.Model) -> Preprocessing:
    """Returns the preprocessing of a network's images.

    Args:
        model: Registry name of a network, for training it from scratch; "model.tag" for a
            published checkpoint; a network in timm's layout, as for `create_model`; or a model that
            includes its preprocessing.

    Returns:
        The preprocessing, for `preprocess` and `Preprocessing.normalize`.

    Raises:
        ValueError: The network or checkpoint is unknown (the message names the closest ones), or the
            model does not include its preprocessing.

    Example:

    >>> get_preprocessing("se_resnet50.a3_in1k").size
    160
    """
    if isinstance(model, keras.Model):
        return preprocessing_of(model)
    if is_layout(model):
        record = read_layout(model)
        return record.preprocessing or NETWORKS[record.model].preprocessing
    named = resolve(model)
    stated = None if named.weights is None else find_record(named.model, named.weights).preprocessing
    return stated or NETWORKS[named.model].preprocessing


def lost_without_config(identifier: str, model: keras.Model) -> tuple[str, ...]:
    """Returns what a file of weights alone (`.weights.h5`) does not record of a model that differs from its network.

    Args:
        identifier: The network's registry name.
        model: A model of this network, for example one with published weights.

    Returns:
        Those of "preprocessing", "class names", and "structure" that would fall back to the network's own.
    """
    network = NETWORKS[identifier]
    differing = {
        "preprocessing": stored_preprocessing(model) != network.preprocessing,
        "class names": get_class_names(model) != (),
        "structure": network.lineages.get(LINEAGES.get(fingerprint_of(model), ""), network.spec) != network.spec,
    }
    return tuple(name for name, differs in differing.items() if differs)
