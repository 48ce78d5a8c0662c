"""WebSocket (RFC 6455), with permessage-deflate (RFC 7692): messages as events of records."""
