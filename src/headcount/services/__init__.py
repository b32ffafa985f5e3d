"""Operations that the command line and the HTTP API share.

Each service method does one thing to the deployment and writes its audit entry. Where an operation grants
something or changes data, the entry comes first: an operation that cannot be recorded does not happen. Where
it takes rights away (revoking a token, ending sessions, banning), the operation comes first. Secrets that an
operation creates are returned only after its entry is stored.

Nothing here knows HTTP or the command line: errors are those of `headcount.errors`.
"""
