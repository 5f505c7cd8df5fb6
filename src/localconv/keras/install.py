"""Keras 2's names for the layers, for code and files that use them."""

from __future__ import annotations

import importlib
import sys

import keras

from .files import load_model, model_from_json
from .layers import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D
from .low_rank import LowRankLocallyConnected1D, LowRankLocallyConnected2D

LAYERS = (
    LocallyConnected1D,
    LocallyConnected2D,
    LocallyConnected3D,
    LowRankLocallyConnected1D,
    LowRankLocallyConnected2D,
)

# What may go by the name of Keras 3. Each is a module of its own; tensorflow.keras is made of the files of the second.
ROOTS = ("keras", "keras._tf_keras.keras", "tensorflow.keras")


def install() -> None:
    """Put the layers where Keras 2 had them: into `keras.layers` and `tensorflow.keras.layers`.

    Then old code finds them there, and models that Keras 2 saved open with `keras.models.load_model`: whole models in
    .h5 files, .keras files (those of Keras 2.15 are tested), models in models, functional ones. For them `load_model`
    is replaced, in `keras.models` and `keras.saving`, and `model_from_json` in `keras.models`, by functions that know
    what Keras 2 wrote otherwise; they pass everything else on to Keras's own.

    Models that are saved with the layers of `localconv.keras` need nothing installed to be opened again: it is enough
    that `localconv.keras` is imported.

    `LocallyConnected3D` and the low-rank layers, which Keras never had, are put beside them: configs of
    `localconv.layers`, which are in Keras's words, look for them there.

    Notes
    -----
    `tensorflow.keras` is a module of its own; the layers are put there if TensorFlow has been imported by then, as
    Keras does with its own backend. Where it is not Keras 3 (with TF_USE_LEGACY_KERAS=1 it is tf_keras, which has these
    layers itself) it stays as it is. Calling this again does nothing more.

    Examples
    --------
    >>> import keras, localconv.keras
    >>> localconv.keras.install()
    >>> keras.layers.LocallyConnected2D is localconv.keras.LocallyConnected2D
    True
    """
    for root in filter(_is_keras_3, ROOTS):
        for layer in LAYERS:
            setattr(importlib.import_module(f"{root}.layers"), layer.__name__, layer)
        for module in ("models", "saving"):
            importlib.import_module(f"{root}.{module}").load_model = load_model  # type: ignore[attr-defined]
        importlib.import_module(f"{root}.models").model_from_json = model_from_json  # type: ignore[attr-defined]
    # The reader of old .h5 files looks names up here, and not in keras.layers.
    known = keras.saving.get_custom_objects()
    for layer in LAYERS:
        known[layer.__name__] = layer


def _is_keras_3(root: str) -> bool:
    """Whether a module is imported, and is the Keras at hand: the layers of another are other classes."""
    if root.startswith("tensorflow.") and "tensorflow" not in sys.modules:
        return False
    layers = importlib.import_module(f"{root}.layers")
    return getattr(layers, "Layer", None) is keras.layers.Layer
