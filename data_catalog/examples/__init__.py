"""Small synthetic copies of published data sets, in their exact layouts: to try the pipeline, and to test adapters."""
