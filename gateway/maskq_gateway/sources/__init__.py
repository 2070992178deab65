"""Sources of notifications: S3, EventBridge, SNS and SeaweedFS. notifications.py lists them."""
