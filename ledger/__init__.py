"""What is on record: model versions in MLflow; predictions, outcomes, promotions and the audit in one database."""
