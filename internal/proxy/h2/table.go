package h2

// busyHeads is how many calls between two looks make a connection worth a dynamic table of the header
// fields of calls (RFC 7541, section 2.3.2). Until then there is none: on a connection that rests it would
// take some KiB for nothing. The server's table stays as it is at first: settings that change later are not
// for every server (net/http of Go 1.26.8 races with the answers that it is writing).
const busyHeads = 32

// headSentLocked counts a call that is about to go, and has a connection on which many do use a table from now on.
func (c *Conn) headSentLocked() {
	if c.heads++; c.heads < busyHeads || c.indexes {
		return
	}
	c.indexes = true
	c.encoder.SetMaxDynamicTableSizeLimit(tableSize)
	c.encoder.SetMaxDynamicTableSize(c.peer.table)
}
