# The public place of what keras_objects/initializers.py defines.
from .keras_objects.initializers import *  # noqa: F403
from .keras_objects.initializers import __all__ as __all__
from .keras_objects.initializers import __doc__ as __doc__
