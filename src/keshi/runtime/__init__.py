"""What both sides of keshi share: settings, Kafka, sealing, logs, health."""
