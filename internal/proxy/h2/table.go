package h2

import (
	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// busyHeads is how many calls between two looks make a connection worth a dynamic table of header
// fields each way (RFC 7541, section 2.3.2). Until then there is none: on a connection that rests they would
// take several KiB for nothing.
const busyHeads = 32

// noTable begins without tables.
func (c *Conn) noTable() http2.Setting {
	c.encoder.SetMaxDynamicTableSizeLimit(0)
	return http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}
}

// headSentLocked counts a call that is about to go, and has a connection on which many do use tables from now on.
func (c *Conn) headSentLocked() {
	if c.heads++; c.heads < busyHeads || c.indexes {
		return
	}
	c.indexes = true
	c.encoder.SetMaxDynamicTableSizeLimit(tableSize)
	c.encoder.SetMaxDynamicTableSize(c.peer.table)
	c.out = h2frame.AppendSettings(c.out, http2.Setting{ID: http2.SettingHeaderTableSize, Val: tableSize})
}
