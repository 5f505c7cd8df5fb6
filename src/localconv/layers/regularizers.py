# The public place of what keras_objects/regularizers.py defines.
from .keras_objects.regularizers import *  # noqa: F403
from .keras_objects.regularizers import __all__ as __all__
from .keras_objects.regularizers import __doc__ as __doc__
