"""The front: what a person sees and asks for beside a run."""
