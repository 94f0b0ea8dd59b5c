package proxy_test

import (
	"io"
	"log"
)

// quiet swallows what net/http's server says about handshakes and aborts.
var quiet = log.New(io.Discard, "", 0)
