// Package urlshortener is an example of plugins that talk to each other through
// their host, each of them a process: logger, storage, and an api that needs both.
// The programs are in cmd, and cmd/demo runs them all.
package urlshortener

import _ "embed"

// Policy is what the plugins may do, for the flag -policy of the host.
//
//go:embed policy.json
var Policy []byte
