// Package data holds the URLs that the demo shortens.
package data

import (
	_ "embed"
	"strings"
)

//go:embed urls.txt
var urls string

// URLs returns 1,300 made-up URLs, 72 of them repeated: long ones, unicode in
// every place, query strings, signed links, odd punctuation. All are on names
// that are reserved for examples (RFC 2606), so none leads anywhere.
func URLs() []string {
	return strings.Split(strings.TrimSpace(urls), "\n")
}
