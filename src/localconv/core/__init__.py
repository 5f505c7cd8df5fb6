"""What computes: arguments, specs, geometry, policy and the engine, over the compiled `localconv._core`."""
