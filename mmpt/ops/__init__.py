"""Pure maths on torch tensors: no configuration, no modules, no printing, no device literals."""
