"""Configuration: rig.yaml and KEY=VALUE words in, frozen models and the cells that they make out."""
