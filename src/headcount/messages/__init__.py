"""The contract between the parts of headcount and with others: topics, subjects, streams and payloads.

`records` holds what is stored in key-value buckets; everything else is sent. Times are Unix seconds unless a
field states otherwise.
"""
