"""Every topic, subject and payload that parts of headcount and others exchange."""
