"""The registered model: what MLflow holds, its card, promotion, and starting points for fine-tuning."""
