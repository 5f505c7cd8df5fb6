"""tf.layers.conv1d of TensorFlow 1: a function whose variables are kept by name, in scopes."""
