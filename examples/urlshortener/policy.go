// Package urlshortener is an example of plugins that talk to each other through
// their host, each of them a process: logger, storage, and an api that needs both.
// The programs are in cmd, and cmd/demo runs them all.
package urlshortener

import (
	_ "embed"
	"time"
)

// Policy is what the plugins may do, for the flag -policy of the host.
//
//go:embed policy.json
var Policy []byte

// ShutdownGrace is how long the host drains when it is told to end, and how long after that a Cleanup may take, which this one has not.
// Whatever ends its process, as the manifests in deploy say, gives it more time than both.
const ShutdownGrace = 5 * time.Second
