"""The machine: a kernel and a machine's shape in, a guest that answers or a named end out."""
