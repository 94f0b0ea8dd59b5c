package h2serve

import (
	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// busyHeads is how many requests between two looks make a connection worth a dynamic table of header
// fields each way (RFC 7541, section 2.3.2). Until then there is none: on a connection that rests they would
// take several KiB for nothing.
const busyHeads = 32

// noTableLocked begins without tables.
func (c *conn) noTableLocked() http2.Setting {
	c.encoder.SetMaxDynamicTableSizeLimit(0)
	return http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}
}

// headSeenLocked counts a request, and has a connection on which many come use tables from now on.
func (c *conn) headSeenLocked() {
	c.heads++
	if c.calm = c.heads < busyHeads; c.calm || c.indexes {
		return
	}
	c.indexes = true
	c.encoder.SetMaxDynamicTableSizeLimit(tableSize)
	c.encoder.SetMaxDynamicTableSize(c.peer.table)
	c.out = h2frame.AppendSettings(c.out, http2.Setting{ID: http2.SettingHeaderTableSize, Val: tableSize})
	c.flushElsewhereLocked()
}
