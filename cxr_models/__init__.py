"""Models, losses, metrics and the phantom. Knows torch and MONAI, no Prefect and no MLflow."""
