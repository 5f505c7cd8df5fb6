# The public place of what keras_objects/activations.py defines.
from .keras_objects.activations import *  # noqa: F403
from .keras_objects.activations import __all__ as __all__
from .keras_objects.activations import __doc__ as __doc__
