"""Files of weights and models: .npz, HDF5, .keras; saving, loading, and what is in them."""
