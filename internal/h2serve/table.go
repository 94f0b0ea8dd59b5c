package h2serve

// busyHeads is how many requests between two looks make a connection worth a dynamic table of the header
// fields of answers (RFC 7541, section 2.3.2). Until then there is none: on a connection that rests it would
// take some KiB for nothing. The peer's table stays as it is at first: settings that change later are not
// for every peer (net/http of Go 1.26.8 races with the answers that it is writing).
const busyHeads = 32

// headSeenLocked counts a request, and has a connection on which many come use a table from now on.
func (c *conn) headSeenLocked() {
	c.heads++
	if c.calm = c.heads < busyHeads; c.calm || c.indexes {
		return
	}
	c.indexes = true
	c.encoder.SetMaxDynamicTableSizeLimit(tableSize)
	c.encoder.SetMaxDynamicTableSize(c.peer.table)
}
