"""Keras 2's names for the layers, for code and files that use them."""

from __future__ import annotations

import importlib
import sys

import keras

from .layers import LocallyConnected1D, LocallyConnected2D

LAYERS = (LocallyConnected1D, LocallyConnected2D)

# Where Keras 2 had them. Each is a module object of its own: tensorflow.keras is not keras, but made of the same files.
MODULES = ("keras.layers", "keras._tf_keras.keras.layers", "tensorflow.keras.layers")


def install() -> None:
    """Put the layers where Keras 2 had them: into `keras.layers` and `tensorflow.keras.layers`.

    Then old code finds them there, and models that Keras 2 saved open with `keras.models.load_model`: whole models in
    .h5 files, .keras files of Keras 2.12 to 2.15, models in models, functional ones.

    Models that are saved with the layers of `localconv.keras` need nothing installed to be opened again: it is enough
    that `localconv.keras` is imported.

    Notes
    -----
    `tensorflow.keras` is a module of its own; the layers are put there if TensorFlow has been imported by then, as Keras
    does with its own backend. Calling this again does nothing more.

    Examples
    --------
    >>> import keras, localconv.keras
    >>> localconv.keras.install()
    >>> keras.layers.LocallyConnected2D(8, 3)
    <LocallyConnected2D name=locally_connected2d, built=False>
    """
    for module in MODULES:
        if module.startswith("tensorflow.") and "tensorflow" not in sys.modules:
            continue
        place = importlib.import_module(module)
        for layer in LAYERS:
            setattr(place, layer.__name__, layer)
    # The reader of old .h5 files looks names up here, and not in keras.layers.
    known = keras.saving.get_custom_objects()
    for layer in LAYERS:
        known[layer.__name__] = layer
