"""What a training does between its steps: Detectron2's hooks, where a full disk or a stop must not cost anything."""
