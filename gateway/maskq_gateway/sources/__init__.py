"""Sources of notifications: S3, EventBridge, SNS and SeaweedFS."""
