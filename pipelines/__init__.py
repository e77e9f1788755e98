"""When things run: a plain function a verb, the Prefect flows around them, the command line in front."""
